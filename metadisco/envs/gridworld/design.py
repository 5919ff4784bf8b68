"""A grid-world level made by discrete choices, as PAIRED's teacher makes levels (arXiv:2012.02096), always a legal one.

The choices are, in this order: the side of the room, the number of objects, the wall cells, the start, the cell of each
object; then by bin the reward, p_terminate and p_respawn of each object, and the episode length. Wall cells are chosen
over the largest grid, as they are drawn: one outside the room is no wall. Whoever chooses uniformly among the legal
options therefore draws from `GridLevels`. Options that would leave no cell for the start are never legal; an object
for which no cell is left is left out.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.envs.gridworld.dynamics import GridLevel
from metadisco.envs.level_design import share_in_bin

if TYPE_CHECKING:
    from metadisco.envs.gridworld.levels import GridLevels

SIDE, NUMBER, FIRST_WALL = range(3)  # steps
NUM_PARAMETERS = 3  # of an object: reward, p_terminate, p_respawn


@struct.dataclass
class GridDraft:
    """A level under way. What is not yet chosen is 0, False or -1."""

    side: jax.Array  # [] int32, of the room, in cells
    number: jax.Array  # [] int32, objects wanted
    walls: jax.Array  # [cells] bool, chosen wall cells, in the room and outside
    start: jax.Array  # [] int32
    object_cell: jax.Array  # [K] int32
    parameters: jax.Array  # [NUM_PARAMETERS, K] float32, shares of their ranges
    max_steps: jax.Array  # [] float32, share of its range


@own_defaults
@dataclass(frozen=True)
class GridDesign:
    """The rules of making a level of a `GridLevels`, see `metadisco.envs.level_design.Design`.

    Where `reachable` is set and no object can be reached, the walls on an L-shaped way from the start to the first
    object are taken out at the end.

    Attributes:
        levels: what the level might have been drawn from.
        num_bins: bins of a reward, a probability and the episode length.
    """

    levels: "GridLevels"
    num_bins: int

    @property
    def num_steps(self) -> int:
        """39 under the default settings."""
        return self._last + 1

    @property
    def num_options(self) -> int:
        """As many as cells, unless a number has more bins."""
        levels = self.levels
        num_sides = levels.max_side - levels.min_side + 1
        return max(self._num_cells, num_sides, levels.max_objects - levels.min_objects + 1, self.num_bins)

    def begin(self) -> GridDraft:
        """Nothing is chosen yet."""
        zero, num_objects = jnp.zeros((), jnp.int32), self.levels.max_objects
        return GridDraft(
            side=zero,
            number=zero,
            walls=jnp.zeros(self._num_cells, bool),
            start=zero - 1,
            object_cell=jnp.full(num_objects, -1, jnp.int32),
            parameters=jnp.zeros((NUM_PARAMETERS, num_objects), jnp.float32),
            max_steps=jnp.zeros((), jnp.float32),
        )

    def options(self, draft: GridDraft, step: jax.Array) -> jax.Array:
        """Legal options at a step. [num_options] bool."""
        levels, numbers = self.levels, jnp.arange(self.num_options)
        num_sides = levels.max_side - levels.min_side + 1
        num_numbers = levels.max_objects - levels.min_objects + 1
        parameter, k = jnp.divmod(step - self._first_parameter, levels.max_objects)
        is_there = draft.object_cell[jnp.clip(k, 0, levels.max_objects - 1)] >= 0
        is_free = self._free(draft) & (step - self._first_object < draft.number)
        varies = jnp.array([self._varies(name) for name in ("reward", "p_terminate", "p_respawn")])
        # A number that does not vary is no choice.
        num_bins = jnp.where(varies[jnp.clip(parameter, 0, NUM_PARAMETERS - 1)], self.num_bins, 1)
        num_lengths = self.num_bins if self._varies("max_steps") else 1
        return jnp.select(
            [step == SIDE, step == NUMBER, step < self._start, step < self._first_parameter, step < self._last],
            [
                numbers < num_sides,
                numbers < num_numbers,
                self._pad(self._wall_options(draft)),
                self._pad(is_free),
                (numbers < num_bins) & is_there,
            ],
            numbers < num_lengths,
        )

    def observe(self, draft: GridDraft) -> jax.Array:
        """Planes of walls, start and objects, where each object is, and the numbers so far. [width] float32."""
        cells = jnp.arange(self._num_cells)
        rows, columns = jnp.divmod(draft.object_cell, self.levels.max_side)
        exists = draft.object_cell >= 0
        planes = [self._blocked(draft), cells == draft.start, jnp.any(cells[:, None] == draft.object_cell, axis=1)]
        places = [jnp.where(exists, place / self.levels.max_side, 0.0) for place in (rows, columns)]
        numbers = jnp.stack([draft.side / self.levels.max_side, draft.number / self.levels.max_objects])
        parts = [*planes, exists, *places, numbers, draft.parameters.reshape(-1), draft.max_steps[None]]
        return jnp.concatenate([part.astype(jnp.float32) for part in parts])

    def place(self, draft: GridDraft, step: jax.Array, option: jax.Array, uniform: jax.Array) -> GridDraft:
        """Carry out a legal option."""
        levels = self.levels
        option = option.astype(jnp.int32)
        cells, objects = jnp.arange(self._num_cells), jnp.arange(levels.max_objects)
        share = share_in_bin(option, uniform, self.num_bins)
        parameters = jnp.arange(NUM_PARAMETERS * levels.max_objects).reshape(NUM_PARAMETERS, levels.max_objects)
        is_wall = (step >= FIRST_WALL) & (step < self._start)
        return GridDraft(
            side=jnp.where(step == SIDE, levels.min_side + option, draft.side),
            number=jnp.where(step == NUMBER, levels.min_objects + option, draft.number),
            walls=draft.walls | ((cells == option) & is_wall),
            start=jnp.where(step == self._start, option, draft.start),
            object_cell=jnp.where(objects == step - self._first_object, option, draft.object_cell),
            parameters=jnp.where(parameters == step - self._first_parameter, share, draft.parameters),
            max_steps=jnp.where(step == self._last, share, draft.max_steps),
        )

    def finish(self, draft: GridDraft) -> GridLevel:
        """The level."""
        level = self.levels.furnish(
            self._blocked(draft), draft.start, draft.object_cell, draft.parameters, draft.max_steps
        )
        if not self.levels.reachable:
            return level
        opened = replace(level, walls=level.walls & ~self._way(draft))
        return trees.where(self.levels.accepts(level), level, opened)

    @property
    def _num_cells(self) -> int:
        return self.levels.max_side**2

    @property
    def _start(self) -> int:
        """The step at which the start is chosen."""
        return FIRST_WALL + self.levels.num_walls

    @property
    def _first_object(self) -> int:
        return self._start + 1

    @property
    def _first_parameter(self) -> int:
        return self._first_object + self.levels.max_objects

    @property
    def _last(self) -> int:
        """The step at which the episode length is chosen."""
        return self._first_parameter + NUM_PARAMETERS * self.levels.max_objects

    def _varies(self, name: str) -> bool:
        low, high = getattr(self.levels, name)
        return low < high

    def _pad(self, cells: jax.Array) -> jax.Array:
        return jnp.pad(cells, (0, self.num_options - self._num_cells))

    def _outside(self, draft: GridDraft) -> jax.Array:
        row, column = jnp.divmod(jnp.arange(self._num_cells), self.levels.max_side)
        return (row >= draft.side) | (column >= draft.side)

    def _blocked(self, draft: GridDraft) -> jax.Array:
        return draft.walls | self._outside(draft)

    def _free(self, draft: GridDraft) -> jax.Array:
        cells = jnp.arange(self._num_cells)
        return ~self._blocked(draft) & (cells != draft.start) & ~jnp.any(cells[:, None] == draft.object_cell, axis=1)

    def _wall_options(self, draft: GridDraft) -> jax.Array:
        """Cells that may become a wall: start, and where it has to be reached the first object, keep a place."""
        num_needed = 2 if self.levels.reachable else 1
        has_spare = jnp.sum(~self._blocked(draft)) > num_needed
        return ~draft.walls & (self._outside(draft) | has_spare)

    def _way(self, draft: GridDraft) -> jax.Array:
        """Cells from the start along its row, then along the first object's column. [cells] bool."""
        row, column = jnp.divmod(jnp.arange(self._num_cells), self.levels.max_side)
        start_row, start_column = jnp.divmod(draft.start, self.levels.max_side)
        end_row, end_column = jnp.divmod(draft.object_cell[0], self.levels.max_side)

        def is_between(x: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
            return (x >= jnp.minimum(one, other)) & (x <= jnp.maximum(one, other))

        along_row = (row == start_row) & is_between(column, start_column, end_column)
        along_column = (column == end_column) & is_between(row, start_row, end_row)
        return along_row | along_column
