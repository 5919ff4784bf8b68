"""What a grid-world level is like, in a few numbers: size, time, objects, and how far away the first reward is.

A curriculum chooses levels; how its choice differs from what it chose among is told by the distributions of these.
"""

import chex
import jax
import jax.numpy as jnp
from flax import struct

from metadisco.envs.gridworld.dynamics import GridLevel, GridWorld


@struct.dataclass
class LevelFeatures:
    """Numbers that describe one level."""

    num_free: jax.Array  # [] int32, cells without walls
    max_steps: jax.Array  # [] int32, steps before truncation
    num_objects: jax.Array  # [] int32, objects that exist
    reward_distance: jax.Array  # [] float32, steps to the nearest object that rewards; infinite where none is in reach


def level_features(env: GridWorld, level: GridLevel) -> LevelFeatures:
    """Describe one level.

    `reward_distance` is min_k d(start, object_k) over existing objects with r_k > 0, where d is the length of the
    shortest walk around walls. A walk may cross other objects, whatever they do to the agent. It is a measure of how
    sparse reward is: an agent that knows nothing has to make so many right moves before anything tells it so. Under
    `random_positions` a level does not say where objects are, and the distance is NaN.
    """
    exists = level.object_cell >= 0
    distance = object_distance(env, level, exists & (level.reward > 0.0))
    return LevelFeatures(
        num_free=jnp.sum(~level.walls, dtype=jnp.int32),
        max_steps=level.max_steps,
        num_objects=jnp.sum(exists, dtype=jnp.int32),
        reward_distance=jnp.full_like(distance, jnp.nan) if env.random_positions else distance,
    )


def object_distance(env: GridWorld, level: GridLevel, counts: jax.Array) -> jax.Array:
    """Steps of the shortest walk from the start to the nearest object that counts, [K] bool; infinite for none."""
    there = walking_distances(env, level)[level.object_cell]
    return jnp.min(jnp.where(counts, there, jnp.inf))


def walking_distances(env: GridWorld, level: GridLevel) -> jax.Array:
    """Steps of the shortest walk from the start to each cell; infinite where there is none. [cells] float32."""
    return cell_distances(env, level.walls, level.start)


def cell_distances(env: GridWorld, walls: jax.Array, start: jax.Array) -> jax.Array:
    """The same of a map without objects: walls [cells] bool, start [] int32.

    Each round lets every free cell be one step farther than its nearest neighbor, until nothing changes.
    """
    chex.assert_shape(walls, (env.num_cells,))
    free = ~walls.reshape(env.rows, env.columns)

    def relax(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        distance, _ = carry
        padded = jnp.pad(distance, 1, constant_values=jnp.inf)
        vertical = jnp.minimum(padded[:-2, 1:-1], padded[2:, 1:-1])
        horizontal = jnp.minimum(padded[1:-1, :-2], padded[1:-1, 2:])
        nearer = jnp.minimum(distance, 1.0 + jnp.minimum(vertical, horizontal))
        return jnp.where(free, nearer, jnp.inf), distance

    is_start = (jnp.arange(env.num_cells) == start).reshape(env.rows, env.columns)
    first = jnp.where(is_start, 0.0, jnp.inf)
    changes = (first, jnp.full_like(first, -1.0))  # the second differs, so that there is a first round
    distance, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[0] != carry[1]), relax, changes)
    return distance.reshape(-1)
