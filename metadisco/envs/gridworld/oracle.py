"""Exact returns of tabular grid-world levels, by finite-horizon dynamic programming over (cell, objects, time).

How good can an agent be on this level, and how good is one that knows nothing? With both, returns of different levels
can be compared: score = (return - random) / (optimal - random). Undiscounted, over the `max_steps` of the level.

Tables are laid out [2**K subsets of present objects, cells], which flattens to the observation index of `GridWorld`.
One step backwards is K passes over the table (each object reappears or is collected independently of the others) and
five shifted copies (the moves), so no transition matrix is ever built.

The number of steps is a dynamic trip count. Under `vmap` all levels run to the longest `max_steps` of the batch. On a
CPU `jax.lax.map` over levels is faster: each table stays in the cache and each level stops at its own horizon. On an
accelerator vmap levels that are sorted by `max_steps`, some hundreds at a time.
"""

from collections.abc import Callable
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp

from metadisco.envs.gridworld.dynamics import DOWN, LEFT, NUM_ACTIONS, RIGHT, UP, GridLevel, GridWorld

Table = jax.Array  # [2**K, cells] float32


def optimal_return(env: GridWorld, level: GridLevel) -> jax.Array:
    """Expected episode return of the best policy, which may depend on time. [] float32."""
    values = _solve(env, level, lambda action_values: action_values.max(axis=-1))
    return _at_reset(env, level, values)


def random_return(env: GridWorld, level: GridLevel) -> jax.Array:
    """Expected episode return of the policy that takes all actions with equal probability. [] float32."""
    values = _solve(env, level, lambda action_values: action_values.mean(axis=-1))
    return _at_reset(env, level, values)


def policy_return(env: GridWorld, level: GridLevel, probabilities: jax.Array) -> jax.Array:
    """Expected episode return of a stationary policy.

    Args:
        env: tabular grid world.
        level: one level.
        probabilities: [S, A] float32, of each action at each observation index.

    Returns:
        [] float32.
    """
    _check_tabular(env)
    chex.assert_shape(probabilities, (env.num_cells * 2**env.num_objects, NUM_ACTIONS))
    table = probabilities.reshape(-1, env.num_cells, NUM_ACTIONS)
    values = _solve(env, level, lambda action_values: jnp.sum(table * action_values, axis=-1))
    return _at_reset(env, level, values)


def optimal_action_values(env: GridWorld, level: GridLevel, steps_left: jax.Array | int | None = None) -> jax.Array:
    """Expected rest of the return after each action, when the best policy follows.

    `argmax` over the last axis is an optimal action. It depends on the time: towards the end of an episode only near
    objects are worth walking to.

    Args:
        env: tabular grid world.
        level: one level.
        steps_left: [] int32, at least 1, steps until truncation, the action itself included; None for a whole episode.

    Returns:
        [S, A] float32.
    """
    steps_left = _horizon(level) if steps_left is None else steps_left
    values = _solve(env, level, lambda action_values: action_values.max(axis=-1), steps_left - 1)
    return _action_values(env, level, values).reshape(-1, NUM_ACTIONS)


def _solve(
    env: GridWorld, level: GridLevel, choose: Callable[[jax.Array], Table], num_steps: jax.Array | int | None = None
) -> Table:
    """Values with `num_steps` to go, where `choose` reduces action values [2**K, cells, A] to values."""
    _check_tabular(env)
    chex.assert_shape(level.walls, (env.num_cells,))
    chex.assert_shape(level.object_cell, (env.num_objects,))
    zeros = jnp.zeros((2**env.num_objects, env.num_cells))
    num_steps = _horizon(level) if num_steps is None else num_steps
    return jax.lax.fori_loop(0, num_steps, lambda _, values: choose(_action_values(env, level, values)), zeros)


def _action_values(env: GridWorld, level: GridLevel, values: Table) -> jax.Array:
    """Expected reward and value after each action, given the values of the next time step. [2**K, cells, A] float32."""
    arrival = _arrival_values(env, level, values).reshape(-1, env.rows, env.columns)
    walls = level.walls.reshape(env.rows, env.columns)
    after_move = []
    for action in range(NUM_ACTIONS):
        blocked = _neighbor(walls, action)
        after_move.append(jnp.where(blocked, arrival, _neighbor(arrival, action)))
    return jnp.stack(after_move, axis=-1).reshape(-1, env.num_cells, NUM_ACTIONS)


def _arrival_values(env: GridWorld, level: GridLevel, values: Table) -> Table:
    """Expected reward and value of having moved to a cell, while the objects are still those before the move.

    Object k is either collected or may reappear, and both are independent of the other objects, so that one pass per
    object composes to the whole transition: where k is absent, (1 - p) V[without k] + p V[with k]; where k is present
    and the agent stands on it, r + (1 - p_terminate) V[without k].
    """
    for k in range(env.num_objects):
        without, present = jnp.moveaxis(values.reshape(-1, 2, 2**k, env.num_cells), 1, 0)
        is_on_object = jnp.arange(env.num_cells) == level.object_cell[k]
        collected = level.reward[k] + (1.0 - level.p_terminate[k]) * without
        absent = without + level.p_respawn[k] * (present - without)
        values = jnp.stack([absent, jnp.where(is_on_object, collected, present)], axis=1)
    return values.reshape(-1, env.num_cells)


def _neighbor(grid: jax.Array, action: int) -> jax.Array:
    """What is in the cell that a move leads to; at the border the cell itself. [..., rows, columns]."""
    if action == UP:
        return jnp.concatenate([grid[..., :1, :], grid[..., :-1, :]], axis=-2)
    if action == DOWN:
        return jnp.concatenate([grid[..., 1:, :], grid[..., -1:, :]], axis=-2)
    if action == LEFT:
        return jnp.concatenate([grid[..., :1], grid[..., :-1]], axis=-1)
    if action == RIGHT:
        return jnp.concatenate([grid[..., 1:], grid[..., -1:]], axis=-1)
    return grid


def _at_reset(env: GridWorld, level: GridLevel, values: Table) -> jax.Array:
    """Value of the first state of an episode: the agent on its start and all objects of the level present."""
    exists = level.object_cell >= 0
    subset = jnp.sum(jnp.where(exists, 1 << jnp.arange(env.num_objects), 0))
    return values[subset, level.start]


def _horizon(level: GridLevel) -> jax.Array:
    """Steps of an episode that nothing terminates: truncation is noticed after a step, so at least one."""
    return jnp.maximum(level.max_steps, 1)


def tabular(env: object) -> GridWorld:
    """The grid world in which to solve levels of an environment.

    Raises:
        ValueError: where there is none, with the reason.
    """
    if not isinstance(env, GridWorld):
        raise ValueError(f"there is an exact solution for GridWorld only, got {env}")
    if env.random_positions:
        raise ValueError("there is no exact solution where objects have random_positions; use fixed positions")
    return replace(env, planes=False)  # what is observed does not change what can be had


def _check_tabular(env: GridWorld) -> None:
    if env.planes:
        raise ValueError(
            "the oracle needs a tabular grid world, got planes=True; for fixed positions use a GridWorld of the same "
            "size with planes=False on the same level, for random_positions there is no exact solution"
        )
