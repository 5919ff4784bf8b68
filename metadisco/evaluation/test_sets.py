"""Test sets: fixed sets of tasks to test on, solved exactly.

A suite of grid worlds draws candidates in a fixed order, solves each and keeps the first ones on which skill can show:
the optimum beats the random policy by at least `MIN_RANGE`. A smaller build of a suite is therefore a prefix of a
larger one. The suites that have names are in `metadisco.evaluation.suites`.
"""

import functools
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import config, trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Task
from metadisco.envs.base import Environment
from metadisco.envs.gridworld import oracle
from metadisco.envs.gridworld.dynamics import GridLevel, GridWorld
from metadisco.envs.gridworld.hand_designed import HAND_DESIGNED
from metadisco.envs.gridworld.levels import GridLevels, embed
from metadisco.envs.gridworld.mazes import MAZES, maze
from metadisco.evaluation.catalog import UNSCALED
from metadisco.lives.life import InnerLoop

MIN_RANGE = 0.05  # least optimal - random return of a level in a suite
MAX_ROUNDS = 16  # candidates drawn per level asked for, at most, before giving up
CHUNK = 8  # candidates drawn and solved in one call


class LevelSource(Protocol):
    """Where the levels of a suite come from: rounds of one or more levels."""

    @property
    def env(self) -> GridWorld:
        """Tabular grid world that the levels are for."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the levels of one round."""

    @property
    def is_random(self) -> bool:
        """Whether another round has other levels."""

    def draw(self, key: Key) -> GridLevel:
        """Levels of one round, leading axis `len(names)`."""


@own_defaults
@dataclass(frozen=True)
class Generated:
    """Levels of a random distribution.

    Attributes:
        levels: the distribution.
    """

    levels: GridLevels = GridLevels()
    is_random = True
    names = ("level",)

    @property
    def env(self) -> GridWorld:
        """Of the distribution."""
        return self.levels.env

    def draw(self, key: Key) -> GridLevel:
        """One level."""
        return trees.stack([self.levels.sample(key)])


@own_defaults
@dataclass(frozen=True)
class Designed:
    """A hand-designed level; start and object cells, which the paper leaves open, are drawn.

    Attributes:
        name: a key of `HAND_DESIGNED`.

    Note:
        In five of the designs objects also move within a life, which a table cannot observe and which cannot be solved
        exactly. Here they stay where they were drawn.
    """

    name: str
    is_random = True

    @property
    def names(self) -> tuple[str, ...]:
        """The design's."""
        return (self.name,)

    @property
    def env(self) -> GridWorld:
        """Of the design, with objects that stay."""
        return replace(HAND_DESIGNED[self.name].env, planes=False, random_positions=False)

    def draw(self, key: Key) -> GridLevel:
        """One draw of the positions."""
        return trees.stack([HAND_DESIGNED[self.name].sample(key)])


