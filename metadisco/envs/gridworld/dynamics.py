"""Grid worlds of the Learned Policy Gradient paper (arXiv:2007.08794, appendix), with the level as data.

The agent moves up, down, left, right or stays. Walking into a wall or the border stays. An object that exists is
collected by standing on its cell: reward r_k, the episode terminates with probability p_term_k, and the object
reappears with probability p_respawn_k in each later step. Episodes are truncated after `max_steps`.

The waiting time until an object reappears is drawn once, when it is collected, from the geometric distribution:
the same process as one draw per object and step (the distribution has no memory) at a fraction of the random
numbers. What the agent observes is only whether an object exists, so observations stay Markov.

Two observations of the same state: an index below `num_cells * 2**num_objects` for tabular agents, or one-hot planes
(agent, then one per object type) for networks.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Obs
from metadisco.envs.base import Box, Discrete, EnvSpec, Step

UP, DOWN, LEFT, RIGHT, STAY = range(5)
NUM_ACTIONS = 5


@struct.dataclass
class GridLevel:
    """One grid world. Cells are numbered row by row over the environment's full grid; unused cells are walls."""

    walls: jax.Array  # [rows * columns] bool
    start: jax.Array  # [] int32, the agent's first cell
    object_cell: jax.Array  # [K] int32; -1 where the object does not exist in this level
    object_type: jax.Array  # [K] int32, plane that shows the object
    reward: jax.Array  # [K] float32, for collecting it
    p_terminate: jax.Array  # [K] float32, probability that collecting it ends the episode
    p_respawn: jax.Array  # [K] float32, probability per step that it reappears
    max_steps: jax.Array  # [] int32, steps before truncation


@struct.dataclass
class GridState:
    """Where an episode is."""

    cell: jax.Array  # [] int32
    time: jax.Array  # [] int32, steps taken
    object_cell: jax.Array  # [K] int32; -1 where there is no object
    present_from: jax.Array  # [K] int32, first time at which the object exists (again)


@struct.dataclass
class GridNoise:
    """Randomness of one step."""

    event: jax.Array  # [] float32 in [0, 1): termination, then waiting time
    placement: jax.Array  # [K] float32 in [0, 1) where objects have random positions, else [0]


