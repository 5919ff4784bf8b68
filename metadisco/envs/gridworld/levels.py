"""Where grid-world levels come from: the general random distribution (arXiv:2310.02782), and what levels are made of.

A level distribution is a frozen dataclass with `env`, the grid world that its levels are for, and `sample(key)`, one
level. It turns uniform numbers into a level through the small functions at the end of this file, which a mutation and
other distributions can reuse; all numbers of a level come from one call, because every further draw costs a second of
compilation on a CPU. Levels of different sizes are brought to one size by `stack_levels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key
from metadisco.envs.gridworld.design import GridDesign
from metadisco.envs.gridworld.dynamics import GridLevel, GridWorld
from metadisco.envs.gridworld.features import cell_distances, object_distance, walking_distances
from metadisco.envs.gridworld.mutation import NUM_UNIFORMS, LevelRules, edit_level


@own_defaults
@dataclass(frozen=True)
class GridLevels:
    """The general grid-world distribution ("all" in arXiv:2310.02782, appendix).

    A level is a square room of random side in the upper left corner of the largest grid. Wall cells are drawn over the
    largest grid, so a small room keeps few of them. Every object has parameters, and a type, of its own; the first
    reward is never negative. Where walls leave too few free cells, the last objects are left out; a level with a
    single free cell has no object at all (one in 10**17 levels under the default settings).

    Attributes:
        min_side: smallest side of the room, in cells.
        max_side: largest side of the room, and the side of the grid.
        num_walls: wall cells drawn without replacement over the largest grid.
        min_objects: fewest objects.
        max_objects: most objects; K of the environment.
        max_steps: lowest and highest episode length, log-uniform over the integers, both included.
        reward: lowest and highest reward, uniform.
        p_terminate: lowest and highest probability that collecting an object ends the episode, log-uniform.
        p_respawn: lowest and highest probability per step that an object reappears, log-uniform.
        reachable: reject levels whose start reaches no object. Small rooms are rejected a little more often than large
            ones.
        min_distance: steps of the shortest walk from the start to the nearest object, at least; 0 for any. Above 0 all
            objects are in reach, and rooms in which no cell is so far away are drawn anew.
        planes: observe planes, see `GridWorld`.
        random_positions: objects move when they reappear, see `GridWorld`.

    Example:
        >>> import jax
        >>> levels = GridLevels(max_side=6, num_walls=7, max_objects=3)
        >>> many = jax.vmap(levels.sample)(jax.random.split(jax.random.key(0), 8))
        >>> many.walls.shape
        (8, 36)
    """

    min_side: int = 4
    max_side: int = 10
    num_walls: int = 15
    min_objects: int = 1
    max_objects: int = 5
    max_steps: tuple[int, int] = (20, 750)
    reward: tuple[float, float] = (-1.0, 1.0)
    p_terminate: tuple[float, float] = (0.01, 1.0)
    p_respawn: tuple[float, float] = (0.001, 0.1)
    reachable: bool = False
    min_distance: int = 0
    planes: bool = False
    random_positions: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.min_side <= self.max_side:
            raise ValueError(
                f"GridLevels needs 2 <= min_side <= max_side, got {self.min_side} and {self.max_side}; "
                "a room of one cell has no place for an object"
            )
        if not 0 <= self.num_walls <= self.min_side**2 - 1:
            raise ValueError(
                f"GridLevels.num_walls must be in 0..{self.min_side**2 - 1} (min_side**2 - 1, so that the agent has a "
                f"cell even if all walls fall into the smallest room), got {self.num_walls}; raise min_side or lower "
                "num_walls"
            )
        if not 1 <= self.min_objects <= self.max_objects < self.max_side**2:
            raise ValueError(
                f"GridLevels needs 1 <= min_objects <= max_objects < max_side**2 = {self.max_side**2}, "
                f"got {self.min_objects} and {self.max_objects}"
            )
        if self.reachable and self.num_walls > self.max_side**2 - 2:
            raise ValueError(
                f"GridLevels.reachable would never accept a level: {self.num_walls} walls leave no room for an object "
                f"in {self.max_side**2} cells; lower num_walls"
            )
        if not 1 <= self.max_steps[0] <= self.max_steps[1] < 2**24:
            raise ValueError(f"GridLevels.max_steps must be (low, high) with 1 <= low <= high, got {self.max_steps}")
        if not (self.reward[0] <= self.reward[1] and self.reward[1] >= 0.0):
            raise ValueError(
                f"GridLevels.reward must be (low, high) with low <= high and high >= 0 (the first reward is never "
                f"negative), got {self.reward}"
            )
        for name in ("p_terminate", "p_respawn"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high <= 1.0:
                raise ValueError(
                    f"GridLevels.{name} must be (low, high) with 0 < low <= high <= 1, got {(low, high)}; "
                    "it is log-uniform, so use a small number in place of 0"
                )
        longest = (self.max_side**2 - self.num_walls) // 2
        if not 0 <= self.min_distance <= longest:
            raise ValueError(
                f"GridLevels.min_distance must be in 0..{longest} (half of the free cells of the largest room; few "
                f"rooms have longer walks), got {self.min_distance}"
            )
        _ = self.env  # its own checks, now and not at the first use

    @property
    def env(self) -> GridWorld:
        """The grid world that the levels are for."""
        return GridWorld(
            self.max_side, self.max_side, self.max_objects, self.max_objects, self.planes, self.random_positions
        )

    def sample(self, key: Key) -> GridLevel:
        """Draw one level."""
        if not self._rejects:
            return self._draw(key)

        def redraw(carry: tuple[Key, GridLevel]) -> tuple[Key, GridLevel]:
            level_key, next_key = jax.random.split(carry[0])
            return next_key, self._draw(level_key)

        def is_rejected(carry: tuple[Key, GridLevel]) -> jax.Array:
            return ~self.accepts(carry[1])

        level_key, next_key = jax.random.split(key)
        return jax.lax.while_loop(is_rejected, redraw, (next_key, self._draw(level_key)))[1]

    def mutate(self, key: Key, level: GridLevel) -> GridLevel:
        """Make one random edit of a level of this distribution, see `gridworld_mutation`.

        The room keeps its side and has at most `num_walls` walls. Where `reachable` is set, an edit that cuts the
        start off from every object is taken back.
        """
        rules = LevelRules(
            columns=self.max_side,
            min_side=self.min_side,
            max_walls=self.num_walls,
            min_objects=self.min_objects,
            max_steps=self.max_steps,
            reward=self.reward,
            p_terminate=self.p_terminate,
            p_respawn=self.p_respawn,
        )
        mutant = edit_level(rules, jax.random.uniform(key, (NUM_UNIFORMS,)), level)
        return trees.where(self.accepts(mutant), mutant, level) if self._rejects else mutant

    def design(self, num_bins: int) -> GridDesign:
        """Rules for making a level of this distribution by discrete choices, see `gridworld_design`.

        Raises:
            ValueError: under `min_distance`, which choices one by one do not keep.
        """
        if self.min_distance > 0:
            raise ValueError(
                f"GridLevels.min_distance={self.min_distance} cannot be kept where a teacher makes levels choice by "
                "choice (PAIRED); use min_distance=0, with reachable=True"
            )
        return GridDesign(self, num_bins)

    def accepts(self, level: GridLevel) -> jax.Array:
        """Whether a level does not have to be rejected. [] bool."""
        if not self._rejects:
            return jnp.asarray(True)
        distance = object_distance(self.env, level, level.object_cell >= 0)
        return jnp.isfinite(distance) & (distance >= self.min_distance)

    @property
    def _rejects(self) -> bool:
        return self.reachable or self.min_distance > 0

    def _draw(self, key: Key) -> GridLevel:
        num_cells, num_objects = self.max_side**2, self.max_objects
        sizes = [num_cells, num_cells, num_objects, num_objects, num_objects, 3]
        uniforms = jax.random.uniform(key, (sum(sizes),))
        for_walls, for_cells, *for_objects, for_scalars = jnp.split(uniforms, np.cumsum(sizes)[:-1])
        side = uniform_integer(for_scalars[0], self.min_side, self.max_side)
        row, column = jnp.divmod(jnp.arange(num_cells), self.max_side)
        walls = (row >= side) | (column >= side)
        walls = walls.at[distinct_free_cells(for_walls, jnp.zeros_like(walls), self.num_walls)].set(True)
        start, *others = distinct_free_cells(for_cells, walls, 1 + num_objects)
        cells = jnp.stack(others)
        if self.min_distance > 0:
            distance = cell_distances(self.env, walls, start)
            is_near = ~jnp.isfinite(distance) | (distance < self.min_distance)
            cells = distinct_free_cells(for_cells, is_near, num_objects)
        number = uniform_integer(for_scalars[1], self.min_objects, self.max_objects)
        object_cell = jnp.where(jnp.arange(num_objects) < number, cells, -1)
        return self.furnish(walls, start, object_cell, jnp.stack(for_objects), for_scalars[2])

    def furnish(
        self,
        walls: jax.Array,
        start: jax.Array,
        object_cell: jax.Array,
        for_objects: jax.Array,
        for_max_steps: jax.Array,
    ) -> GridLevel:
        """Give a map its parameters.

        Args:
            walls: [cells] bool, also outside the room.
            start: [] int32.
            object_cell: [K] int32, -1 where an object does not exist.
            for_objects: [3, K] float32 in [0, 1], shares of the ranges of reward, p_terminate and p_respawn.
            for_max_steps: [] float32 in [0, 1], share of the range of the episode length.
        """
        num_objects = self.max_objects
        exists = object_cell >= 0
        lowest_reward = jnp.full(num_objects, self.reward[0]).at[0].max(0.0)
        reward = lowest_reward + for_objects[0] * (self.reward[1] - lowest_reward)
        max_steps = log_uniform(for_max_steps, self.max_steps[0], self.max_steps[1] + 1).astype(jnp.int32)
        return GridLevel(
            walls=walls,
            start=start,
            object_cell=object_cell,
            object_type=jnp.arange(num_objects, dtype=jnp.int32),
            reward=jnp.where(exists, reward, 0.0),
            p_terminate=jnp.where(exists, log_uniform(for_objects[1], *self.p_terminate), 0.0),
            p_respawn=jnp.where(exists, log_uniform(for_objects[2], *self.p_respawn), 0.0),
            # A uniform number just below 1 may round to the excluded end.
            max_steps=jnp.minimum(max_steps, self.max_steps[1]),
        )


LABYRINTHS = GridLevels(
    min_side=9,
    max_side=13,
    num_walls=60,
    max_objects=1,
    max_steps=(100, 400),
    reward=(0.1, 1.0),
    p_terminate=(0.5, 1.0),
    min_distance=12,
)
"""Rooms full of walls whose one reward is far away: where nothing is learned before it is found."""


@own_defaults
@dataclass(frozen=True)
class EmbeddedLevels:
    """Levels of a smaller grid world in the upper left corner of a larger one, so that both kinds can be mixed.

    Attributes:
        levels: of the smaller one.
        env: the larger one.

    Example:
        >>> import jax
        >>> small = EmbeddedLevels(GridLevels(max_side=5, num_walls=4), GridLevels().env)
        >>> int((~small.sample(jax.random.key(0)).walls).sum()) <= 25
        True
    """

    levels: GridLevels
    env: GridWorld

    def __post_init__(self) -> None:
        inner = self.levels.env
        if (inner.planes, inner.random_positions) != (self.env.planes, self.env.random_positions):
            raise ValueError(
                f"EmbeddedLevels needs the same `planes` and `random_positions` in both grid worlds, got {inner} and "
                f"{self.env}; set them in both"
            )
        if self.env.num_types < inner.num_types:
            raise ValueError(
                f"EmbeddedLevels.env must have at least the {inner.num_types} object types of its levels, got "
                f"{self.env.num_types}; raise num_types"
            )
        jax.eval_shape(self.sample, jax.eval_shape(jax.random.key, 0))  # whether they fit

    def sample(self, key: Key) -> GridLevel:
        """Draw one level."""
        return embed(self.levels.env, self.levels.sample(key), self.env)


def stack_levels(pairs: Sequence[tuple[GridWorld, GridLevel]]) -> tuple[GridWorld, GridLevel]:
    """Batch levels of different sizes: one grid world that holds them all, and levels with a leading axis.

    Raises:
        ValueError: observations or the placing of objects differ, or there is no level.
    """
    envs = [env for env, _ in pairs]
    if len({(env.planes, env.random_positions) for env in envs}) != 1:
        raise ValueError(
            "stack_levels needs at least one level, and the same `planes` and `random_positions` in all grid worlds; "
            f"got {envs}; stack each kind on its own"
        )
    largest = {
        name: max(getattr(env, name) for env in envs) for name in ("rows", "columns", "num_objects", "num_types")
    }
    common = GridWorld(**largest, planes=envs[0].planes, random_positions=envs[0].random_positions)
    return common, trees.stack([embed(env, level, common) for env, level in pairs])


def embed(env: GridWorld, level: GridLevel, larger: GridWorld) -> GridLevel:
    """Renumber the cells of a level of `env` for a grid world that is at least as large; new cells are walls."""
    too_large = [name for name in ("rows", "columns", "num_objects") if getattr(env, name) > getattr(larger, name)]
    if too_large:
        raise ValueError(f"a level of {env} does not fit into {larger}: too large in {', '.join(too_large)}")

    def renumber(cell: jax.Array) -> jax.Array:
        moved = cell // env.columns * larger.columns + cell % env.columns
        return jnp.where(cell >= 0, moved, -1).astype(jnp.int32)

    grid = jnp.ones((larger.rows, larger.columns), bool)
    grid = grid.at[: env.rows, : env.columns].set(level.walls.reshape(env.rows, env.columns))
    spare = (0, larger.num_objects - env.num_objects)
    return GridLevel(
        walls=grid.reshape(-1),
        start=renumber(level.start),
        object_cell=jnp.pad(renumber(level.object_cell), spare, constant_values=-1),
        object_type=jnp.pad(level.object_type, spare),
        reward=jnp.pad(level.reward, spare),
        p_terminate=jnp.pad(level.p_terminate, spare),
        p_respawn=jnp.pad(level.p_respawn, spare),
        max_steps=level.max_steps,
    )


def distinct_free_cells(uniforms: jax.Array, walls: jax.Array, count: int) -> jax.Array:
    """Choose cells without walls, uniformly and without replacement.

    Args:
        uniforms: [cells] float32 in [0, 1), one number per cell.
        walls: [cells] bool.
        count: how many, at most the number of cells.

    Returns:
        [count] int32; -1 in the last places where there are fewer free cells than asked for.
    """
    priority, chosen = jax.lax.top_k(jnp.where(walls, -1.0, uniforms), count)
    return jnp.where(priority >= 0.0, chosen, -1).astype(jnp.int32)


def log_uniform(uniforms: jax.Array, low: float, high: float) -> jax.Array:
    """Turn uniform numbers into numbers between `low` and `high` whose logarithm is uniform. float32."""
    exponent = np.log(low) + uniforms * (np.log(high) - np.log(low))
    return jnp.clip(jnp.exp(exponent), low, high)


def uniform_integer(uniform: jax.Array, low: int, high: int) -> jax.Array:
    """Turn a uniform number into an integer between `low` and `high`, both included. int32."""
    return jnp.floor(low + uniform * (high + 1 - low)).astype(jnp.int32)


def reachable_cells(env: GridWorld, level: GridLevel) -> jax.Array:
    """Cells that the agent can get to from its start. [cells] bool."""
    return jnp.isfinite(walking_distances(env, level))
