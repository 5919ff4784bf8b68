"""Named suites of test tasks, and the syntax of their names.

    NAME              a suite, or each one of a group, at the lifetime that it is meant for
    NAME@250          at a lifetime of 250 agent updates
    NAME@x4           at four times its own; NAME@x1/4 at a quarter
    horizons:NAME     at 1/4, 1, 4 and 16 times its own
    LIBRARY:NAME      any environment of a library, or one's own: gymnax:FourRooms-misc, my_module:make_env
    horizons:NAME@64  at 1/4, 1, 4 and 16 times 64 agent updates, such as the lifetime that an objective was trained on

Factors are of the suite's own lifetime, since environments differ in what a usual budget is. A lifetime that is not a
whole number is rounded; below 1 there is none.

Only `grid-validation` and `labyrinths-validation` may be tuned on. Their levels and those of the other suites come from
seeds of their own. Training draws from the seed of the run, along longer paths of `fold_in` and `split`: that any of
10**8 training levels has the key of one of 256 test levels has a chance of about 10**-9, whatever the seed of the run,
and one such level would not move an interquartile mean visibly.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import config
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Task
from metadisco.envs.base import Environment
from metadisco.envs.gridworld.hand_designed import HAND_DESIGNED
from metadisco.envs.gridworld.levels import LABYRINTHS, GridLevels
from metadisco.envs.gridworld.mazes import MAZES
from metadisco.envs.host import Hosted
from metadisco.evaluation import any_environment, environments
from metadisco.evaluation.catalog import GRID_SUITES, GROUPS, UNSCALED, UPPER_ANCHORS
from metadisco.evaluation.environments import EnvironmentConfig
from metadisco.evaluation.test_sets import Designed, Generated, GridSuite, Mazes, TestSet
from metadisco.lives.life import InnerLoop

UNSEEN_SEED = 2_000_000_011
VALIDATION_SEED = 2_000_000_033
DESIGNED_SEED = 2_000_000_063
RANDOM_SEED = 2_000_000_073
TINY_SEED = 2_000_000_087
HELDOUT_SEED = 2_000_000_099
LABYRINTHS_SEED = 2_000_000_123
LABYRINTHS_VALIDATION_SEED = 2_000_000_137

_DESIGNS = tuple(Designed(name) for name, design in HAND_DESIGNED.items() if not design.random_positions)
_TWINS = tuple(Designed(name) for name, design in HAND_DESIGNED.items() if design.random_positions)
_TINY = GridLevels(max_side=5, num_walls=3, max_objects=2, max_steps=(20, 40))


class Suite(Protocol):
    """A named set of tasks."""

    @property
    def name(self) -> str:
        """Name on the command line."""

    @property
    def description(self) -> str:
        """One line."""

    @property
    def lifetime(self) -> int:
        """Agent updates."""

    @property
    def env(self) -> Environment:
        """Where its tasks are."""

    @property
    def inner(self) -> InnerLoop | None:
        """The agents that are tested, as in `TestSet.inner`."""

    def build(self, lifetime: int | None = None, num_levels: int | None = None) -> TestSet:
        """The tasks, optionally at another lifetime or only the first ones."""


@own_defaults
@dataclass(frozen=True)
class EnvSuite:
    """One environment, at its own level, with its own agents.

    Scores are 0 for the random policy and 1 for what `EnvironmentConfig.upper_anchor` says, or returns where no scale
    is known.

    Attributes:
        name: of `metadisco.evaluation.environments`, or one that `metadisco.evaluation.any_environment` takes.

    Example:
        >>> EnvSuite("CartPole-v1").build(lifetime=4).upper_anchor
        'reference'
    """

    name: str

    @property
    def description(self) -> str:
        """One line."""
        anchor = self.config.upper_anchor
        scale = "scores are returns" if anchor == UNSCALED else f"1 is {UPPER_ANCHORS[anchor]}"
        return f"{self.name} with networks of its own; {scale}"

    @property
    def config(self) -> EnvironmentConfig:
        """The environment with its agent, budget and scale."""
        if any_environment.is_named_so(self.name):
            return any_environment.environment(self.name)
        return environments.environment(self.name)

    @property
    def lifetime(self) -> int:
        """Agent updates: the usual budget."""
        return self.config.lifetime

    @property
    def env(self) -> Environment:
        """Of the reference agent."""
        return self.inner.env

    @property
    def inner(self) -> InnerLoop:
        """The reference agent of the environment."""
        return self.config.inner

    def build(self, lifetime: int | None = None, num_levels: int | None = None) -> TestSet:
        """One task. Raises ConfigError for a lifetime below 1, or where a library of the environment is missing."""
        del num_levels  # there is one
        chosen = self.config
        if isinstance(chosen.inner.env, Hosted):
            chosen.inner.env.source.check()
        lifetime = chosen.lifetime if lifetime is None else lifetime
        if lifetime < 1:
            raise config.ConfigError(f"{self.name} needs lifetime >= 1, got {lifetime}")
        level = jax.tree.map(lambda leaf: leaf[None], chosen.levels.sample(jax.random.key(0)))
        return TestSet(
            name=self.name if lifetime == chosen.lifetime else f"{self.name}@{lifetime}",
            env=chosen.inner.env,
            lifetime=lifetime,
            tasks=Task(level, jnp.full(1, lifetime, jnp.int32)),
            names=(self.name,),
            random_return=np.array([chosen.random_return], np.float32),
            upper_return=np.array([chosen.upper_return], np.float32),
            inner=chosen.inner,
            upper_anchor=chosen.upper_anchor,
        )


_GRID_SUITES: Mapping[str, GridSuite] = MappingProxyType(
    {
        suite.name: suite
        for suite in (
            GridSuite(
                "grid-unseen",
                GRID_SUITES["grid-unseen"],
                (Generated(),),
                num_levels=256,
                lifetime=64,
                seed=UNSEEN_SEED,
            ),
            GridSuite(
                "grid-unseen-long",
                GRID_SUITES["grid-unseen-long"],
                (Generated(),),
                num_levels=64,
                lifetime=256,
                seed=UNSEEN_SEED,
            ),
            GridSuite(
                "grid-heldout",
                GRID_SUITES["grid-heldout"],
                (Generated(),),
                num_levels=256,
                lifetime=64,
                seed=HELDOUT_SEED,
            ),
            GridSuite(
                "grid-validation",
                GRID_SUITES["grid-validation"],
                (Generated(),),
                num_levels=128,
                lifetime=64,
                seed=VALIDATION_SEED,
            ),
            GridSuite(
                "grid-designed",
                GRID_SUITES["grid-designed"],
                _DESIGNS,
                num_levels=4 * len(_DESIGNS),
                lifetime=250,
                seed=DESIGNED_SEED,
            ),
            GridSuite(
                "grid-random",
                GRID_SUITES["grid-random"],
                _TWINS,
                num_levels=4 * len(_TWINS),
                lifetime=250,
                seed=RANDOM_SEED,
            ),
            GridSuite(
                "labyrinths",
                GRID_SUITES["labyrinths"],
                (Generated(LABYRINTHS),),
                num_levels=128,
                lifetime=64,
                seed=LABYRINTHS_SEED,
            ),
            GridSuite(
                "labyrinths-validation",
                GRID_SUITES["labyrinths-validation"],
                (Generated(LABYRINTHS),),
                num_levels=128,
                lifetime=64,
                seed=LABYRINTHS_VALIDATION_SEED,
            ),
            GridSuite("mazes", GRID_SUITES["mazes"], (Mazes(),), num_levels=len(MAZES), lifetime=250),
            GridSuite(
                "grid-tiny",
                GRID_SUITES["grid-tiny"],
                (Generated(_TINY),),
                num_levels=16,
                lifetime=8,
                seed=TINY_SEED,
            ),
        )
    }
)


SUITES: Mapping[str, Suite] = MappingProxyType(
    {**_GRID_SUITES, **{name: EnvSuite(name) for name in environments.NAMES}}
)

HORIZONS = (Fraction(1, 4), Fraction(1), Fraction(4), Fraction(16))
_PREFIX = "horizons:"


@dataclass(frozen=True)
class RequestedSuite:
    """A suite as it was asked for; nothing is drawn or solved yet.

    Attributes:
        suite: which one.
        lifetime: agent updates; None for the suite's own.
        num_levels: the first ones only; None for all.
    """

    suite: Suite
    lifetime: int | None = None
    num_levels: int | None = None

    @property
    def name(self) -> str:
        """`TestSet.name` of what is built: `NAME`, or `NAME@LIFETIME` where that is not the suite's own."""
        is_own = self.lifetime in (None, self.suite.lifetime)
        return self.suite.name if is_own else f"{self.suite.name}@{self.lifetime}"

    @property
    def size(self) -> int:
        """Levels that it will have."""
        if not isinstance(self.suite, GridSuite):
            return 1
        return self.suite.num_levels if self.num_levels is None else self.num_levels

    def build(self) -> TestSet:
        """Draw and solve the tasks. Raises ConfigError where that cannot be done."""
        return self.suite.build(lifetime=self.lifetime, num_levels=self.num_levels)


