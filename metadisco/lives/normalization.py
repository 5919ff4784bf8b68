"""Running normalization of observations and rewards.

Statistics are per life, over all its workers, and part of the agent's state. The environment is unchanged, and so are
fitness and scores, which are unnormalized returns.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Obs, Trajectory
from metadisco.envs.base import Box, EnvSpec


@struct.dataclass
class Moments:
    """Running mean and variance of each entry."""

    count: jax.Array  # [] float32
    mean: jax.Array  # [...] float32
    square: jax.Array  # [...] float32, sum of squared deviations from the mean

    @property
    def deviation(self) -> jax.Array:
        """Standard deviation; 1 without data and for constants. [...] float32."""
        variance = self.square / jnp.maximum(self.count, 1.0)
        rounding = 1e-12 + jnp.square(1e-6 * self.mean)  # variance of a constant, by rounding in float32
        return jnp.sqrt(jnp.where(variance > rounding, variance, 1.0))


def no_moments(shape: tuple[int, ...]) -> Moments:
    """Nothing was seen."""
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))


def include(moments: Moments, values: jax.Array) -> Moments:
    """Moments updated with `values` [T, B, ...] (Chan, Golub and LeVeque, 1979)."""
    count = jnp.asarray(values.shape[0] * values.shape[1], jnp.float32)
    mean = jnp.mean(values, axis=(0, 1))
    square = jnp.sum(jnp.square(values - mean), axis=(0, 1))
    total = moments.count + count
    gap = mean - moments.mean
    return Moments(
        count=total,
        mean=moments.mean + gap * count / total,
        square=moments.square + square + jnp.square(gap) * moments.count * count / total,
    )


@struct.dataclass
class NormalizerState:
    """Statistics of one life."""

    obs: Moments | None  # of each entry of the observation; None if not normalized
    returns: Moments | None  # [], of discounted returns so far; None if rewards are not scaled
    running_return: jax.Array  # [B] float32, discounted reward so far of the current episodes


@own_defaults
@dataclass(frozen=True)
class Normalizer:
    """Observations of zero mean and unit variance, rewards divided by the deviation of discounted returns.

    o' = clip((o - mean o) / std o), r' = clip(r / std R), R_t = r_t + gamma R_{t-1} within an episode (as is customary
    for PPO on continuous control, arXiv:2006.05990). Statistics are updated after the agent's update, so an agent
    learns from the inputs with which it acted; the first rollout is only clipped.

    Attributes:
        observations: whether observations are normalised.
        rewards: whether rewards are scaled, for the objective and the critic; never for fitness.
        gamma: discount of R, in [0, 1]; usually that of the objective.
        clip: largest magnitude of either afterwards.

    Example:
        >>> from metadisco.envs.base import EnvSpec
        >>> state = Normalizer().init(EnvSpec(Box((3,)), Box((1,))), num_workers=2)
        >>> state.obs.mean.shape
        (3,)
    """

    observations: bool = True
    rewards: bool = True
    gamma: float = 0.99
    clip: float = 10.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"Normalizer.gamma must be in [0, 1], got {self.gamma}")
        if not self.clip > 0.0:
            raise ValueError(f"Normalizer.clip must be positive, got {self.clip}")
        if not (self.observations or self.rewards):
            raise ValueError("Normalizer(observations=False, rewards=False) does nothing; use None instead")

    def check(self, spec: EnvSpec) -> None:
        """Raise ValueError where observations are not numbers."""
        if self.observations and not isinstance(spec.observation, Box):
            raise ValueError(f"only Box observations can be normalised, got {spec.observation}; set observations=False")

    def init(self, spec: EnvSpec, num_workers: int) -> NormalizerState:
        """Statistics of no data."""
        self.check(spec)
        shape = spec.observation.shape if isinstance(spec.observation, Box) else ()
        return NormalizerState(
            obs=no_moments(shape) if self.observations else None,
            returns=no_moments(()) if self.rewards else None,
            running_return=jnp.zeros(num_workers),
        )

    def observe(self, state: NormalizerState, obs: Obs) -> Obs:
        """Normalize observations; shapes are unchanged."""
        if state.obs is None:
            return obs
        return jnp.clip((obs - state.obs.mean) / state.obs.deviation, -self.clip, self.clip)

    def perceive(self, state: NormalizerState, trajectory: Trajectory) -> Trajectory:
        """Normalize a rollout [T, B]."""
        reward = trajectory.reward
        if state.returns is not None:
            reward = jnp.clip(reward / state.returns.deviation, -self.clip, self.clip)
        return replace(
            trajectory,
            obs=self.observe(state, trajectory.obs),
            next_obs=self.observe(state, trajectory.next_obs),
            reward=reward,
        )

    def update(self, state: NormalizerState, trajectory: Trajectory) -> NormalizerState:
        """Statistics updated with a rollout [T, B] that is not normalized."""
        obs = None if state.obs is None else include(state.obs, trajectory.obs)
        if state.returns is None:
            return replace(state, obs=obs)

        def step(running: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            reward, finished = now
            running = reward + self.gamma * running
            return jnp.where(finished, 0.0, running), running

        running, so_far = jax.lax.scan(step, state.running_return, (trajectory.reward, trajectory.finished))
        return NormalizerState(obs, include(state.returns, so_far), running)
