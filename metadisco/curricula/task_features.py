"""Features of tasks: where a task stands among others, for curricula that compare tasks with their neighbors.

Their scales do not matter to whoever uses them, but distances should mean something: lengths are logarithms.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Task
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.features import level_features


class TaskFeatures(Protocol):
    """Numbers that describe a task."""

    def describe(self, task: Task) -> jax.Array:
        """Features of one task, finite. [D] float32."""


@own_defaults
@dataclass(frozen=True)
class GridFeatures:
    """Of a grid world: free cells, objects, log episode length, steps to the nearest reward, and the log lifetime.

    A reward that is out of reach counts as farther than any other. Where objects have random positions, a level does
    not say how far they are, and there are four features.

    Attributes:
        env: the grid world of the levels.

    Example:
        >>> import jax
        >>> from metadisco.curricula.tasks import Tasks
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> levels = GridLevels()
        >>> GridFeatures(levels.env).describe(Tasks(levels).sample(jax.random.key(0))).shape
        (5,)
    """

    env: GridWorld

    def describe(self, task: Task) -> jax.Array:
        """See the class."""
        level = level_features(self.env, task.level)
        distance = jnp.minimum(level.reward_distance, self.env.num_cells)
        numbers = [level.num_free, level.num_objects, jnp.log(jnp.maximum(level.max_steps, 1).astype(jnp.float32))]
        numbers += [] if self.env.random_positions else [distance]
        return jnp.stack([*map(_number, numbers), _log_lifetime(task)])


@own_defaults
@dataclass(frozen=True)
class LevelNumbers:
    """All numbers of the level as they are, and the log lifetime: for levels of a few parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> LevelNumbers().describe(Task({"gravity": jnp.float32(9.5)}, jnp.int32(1))).tolist()
        [9.5, 0.0]
    """

    def describe(self, task: Task) -> jax.Array:
        """See the class."""
        numbers = [_number(leaf).reshape(-1) for leaf in jax.tree.leaves(task.level)]
        return jnp.concatenate([*numbers, _log_lifetime(task)[None]])


def _number(value: jax.Array) -> jax.Array:
    return jnp.asarray(value).astype(jnp.float32)


def _log_lifetime(task: Task) -> jax.Array:
    return jnp.log(task.lifetime.astype(jnp.float32))
