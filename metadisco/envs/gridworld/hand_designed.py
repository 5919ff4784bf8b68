"""Ten hand-designed grid worlds, to look at what an objective has learned (arXiv:2007.08794, 2310.02782, appendix).

Five are tabular, five place their objects anew within a life. `HandDesigned` is a level distribution like `GridLevels`:
a frozen dataclass with `env`, the grid world that its levels are for, and `sample(key)`, one level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key
from metadisco.envs.gridworld.dynamics import GridLevel, GridWorld
from metadisco.envs.gridworld.levels import distinct_free_cells


def parse_walls(text: str, shape: tuple[int, int]) -> np.ndarray:
    """Read a drawing with `#` for a wall, anything else for a free cell. [rows, columns] bool.

    Raises:
        ValueError: the drawing has another shape.
    """
    rows = text.strip().splitlines()
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise ValueError(
            f"expected {shape[0]} lines of {shape[1]} characters, got lines of {[len(row) for row in rows]}"
        )
    return np.array([[symbol == "#" for symbol in row] for row in rows])


@dataclass(frozen=True)
class ObjectKind:
    """Objects that share their parameters, and so their type."""

    reward: float
    p_terminate: float
    p_respawn: float
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("p_terminate", "p_respawn"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"ObjectKind.{name} is a probability, in 0..1, got {getattr(self, name)}")
        if self.count < 1:
            raise ValueError(f"ObjectKind.count must be at least 1, got {self.count}; leave the kind out instead")


@own_defaults
@dataclass(frozen=True)
class HandDesigned:
    """One hand-designed grid world. Walls and parameters are fixed, start and object cells are drawn for every level.

    Attributes:
        rows: height, in cells.
        columns: width, in cells.
        max_steps: episode length.
        objects: what there is to collect.
        walls: drawing of the walls, `#` for a wall and `.` for a free cell; empty for none.
        random_positions: objects also move within a life, at each reset and reappearance; observations are planes.

    Example:
        >>> import jax
        >>> level = HAND_DESIGNED["longer"].sample(jax.random.key(0))
        >>> int(level.max_steps)
        2000
    """

    rows: int
    columns: int
    max_steps: int
    objects: tuple[ObjectKind, ...]
    walls: str = ""
    random_positions: bool = False

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"HandDesigned.max_steps must be at least 1, got {self.max_steps}")
        if not self.objects:
            raise ValueError("HandDesigned.objects is empty: give at least one ObjectKind")
        num_free = int(np.sum(~self._wall_grid))
        if num_free < 1 + self.env.num_objects:
            raise ValueError(
                f"HandDesigned has {num_free} free cells for the agent and {self.env.num_objects} objects; "
                "draw fewer walls or use fewer objects"
            )

    @property
    def _wall_grid(self) -> np.ndarray:
        shape = (self.rows, self.columns)
        return parse_walls(self.walls, shape) if self.walls else np.zeros(shape, bool)

    @property
    def env(self) -> GridWorld:
        """The grid world that the levels are for."""
        num_objects = sum(kind.count for kind in self.objects)
        planes = self.random_positions
        return GridWorld(self.rows, self.columns, num_objects, len(self.objects), planes, self.random_positions)

    def sample(self, key: Key) -> GridLevel:
        """Draw one level: distinct free cells for the start and the objects."""
        walls = jnp.asarray(self._wall_grid).reshape(-1)
        each = [(index, kind) for index, kind in enumerate(self.objects) for _ in range(kind.count)]
        cells = distinct_free_cells(jax.random.uniform(key, walls.shape), walls, 1 + len(each))
        return GridLevel(
            walls=walls,
            start=cells[0],
            object_cell=cells[1:],
            object_type=jnp.array([index for index, _ in each], jnp.int32),
            reward=jnp.array([kind.reward for _, kind in each], jnp.float32),
            p_terminate=jnp.array([kind.p_terminate for _, kind in each], jnp.float32),
            p_respawn=jnp.array([kind.p_respawn for _, kind in each], jnp.float32),
            max_steps=jnp.asarray(self.max_steps, jnp.int32),
        )


_MIDDLE_WALL = """
....#....
.........
....#....
....#....
....#....
.........
....#....
"""

_CROSS = """
.....#.....
.....#.....
...........
.....#.....
.....#.....
##.#####.##
.....#.....
.....#.....
...........
.....#.....
.....#.....
"""

_DENSE = (ObjectKind(1.0, 0.0, 0.05, count=2), ObjectKind(-1.0, 0.5, 0.1), ObjectKind(-1.0, 0.0, 0.5))
_LONG = (ObjectKind(1.0, 0.0, 0.01, count=2), ObjectKind(-1.0, 0.5, 1.0, count=2))
_LONGER = (ObjectKind(1.0, 0.1, 0.01, count=2), ObjectKind(-1.0, 0.8, 1.0, count=5))
_LONG_DENSE = (ObjectKind(1.0, 0.0, 0.005, count=4),)
_SPARSE = (ObjectKind(1.0, 1.0, 0.0), ObjectKind(-1.0, 1.0, 0.0))
_SMALL = (ObjectKind(1.0, 0.0, 0.05, count=2), ObjectKind(-1.0, 0.5, 0.1, count=2))
_SPARSE_TWIN = (ObjectKind(1.0, 1.0, 0.0), ObjectKind(-1.0, 1.0, 0.0, count=2))
_VERY_DENSE = (ObjectKind(1.0, 0.0, 1.0),)

# The five tabular levels of the paper, then the five with random positions.
HAND_DESIGNED: Mapping[str, HandDesigned] = MappingProxyType(
    {  # rows, columns, steps, objects, walls
        "dense": HandDesigned(11, 11, 500, _DENSE),
        "sparse": HandDesigned(13, 13, 50, _SPARSE),
        "long": HandDesigned(11, 11, 1000, _LONG),
        "longer": HandDesigned(7, 9, 2000, _LONGER, _MIDDLE_WALL),
        "long_dense": HandDesigned(11, 11, 2000, _LONG_DENSE, _CROSS),
        "rand_dense": HandDesigned(11, 11, 500, _DENSE, random_positions=True),
        "rand_long": HandDesigned(11, 11, 1000, _LONG, random_positions=True),
        "rand_small": HandDesigned(7, 7, 500, _SMALL, random_positions=True),
        "rand_sparse": HandDesigned(7, 7, 50, _SPARSE_TWIN, random_positions=True),
        "rand_very_dense": HandDesigned(11, 11, 2000, _VERY_DENSE, random_positions=True),
    }
)


def hand_designed(name: str, key: Key) -> tuple[GridWorld, GridLevel]:
    """Draw the positions of a hand-designed level.

    Args:
        name: a key of `HAND_DESIGNED`.
        key: draws start and object cells, which the paper leaves open.

    Raises:
        ValueError: there is no level of that name.
    """
    if name not in HAND_DESIGNED:
        raise ValueError(f"no hand-designed level is called {name!r}; choose from {', '.join(HAND_DESIGNED)}")
    return HAND_DESIGNED[name].env, HAND_DESIGNED[name].sample(key)