def find(name: str, num_levels: int | None = None) -> list[RequestedSuite]:
    """All that a name stands for.

    Args:
        name: as the beginning of this module says.
        num_levels: of each suite the first ones only.

    Raises:
        config.ConfigError: where there is no such suite or group, or the lifetime is not one.

    Example:
        >>> [requested.name for requested in find("horizons:grid-tiny")]
        ['grid-tiny@2', 'grid-tiny', 'grid-tiny@32', 'grid-tiny@128']
    """
    plain, at, wanted = name.removeprefix(_PREFIX).partition("@")
    factors = HORIZONS if name.startswith(_PREFIX) else (Fraction(1),)
    if at and not wanted:
        raise config.ConfigError(f"{name!r} says no lifetime after @; write NAME@LIFETIME or NAME@xFACTOR")
    chosen = [suite(member) for member in GROUPS.get(plain, (plain,))]
    return [
        RequestedSuite(each, _lifetime(name, each, wanted, factor), num_levels) for each in chosen for factor in factors
    ]


def build(name: str, num_levels: int | None = None) -> list[TestSet]:
    """Build all that a name stands for, see `find`.

    Raises:
        config.ConfigError: as `find`, or where a library of an environment is missing.
    """
    return [requested.build() for requested in find(name, num_levels)]


