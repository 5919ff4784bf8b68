"""Environments that are stepped on the host: vector environments of gymnasium, whatever they are written in.

A *source* is a component that makes such a vector environment. `Hosted` puts a source where an environment is asked
for, so that networks, objectives and learners are what they are elsewhere; what steps it is `metadisco.lives.host`, one
agent after the other. It cannot be stepped inside a compiled program, so nothing is meta-trained on it.

Vector environments must reset in the step in which an episode ends (gymnasium's `AutoresetMode.SAME_STEP`), for only
then is no step lost, and must say what the last observation was (`final_obs`).
"""

import importlib.util
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol

import jax
import numpy as np

from metadisco.core.config import ConfigError
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Obs
from metadisco.envs.base import Box, Discrete, EnvSpec, Level, State, Step


class Source(Protocol):
    """A named choice of vector environment: a frozen dataclass."""

    @property
    def spec(self) -> EnvSpec:
        """Spaces; continuous actions are in [-1, 1]. Observations may be uint8 where the space is a Box."""

    def check(self) -> None:
        """Raise ConfigError where a library is missing; says how to install it."""

    def make(self, num_workers: int, *, training: bool) -> Any:
        """A `gymnasium.vector.VectorEnv` in the mode SAME_STEP.

        Args:
            num_workers: B.
            training: whether agents learn from its rewards, or are evaluated by them.
        """

    def observe(self, obs: np.ndarray) -> np.ndarray:
        """Observations [B, ...] as agents see them, of what gymnasium returned."""


@own_defaults
@dataclass(frozen=True)
class Hosted:
    """An environment that is stepped on the host.

    Attributes:
        source: of the vector environment.

    Example:
        >>> from metadisco.envs.gymnasium_adapter import Gymnasium
        >>> Hosted(Gymnasium("CartPole-v1")).spec
        EnvSpec(observation=Box(shape=(4,), low=-inf, high=inf), action=Discrete(num=2))
    """

    source: Source

    @property
    def spec(self) -> EnvSpec:
        """Of the source."""
        return self.source.spec

    def noise(self, key: Key, shape: tuple[int, ...]) -> NoReturn:
        """Raises ValueError, as the two that follow."""
        self._refuse()

    def reset(self, noise: Any, level: Level) -> tuple[Obs, State]:
        """See `noise`."""
        self._refuse()

    def step(self, noise: Any, state: State, action: jax.Array, level: Level) -> tuple[Obs, State, Step]:
        """See `noise`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"{self.source} is stepped on the host: objectives are tested on it (metadisco.lives.host), but nothing is "
            "meta-trained on it; use an environment written in JAX, such as Gymnax or Brax"
        )


class HostStep(NamedTuple):
    """What one step of all workers gave. Leading axis B."""

    reward: np.ndarray  # float32
    terminated: np.ndarray  # bool
    truncated: np.ndarray  # bool, never with `terminated`
    next_obs: np.ndarray  # what the action led to, before any reset


class Workers:
    """B workers of a vector environment, which is closed with them.

    Attributes:
        obs: [B, ...], where the workers are.
    """

    def __init__(self, source: Source, num_workers: int, *, training: bool, seed: int) -> None:
        """Reset all workers. Raises ValueError where the vector environment does not reset as it must."""
        source.check()
        from gymnasium.vector import AutoresetMode

        self._source, self._spec = source, source.spec
        self._vector = source.make(num_workers, training=training)
        mode = self._vector.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            self._vector.close()
            raise ValueError(
                f"{source} made a vector environment with autoreset_mode {mode}; it must be AutoresetMode.SAME_STEP"
            )
        obs, _ = self._vector.reset(seed=seed)
        self.obs = self._observe(obs)

    def step(self, action: np.ndarray) -> HostStep:
        """Act once with every worker, [B] int32 or [B, D] float32, and reset where an episode ended."""
        obs, reward, terminated, truncated, info = self._vector.step(self._action(action))
        terminated = np.array(terminated, bool)
        truncated = np.array(truncated, bool) & ~terminated
        following = self._observe(obs)
        next_obs = following.copy()
        for worker in np.flatnonzero(terminated | truncated):
            next_obs[worker] = self._observe(np.asarray(info["final_obs"][worker])[None])[0]
        self.obs = following
        return HostStep(np.array(reward, np.float32), terminated, truncated, next_obs)

    def close(self) -> None:
        """Free what the vector environment holds."""
        self._vector.close()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _observe(self, obs: np.ndarray) -> np.ndarray:
        """A copy, since vector environments may write into their own arrays."""
        seen = self._source.observe(np.asarray(obs))
        if isinstance(self._spec.observation, Discrete):
            return np.array(seen - self._vector.single_observation_space.start, np.int32)
        return np.array(seen, np.uint8 if seen.dtype == np.uint8 else np.float32)

    def _action(self, action: np.ndarray) -> np.ndarray:
        """What gymnasium is given: [-1, 1] is stretched to the bounds where there are any."""
        space = self._vector.single_action_space
        if isinstance(self._spec.action, Discrete):
            return action.astype(np.int64) + getattr(space, "start", 0)
        low = np.where(np.isfinite(space.low), space.low, -1.0)
        high = np.where(np.isfinite(space.high), space.high, 1.0)
        taken = 0.5 * (high + low) + 0.5 * (high - low) * np.clip(action, -1.0, 1.0)
        return taken.astype(space.dtype)


def spec_of(observation: Any, action: Any, *, name: str) -> EnvSpec:
    """Spaces of a single environment of gymnasium. Raises ValueError for those that agents cannot have."""
    from gymnasium import spaces

    if not isinstance(observation, spaces.Box | spaces.Discrete):
        raise ValueError(f"{name} has observations {observation}; Box and Discrete ones can be learned from")
    if not isinstance(action, spaces.Box | spaces.Discrete):
        raise ValueError(f"{name} has actions {action}; Box and Discrete ones can be learned")
    return EnvSpec(
        Box(tuple(observation.shape)) if isinstance(observation, spaces.Box) else Discrete(int(observation.n)),
        Box(tuple(action.shape), -1.0, 1.0) if isinstance(action, spaces.Box) else Discrete(int(action.n)),
    )


def require(library: str, *, needed_by: str, install: str) -> None:
    """Raise ConfigError where a library is not installed."""
    if importlib.util.find_spec(library) is None:
        raise ConfigError(f"{needed_by} needs {library}, which is not installed: {install}")
