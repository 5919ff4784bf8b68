"""Act in an environment with `B` workers for `T` steps, resetting where an episode ends."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from metadisco.core import trees
from metadisco.core.keys import split_rollout
from metadisco.core.types import Key, Obs, Trajectory
from metadisco.envs.base import Box, CostlyReset, Discrete, Environment, Level, State

Policy = Callable[[jax.Array, Obs], tuple[jax.Array, jax.Array]]
"""(noise [B, ...], obs [B, ...]) -> (action [B] or [B, D], log_prob [B])."""

Draw = Callable[[Key, tuple[int, ...]], jax.Array]
"""(key, (T, B)) -> [T, B, ...], the noise that a policy needs."""


def begin(key: Key, env: Environment, level: Level, num_workers: int) -> tuple[Obs, State]:
    """Reset `num_workers` workers. Obs [B, ...] and states [B, ...]."""
    return jax.vmap(env.reset, in_axes=(0, None))(env.noise(key, (num_workers,)), level)


def rollout(
    key: Key,
    env: Environment,
    level: Level,
    policy: Policy,
    obs: Obs,
    state: State,
    *,
    num_steps: int,
    draw: Draw = jax.random.uniform,
) -> tuple[Trajectory, Obs, State]:
    """Act `num_steps` times with every worker; begin a new episode where one ended.

    Args:
        key: all randomness of the rollout is drawn from it at once.
        env: the environment.
        level: one level, shared by the workers.
        policy: see `Policy`.
        obs: [B, ...], where the workers are.
        state: [B, ...].
        num_steps: T.
        draw: the policy's noise; by default one uniform number for each action.

    Returns:
        trajectory [T, B, ...], and the workers' next observations and states. Continuous actions are clipped to the
        bounds of the space on their way to the environment; the trajectory has them as they were drawn.
    """
    num_workers = jax.tree.leaves(state)[0].shape[0]
    policy_key, env_key = split_rollout(key)
    draws = draw(policy_key, (num_steps, num_workers))
    noises = env.noise(env_key, (num_steps, num_workers))

    def step(carry: tuple[Obs, State], now: tuple) -> tuple[tuple[Obs, State], Trajectory]:
        obs, state = carry
        drawn, noise = now
        action, log_prob = policy(drawn, obs)
        taken = _within_bounds(env.spec.action, action)
        next_obs, next_state, out = jax.vmap(env.step, in_axes=(0, 0, 0, None))(noise, state, taken, level)
        trajectory = Trajectory(obs, action, log_prob, out.reward, out.terminated, out.truncated, next_obs)
        finished = out.terminated | out.truncated

        def renew(following: tuple[Obs, State]) -> tuple[Obs, State]:
            return trees.where(finished, jax.vmap(env.reset, in_axes=(0, None))(noise, level), following)

        following = (next_obs, next_state)
        if isinstance(env, CostlyReset) and env.reset_is_costly:
            return jax.lax.cond(jnp.any(finished), renew, lambda same: same, following), trajectory
        return renew(following), trajectory

    (obs, state), trajectory = jax.lax.scan(step, (obs, state), (draws, noises))
    return trajectory, obs, state


def _within_bounds(space: Discrete | Box, action: jax.Array) -> jax.Array:
    return jnp.clip(action, space.low, space.high) if isinstance(space, Box) else action


def no_returns(num_workers: int) -> tuple[jax.Array, jax.Array]:
    """Episode return so far, and whether the first episode is over, for workers that have just begun."""
    return jnp.zeros(num_workers), jnp.zeros(num_workers, bool)


def accumulate(episode_return: jax.Array, is_over: jax.Array, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
    """Add a rollout's rewards to each worker's return until its first episode is over.

    Args:
        episode_return: [B] float32, undiscounted, so far.
        is_over: [B] bool.
        trajectory: [T, B].

    Returns:
        The two, updated.
    """
    finished = trajectory.finished
    # Over before step t: at the start, or by the end of an earlier step of this rollout.
    earlier = jnp.cumsum(finished, axis=0) - finished
    counts = ~is_over & (earlier == 0)
    episode_return = episode_return + jnp.sum(jnp.where(counts, trajectory.reward, 0.0), axis=0)
    return episode_return, is_over | jnp.any(finished, axis=0)