def same_levels(first: str, second: str) -> bool:
    """Whether two suites, each `NAME` or `NAME@LIFETIME`, draw the same levels, the smaller one the first of them."""
    names = [name.partition("@")[0] for name in (first, second)]
    known = [_GRID_SUITES[name] for name in names if name in _GRID_SUITES]
    return names[0] == names[1] or len({(each.sources, each.seed) for each in known}) == 1 < len(known)


def suite(name: str) -> Suite:
    """Look a suite up.

    Raises:
        config.ConfigError: where there is none of that name; lists the valid ones and the nearest match.
    """
    if name in SUITES:
        return SUITES[name]
    if any_environment.is_named_so(name):
        named = EnvSuite(name)
        _ = named.config  # raises where there is no such environment
        return named
    near = any_environment.near(name)
    others = f" In a library there is {', '.join(near)}." if near else ""
    raise config.ConfigError(f"unknown suite {name!r}.{others}{config.nearest(name, [*SUITES, *GROUPS])}")


def _lifetime(name: str, suite: Suite, wanted: str, factor: Fraction) -> int | None:
    """Agent updates; None where they are the suite's own."""
    if wanted.startswith("x"):
        factor *= _factor(name, wanted)
    elif wanted:
        if not (wanted.isdecimal() and int(wanted) > 0):
            raise config.ConfigError(
                f"{name!r}: the lifetime after @ must be a positive integer, or a factor such as x4 or x1/4, got "
                f"{wanted!r}"
            )
        return _rounded(name, suite, factor * int(wanted))
    return None if factor == 1 else _rounded(name, suite, factor * suite.lifetime)


def _factor(name: str, wanted: str) -> Fraction:
    factor = Fraction(0)
    if re.fullmatch(r"[0-9]{1,9}([./][0-9]{1,9})?", wanted[1:]):
        with contextlib.suppress(ZeroDivisionError):
            factor = Fraction(wanted[1:])
    if factor <= 0:
        raise config.ConfigError(
            f"{name!r}: the factor after @x must be a positive number such as 4, 1/4 or 0.25, got {wanted[1:]!r}"
        )
    return factor


def _rounded(name: str, suite: Suite, lifetime: Fraction) -> int:
    if lifetime < 1:
        raise config.ConfigError(
            f"{name!r}: {suite.name} would live for {float(lifetime):g} agent updates; ask for a lifetime of at least 1"
        )
    if lifetime > config.MAX_COUNT:
        raise config.ConfigError(f"{name!r}: a lifetime is at most {config.MAX_COUNT:,} agent updates")
    return round(lifetime)
