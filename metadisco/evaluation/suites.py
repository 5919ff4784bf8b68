"""Named suites: what objectives are tested on, in one readable place.

Only `grid-validation` may be tuned on. Its levels and those of the other suites come from seeds of their own. Training
draws from the seed of the run, along longer paths of `fold_in` and `split`: that any of 10**8 training levels has the
key of one of 256 test levels has a chance of about 10**-9, whatever the seed of the run, and one such level would not
move an interquartile mean visibly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import config
from metadisco.core.types import Task
from metadisco.envs.gridworld.hand_designed import HAND_DESIGNED
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.envs.gridworld.mazes import MAZES
from metadisco.envs.host import Hosted
from metadisco.evaluation import environments
from metadisco.evaluation.test_sets import TOPS, Designed, Generated, GridSuite, Mazes, TestSet

UNSEEN_SEED = 2_000_000_011
VALIDATION_SEED = 2_000_000_033
DESIGNED_SEED = 2_000_000_063
RANDOM_SEED = 2_000_000_073
TINY_SEED = 2_000_000_087

_DESIGNS = tuple(Designed(name) for name, design in HAND_DESIGNED.items() if not design.random_positions)
_TWINS = tuple(Designed(name) for name, design in HAND_DESIGNED.items() if design.random_positions)
_TINY = GridLevels(max_side=5, num_walls=3, max_objects=2, max_steps=(20, 40))


class Suite(Protocol):
    """A named set of tasks."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def description(self) -> str:
        """One line."""

    @property
    def lifetime(self) -> int:
        """Agent updates."""

    def build(self, lifetime: int | None = None, num_levels: int | None = None) -> TestSet:
        """The tasks, at another lifetime than the suite's own or only the first ones, if so asked."""


@dataclass(frozen=True)
class EnvSuite:
    """One environment of `metadisco.evaluation.environments`, at its own level, with its own agents.

    Scores are 0 for the random policy and 1 for what `Setting.top` says.

    Attributes:
        name: of the setting.

    Example:
        >>> EnvSuite("CartPole-v1").build(lifetime=4).top
        'reference'
    """

    name: str

    @property
    def description(self) -> str:
        """One line."""
        return f"{self.name} with networks of its own; 1 is {TOPS[environments.top_of(self.name)]}"

    @property
    def lifetime(self) -> int:
        """Agent updates: the usual budget."""
        return environments.setting(self.name).lifetime

    def build(self, lifetime: int | None = None, num_levels: int | None = None) -> TestSet:
        """One task. Raises ConfigError for a lifetime below 1, or where a library of the environment is missing."""
        del num_levels  # there is one
        setting = environments.setting(self.name)
        if isinstance(setting.inner.env, Hosted):
            setting.inner.env.source.check()
        lifetime = setting.lifetime if lifetime is None else lifetime
        if lifetime < 1:
            raise config.ConfigError(f"{self.name} needs lifetime >= 1, got {lifetime}")
        level = jax.tree.map(lambda leaf: leaf[None], setting.levels.sample(jax.random.key(0)))
        return TestSet(
            name=self.name if lifetime == setting.lifetime else f"{self.name}@{lifetime}",
            env=setting.inner.env,
            lifetime=lifetime,
            tasks=Task(level, jnp.full(1, lifetime, jnp.int32)),
            names=(self.name,),
            random_return=np.array([setting.random_return], np.float32),
            optimal_return=np.array([setting.reference_return], np.float32),
            inner=setting.inner,
            top=setting.top,
        )


_GRID_SUITES: Mapping[str, GridSuite] = MappingProxyType(
    {
        suite.name: suite
        for suite in (
            GridSuite(
                "grid-unseen",
                "general grid worlds that were never trained or tuned on",
                (Generated(),),
                num_levels=256,
                lifetime=64,
                seed=UNSEEN_SEED,
            ),
            GridSuite(
                "grid-unseen-long",
                "the first levels of grid-unseen at four times the lifetime",
                (Generated(),),
                num_levels=64,
                lifetime=256,
                seed=UNSEEN_SEED,
            ),
            GridSuite(
                "grid-validation",
                "general grid worlds to tune on",
                (Generated(),),
                num_levels=128,
                lifetime=64,
                seed=VALIDATION_SEED,
            ),
            GridSuite(
                "grid-designed",
                "the five hand-designed tabular levels of arXiv:2007.08794, four draws of the positions each",
                _DESIGNS,
                num_levels=4 * len(_DESIGNS),
                lifetime=250,
                seed=DESIGNED_SEED,
            ),
            GridSuite(
                "grid-random",
                "the five designs whose objects move, as levels where they stay, four draws of the positions each",
                _TWINS,
                num_levels=4 * len(_TWINS),
                lifetime=250,
                seed=RANDOM_SEED,
            ),
            GridSuite("mazes", "mazes of 13 x 13 cells", (Mazes(),), num_levels=len(MAZES), lifetime=250),
            GridSuite(
                "grid-tiny",
                "small rooms with short episodes, for a look at the machinery",
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

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "classic": ("CartPole-v1", "Acrobot-v1", "Pendulum-v1"),
        "bsuite": tuple(name for name in environments.NAMES if name.endswith("-bsuite")),
        "minatar": tuple(name for name in environments.NAMES if name.endswith("-MinAtar")),
        "brax": tuple(name for name in environments.NAMES if name.startswith("brax-")),
        "atari": tuple(name for name in environments.NAMES if name.startswith("atari-")),
    }
)
"""Names for several suites at once."""


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
    if name not in SUITES:
        raise config.ConfigError(f"unknown suite {name!r}.{config.nearest(name, [*SUITES, *GROUPS])}")
    return SUITES[name]