@own_defaults
@dataclass(frozen=True)
class Mazes:
    """All mazes, once each.

    Attributes:
        max_steps: episode length.
    """

    max_steps: int = 250
    is_random = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the mazes."""
        return tuple(MAZES)

    @property
    def env(self) -> GridWorld:
        """One goal in 13 x 13 cells."""
        return maze(next(iter(MAZES)))[0]

    def draw(self, key: Key) -> GridLevel:
        """The mazes; nothing is random."""
        del key
        return trees.stack([maze(name, max_steps=self.max_steps)[1] for name in MAZES])


@dataclass(frozen=True, eq=False)
class TestSet:
    """The tasks of a suite, with the two anchors of their scores: what has the score 0, and what has 1."""

    __test__: ClassVar[bool] = False  # for pytest, which takes classes of such names for tests

    name: str  # of the suite, with @LIFETIME where that is not the suite's own
    env: Environment
    lifetime: int
    tasks: Task  # leading axis N
    names: tuple[str, ...]  # N
    random_return: np.ndarray  # [N] float32
    upper_return: np.ndarray  # [N] float32, of what `upper_anchor` says
    inner: InnerLoop | None = None  # the agents that are tested; None for those of meta-training
    upper_anchor: str = "optimal"  # what has the score 1, one of UPPER_ANCHORS, or UNSCALED

    @property
    def num_tasks(self) -> int:
        """N."""
        return len(self.names)

    @property
    def is_scaled(self) -> bool:
        """Whether scores have a scale; else they are returns."""
        return self.upper_anchor != UNSCALED


@own_defaults
@dataclass(frozen=True)
class GridSuite:
    """A fixed set of grid-world levels.

    Attributes:
        name: what it is called on the command line.
        description: one line.
        sources: where levels come from; they take turns.
        num_levels: how many levels.
        lifetime: agent updates.
        seed: of the levels.

    Example:
        >>> suite = GridSuite("mazes", "mazes of 13 x 13 cells", (Mazes(),), num_levels=14, lifetime=250)
        >>> suite.build(num_levels=2).names
        ('sixteen_rooms', 'sixteen_rooms_few_doors')
    """

    name: str
    description: str
    sources: tuple[LevelSource, ...]
    num_levels: int
    lifetime: int
    seed: int = 0

    def __post_init__(self) -> None:
        config.check_counts(self, "num_levels", "lifetime")
        if not self.sources:
            raise ValueError("GridSuite.sources is empty: say where levels come from")

    @property
    def inner(self) -> None:
        """No agents of its own: those of meta-training are tested."""
        return None

    @property
    def env(self) -> GridWorld:
        """The smallest grid world that holds all levels."""
        envs = [source.env for source in self.sources]
        sizes = ("rows", "columns", "num_objects", "num_types")
        return GridWorld(**{size: max(getattr(env, size) for env in envs) for size in sizes})

    def build(self, lifetime: int | None = None, num_levels: int | None = None) -> TestSet:
        """Draw the levels and solve them, which takes some seconds the first time.

        Args:
            lifetime: agent updates, instead of the suite's own.
            num_levels: the first ones only, or more of them.

        Raises:
            config.ConfigError: for numbers below 1, or more levels than there are.
        """
        lifetime = self.lifetime if lifetime is None else lifetime
        num_levels = self.num_levels if num_levels is None else num_levels
        if lifetime < 1 or num_levels < 1:
            raise config.ConfigError(f"{self.name} needs lifetime and num_levels >= 1, got {lifetime} and {num_levels}")
        entries = _entries(self, num_levels)
        levels = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *[entry.level for entry in entries])
        return TestSet(
            name=self.name if lifetime == self.lifetime else f"{self.name}@{lifetime}",
            env=self.env,
            lifetime=lifetime,
            tasks=Task(levels, jnp.full(num_levels, lifetime, jnp.int32)),
            names=tuple(entry.name for entry in entries),
            random_return=np.array([entry.random_return for entry in entries]),
            upper_return=np.array([entry.optimal_return for entry in entries]),
        )


class _Entry(NamedTuple):
    """One level of a suite."""

    name: str
    level: GridLevel  # of numpy arrays
    random_return: np.float32
    optimal_return: np.float32


@functools.lru_cache(maxsize=16)
def _entries(suite: GridSuite, num_levels: int) -> tuple[_Entry, ...]:
    """The first `num_levels` candidates that qualify. Kept, because other lifetimes have the same levels."""
    key, env = jax.random.key(suite.seed), suite.env
    per_round = sum(len(source.names) for source in suite.sources)
    is_random = any(source.is_random for source in suite.sources)
    step = max(1, CHUNK // per_round) if is_random else 1
    last = MAX_ROUNDS * -(-num_levels // per_round) if is_random else 1
    kept: list[_Entry] = []
    for first in range(0, last, step):
        chunks = [_solve(source, env, key, np.int32(first), step) for source in suite.sources]
        for place in range(step):
            for source, solved in zip(suite.sources, chunks, strict=True):
                kept += _qualified(source, first + place, jax.tree.map(lambda leaf: leaf[place], solved))  # noqa: B023
        if len(kept) >= num_levels:
            return tuple(kept[:num_levels])
    raise config.ConfigError(f"{suite.name} has {len(kept)} levels where skill shows, {num_levels} are asked for")


def _qualified(source: LevelSource, place: int, solved: tuple) -> list[_Entry]:
    """Levels of one round on which the optimum is worth something."""
    levels, random_return, optimal_return = solved
    return [
        _Entry(
            f"{name}-{place}" if source.is_random else name,
            jax.tree.map(lambda leaf: leaf[i], levels),  # noqa: B023
            random_return[i],
            optimal_return[i],
        )
        for i, name in enumerate(source.names)
        if optimal_return[i] - random_return[i] >= MIN_RANGE and (source.is_random or place == 0)
    ]


def _solve(source: LevelSource, env: GridWorld, key: Key, first: np.int32, count: int) -> tuple:
    """Levels for `env`, random and optimal returns of `count` rounds. Numpy, [count, len(names)]."""
    return jax.device_get(_draw_and_solve(source, env, key, first, count))


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def _draw_and_solve(source: LevelSource, env: GridWorld, key: Key, first: jax.Array, count: int) -> tuple:
    def solve(level: GridLevel) -> tuple:
        # In the source's own grid world, which can be much smaller than the suite's.
        returns = oracle.random_return(source.env, level), oracle.optimal_return(source.env, level)
        return embed(source.env, level, env), *returns

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(count))
    rounds = jax.vmap(source.draw)(keys)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rounds)
    solved = jax.lax.map(solve, flat)
    return jax.tree.map(lambda leaf: leaf.reshape(count, len(source.names), *leaf.shape[1:]), solved)