@own_defaults
@dataclass(frozen=True)
class GridWorld:
    """Grid-world dynamics over levels of at most `rows` x `columns` cells and `num_objects` objects.

    Attributes:
        rows: height of the full grid, in cells.
        columns: width of the full grid, in cells.
        num_objects: K, the most objects that a level can have.
        num_types: planes for objects, where `planes` is set.
        planes: observe one-hot planes [rows, columns, 1 + num_types] instead of an index.
        random_positions: objects stand on random free cells, drawn anew at each reset and each reappearance, and
            `GridLevel.object_cell` says only which objects exist. Such a level is not tabular: needs `planes`.

    Example:
        >>> import jax
        >>> from metadisco.envs.gridworld.dynamics import GridWorld
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> env, levels = GridWorld(10, 10, 5), GridLevels()
        >>> level = levels.sample(jax.random.key(0))
        >>> obs, state = env.reset(env.noise(jax.random.key(1), ()), level)
    """

    rows: int = 10
    columns: int = 10
    num_objects: int = 5
    num_types: int = 5
    planes: bool = False
    random_positions: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "rows", "columns", "num_objects", "num_types")
        if self.random_positions and not self.planes:
            raise ValueError("GridWorld.random_positions needs planes=True: an index cannot say where the objects are")
        if not self.planes and self.num_cells * 2 ** min(self.num_objects, 25) > 2**24:  # 2**K of any K takes minutes
            raise ValueError(
                f"GridWorld has {self.num_cells} cells x 2**{self.num_objects} object states, too many for a table; "
                "use planes=True or fewer objects"
            )

    @property
    def num_cells(self) -> int:
        """Cells of the full grid."""
        return self.rows * self.columns

    @property
    def spec(self) -> EnvSpec:
        """Spaces: an index or planes; five actions."""
        observation: Discrete | Box
        if self.planes:
            observation = Box((self.rows, self.columns, 1 + self.num_types), 0.0, 1.0)
        else:
            observation = Discrete(self.num_cells * 2**self.num_objects)
        return EnvSpec(observation, Discrete(NUM_ACTIONS))

    def noise(self, key: Key, shape: tuple[int, ...]) -> GridNoise:
        """Uniform numbers for `shape` steps."""
        event_key, placement_key = jax.random.split(key)
        num_placements = self.num_objects if self.random_positions else 0
        return GridNoise(
            event=jax.random.uniform(event_key, shape),
            placement=jax.random.uniform(placement_key, (*shape, num_placements)),
        )

    def reset(self, noise: GridNoise, level: GridLevel) -> tuple[Obs, GridState]:
        """Put the agent on its start; all objects of the level exist."""
        object_cell = level.object_cell
        if self.random_positions:
            object_cell = self._scatter_objects(noise.placement, level)
        state = GridState(
            cell=level.start,
            time=jnp.zeros((), jnp.int32),
            object_cell=object_cell,
            present_from=jnp.zeros(self.num_objects, jnp.int32),
        )
        return self._observe(state, level), state

    def step(
        self, noise: GridNoise, state: GridState, action: jax.Array, level: GridLevel
    ) -> tuple[Obs, GridState, Step]:
        """Move, collect, maybe end.

        Raises nothing: an action outside 0..4 stays.
        """
        cell = self._move(state.cell, action, level)
        time = state.time + 1
        collected = (state.object_cell == cell) & (state.present_from <= state.time)  # [K]; at most one is True
        reward = jnp.sum(jnp.where(collected, level.reward, 0.0))
        p_terminate = jnp.sum(jnp.where(collected, level.p_terminate, 0.0))
        p_respawn = jnp.sum(jnp.where(collected, level.p_respawn, 0.0))
        terminated = noise.event < p_terminate
        # Given that the episode goes on, the rest of the interval is uniform again: one number serves both draws.
        leftover = (noise.event - p_terminate) / jnp.maximum(1.0 - p_terminate, 1e-6)
        present_from = jnp.where(collected, time + _waiting_time(leftover, p_respawn), state.present_from)
        object_cell = state.object_cell
        if self.random_positions:
            free = self._free(level, cell, object_cell)
            object_cell = jnp.where(collected, pick(noise.placement[0], free), object_cell)
        state = GridState(cell, time, object_cell, present_from)
        truncated = (time >= level.max_steps) & ~terminated
        return self._observe(state, level), state, Step(reward, terminated, truncated)

    def _move(self, cell: jax.Array, action: jax.Array, level: GridLevel) -> jax.Array:
        row, column = cell // self.columns, cell % self.columns
        row = jnp.clip(row + (action == DOWN) - (action == UP), 0, self.rows - 1)
        column = jnp.clip(column + (action == RIGHT) - (action == LEFT), 0, self.columns - 1)
        target = row * self.columns + column
        return jnp.where(level.walls[target], cell, target)

    def _observe(self, state: GridState, level: GridLevel) -> Obs:
        present = (state.object_cell >= 0) & (state.present_from <= state.time)
        if not self.planes:
            subset = jnp.sum(jnp.where(present, 1 << jnp.arange(self.num_objects, dtype=jnp.int32), 0))
            return (state.cell + self.num_cells * subset).astype(jnp.int32)
        agent = jax.nn.one_hot(state.cell, self.num_cells)  # [cells]
        shown = jnp.where(present, state.object_cell, -1)
        objects = jax.nn.one_hot(shown, self.num_cells)  # [K, cells]; an absent object is a zero row
        types = jax.nn.one_hot(level.object_type, self.num_types)  # [K, types]
        planes = jnp.concatenate([agent[:, None], objects.T @ types], axis=1)
        return jnp.minimum(planes, 1.0).reshape(self.rows, self.columns, 1 + self.num_types)

    def _free(self, level: GridLevel, cell: jax.Array, object_cell: jax.Array) -> jax.Array:
        """Cells with neither wall, agent nor object. [cells] bool."""
        cells = jnp.arange(self.num_cells)
        return ~level.walls & (cells != cell) & ~jnp.any(cells[:, None] == object_cell, axis=1)

    def _scatter_objects(self, placement: jax.Array, level: GridLevel) -> jax.Array:
        object_cell = jnp.full(self.num_objects, -1, jnp.int32)
        for k in range(self.num_objects):
            cell = pick(placement[k], self._free(level, level.start, object_cell))
            object_cell = object_cell.at[k].set(jnp.where(level.object_cell[k] >= 0, cell, -1))
        return object_cell


def _waiting_time(uniform: jax.Array, probability: jax.Array) -> jax.Array:
    """Steps until the first success of a Bernoulli process, at least 1; 2**30 where the probability is 0. [] int32."""
    failures = jnp.floor(jnp.log1p(-uniform) / jnp.log1p(-jnp.minimum(probability, 1.0 - 1e-7)))
    # 2**30 is beyond every episode and leaves room to add the present time.
    waiting = jnp.where(probability >= 1.0, 0.0, jnp.minimum(failures, 2.0**30)).astype(jnp.int32) + 1
    return jnp.where(probability <= 0.0, 2**30, waiting)


def pick(uniform: jax.Array, free: jax.Array) -> jax.Array:
    """A uniformly drawn True cell of `free`. [] int32."""
    rank = jnp.cumsum(free)
    return jnp.argmax(rank > jnp.floor(uniform * rank[-1])).astype(jnp.int32)
