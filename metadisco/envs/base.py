"""Protocol of environments: static sizes in the object, everything else in the level.

An environment is a frozen dataclass of static sizes. A *level* is a pytree of arrays, an argument of `reset` and
`step`, so levels can be vmapped, sorted, mutated, saved and drawn. An environment never resets itself: `step`
returns the observation that the action led to and says whether the episode terminated or was truncated;
`metadisco.envs.rollout` resets.

Randomness is drawn by `noise` for a whole rollout in one call, because a key split per step costs more than a
grid-world step. Environments for which that does not matter return keys: `jax.random.split(key, shape)`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
from flax import struct

from metadisco.core.types import Key, Obs

Noise = Any  # pytree of arrays or keys: all that one step, and a reset after it, may draw
Level = Any  # pytree of arrays
State = Any  # pytree of arrays


@dataclass(frozen=True)
class Discrete:
    """A set of `num` values, given as an int32 index."""

    num: int


@dataclass(frozen=True)
class Box:
    """Arrays of float32 of a fixed shape; `low` and `high` bound every entry."""

    shape: tuple[int, ...]
    low: float = -float("inf")
    high: float = float("inf")


@dataclass(frozen=True)
class EnvSpec:
    """Observation and action spaces, the same for all levels."""

    observation: Discrete | Box
    action: Discrete | Box

    @property
    def num_actions(self) -> int:
        """The number of actions; ValueError where they are not discrete."""
        if not isinstance(self.action, Discrete):
            raise ValueError(f"only discrete action spaces have a number of actions, got {self.action}")
        return self.action.num


@struct.dataclass
class Step:
    """Result of a step, beside the observation."""

    reward: jax.Array  # [] float32
    terminated: jax.Array  # [] bool
    truncated: jax.Array  # [] bool, never with `terminated`


class Environment(Protocol):
    """A partially specified Markov decision process; a level completes it. It may be `CostlyReset` too."""

    @property
    def spec(self) -> EnvSpec:
        """Observation and action spaces."""

    def noise(self, key: Key, shape: tuple[int, ...]) -> Noise:
        """All randomness for `shape` steps; every leaf starts with the axes `shape`."""

    def reset(self, noise: Noise, level: Level) -> tuple[Obs, State]:
        """Begin an episode. `noise` is for one step: no leading axes."""

    def step(self, noise: Noise, state: State, action: jax.Array, level: Level) -> tuple[Obs, State, Step]:
        """Act once. The returned observation is the one that the action led to, also when the episode ended."""


@runtime_checkable
class CostlyReset(Protocol):
    """An environment that says what its resets cost. Optional.

    Where they are costly, a rollout resets only in steps in which an episode ended, instead of computing a reset in
    every step. That pays where a reset costs as much as a step and ends are rare, and only for lives that are not
    vmapped.
    """

    reset_is_costly: ClassVar[bool]
