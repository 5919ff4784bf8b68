"""Pictures of grid worlds, as text and as images, in plain NumPy.

Only the rooms are shown: walls that enclose a level smaller than its grid are cropped away, and a frame stands for
them. In an image the agent is blue, objects are green (reward) or red (penalty), larger for a larger reward, with a
dark rim as strong as the probability that collecting them ends the episode. A circle marks an object that is absent
now but may reappear.
"""

from collections.abc import Callable

import jax
import numpy as np

from metadisco.envs.gridworld.dynamics import DOWN, LEFT, NUM_ACTIONS, RIGHT, STAY, UP, GridLevel, GridState, GridWorld

Color = tuple[float, float, float]

WALL: Color = (0.180, 0.204, 0.251)
FLOOR: Color = (0.957, 0.949, 0.925)
LINE: Color = (0.878, 0.863, 0.824)
AGENT: Color = (0.165, 0.416, 0.800)
GOOD: Color = (0.188, 0.631, 0.420)
BAD: Color = (0.835, 0.271, 0.310)
NEUTRAL: Color = (0.620, 0.620, 0.620)
ARROW: Color = (0.290, 0.310, 0.380)
WHITE: Color = (1.0, 1.0, 1.0)

_SUBPIXELS = 4  # shapes are drawn this much finer and averaged, for smooth edges
_DIRECTIONS = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}


def render_ascii(env: GridWorld, level: GridLevel, state: GridState | None = None) -> str:
    """Draw a level as text.

    Args:
        env: the grid world of the level.
        level: one level.
        state: where the episode is; None for its beginning.

    Returns:
        Lines of `#` wall, `.` free, `A` agent, `+` object with a reward, `-` object with a penalty. The agent hides an
        object.
    """
    level, state = jax.device_get(level), jax.device_get(state)
    symbols = np.where(level.walls, "#", ".")
    object_cell, present = _objects(env, level, state)
    for k in np.flatnonzero(present):
        symbols[object_cell[k]] = "-" if level.reward[k] < 0 else "+"
    symbols[level.start if state is None else state.cell] = "A"
    grid = symbols.reshape(env.rows, env.columns)[_rooms(env, level)]
    return "\n".join("".join(row) for row in grid)


def render_image(
    env: GridWorld,
    level: GridLevel,
    state: GridState | None = None,
    policy: np.ndarray | None = None,
    *,
    cell_size: int = 32,
) -> np.ndarray:
    """Draw a level as an image.

    Args:
        env: the grid world of the level.
        level: one level.
        state: where the episode is; None for its beginning. Under `random_positions` it has no objects to draw then.
        policy: [cells, A] action probabilities to show as arrows, and staying as a dot; of a tabular policy [S, A]
            choose the rows of one set of present objects.
        cell_size: pixels per cell.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the policy has another shape, or cells have fewer than 4 pixels.
    """
    if cell_size < 4:
        raise ValueError(f"cell_size must be at least 4 pixels, got {cell_size}")
    level, state = jax.device_get(level), jax.device_get(state)
    tiles = _floor_plan(np.asarray(level.walls), cell_size)
    if policy is not None:
        policy = np.asarray(policy)
        if policy.shape != (env.num_cells, NUM_ACTIONS):
            raise ValueError(
                f"policy must have shape [cells, actions] = {(env.num_cells, NUM_ACTIONS)}, got {policy.shape}; "
                "of a tabular policy [S, A] pass policy.reshape(-1, cells, actions)[subset]"
            )
        for cell in np.flatnonzero(~level.walls):
            _paint_policy(tiles[cell], policy[cell])
    object_cell, present = _objects(env, level, state)
    reward, p_terminate = np.asarray(level.reward), np.asarray(level.p_terminate)
    for k in np.flatnonzero(object_cell >= 0):
        _paint_object(tiles[object_cell[k]], reward[k], p_terminate[k], present[k])
    _paint_agent(tiles[int(level.start if state is None else state.cell)])  # an array index would copy the tile
    image = _join(tiles.reshape(env.rows, env.columns, cell_size, cell_size, 3)[_rooms(env, level)])
    return np.round(255 * image).astype(np.uint8)


def _objects(env: GridWorld, level: GridLevel, state: GridState | None) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the objects, -1 for none, and whether they are present. Both [K]."""
    if state is not None:
        object_cell = np.asarray(state.object_cell)
        return object_cell, (object_cell >= 0) & np.asarray(state.present_from <= state.time)
    object_cell = np.full(env.num_objects, -1) if env.random_positions else np.asarray(level.object_cell)
    return object_cell, object_cell >= 0


def _rooms(env: GridWorld, level: GridLevel) -> tuple[slice, slice]:
    """The smallest rectangle that holds all free cells."""
    free = ~level.walls.reshape(env.rows, env.columns)
    rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _floor_plan(walls: np.ndarray, size: int) -> np.ndarray:
    """Tiles with walls and floor, float in [0, 1]. [cells, size, size, 3]."""
    tiles = np.empty((walls.size, size, size, 3))
    tiles[:] = np.where(walls[:, None], np.array(WALL), np.array(FLOOR))[:, None, None, :]
    tiles[~walls, 0, :] = LINE
    tiles[~walls, :, 0] = LINE
    return tiles


def _paint(tile: np.ndarray, shape: Callable[[np.ndarray, np.ndarray], np.ndarray], color: Color, alpha: float) -> None:
    """Blend a shape into a tile, in place; coordinates (down, right) run from -0.5 to 0.5 and (0, 0) is the center."""
    size = tile.shape[0]
    fine = (np.arange(size * _SUBPIXELS) + 0.5) / (size * _SUBPIXELS) - 0.5
    covered = shape(*np.meshgrid(fine, fine, indexing="ij"))
    coverage = covered.reshape(size, _SUBPIXELS, size, _SUBPIXELS).mean(axis=(1, 3))[:, :, None]
    tile += alpha * coverage * (np.array(color) - tile)


def _disc(radius: float, hole: float = 0.0) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda down, right: (np.hypot(down, right) <= radius) & (np.hypot(down, right) >= hole)


def _arrow(direction: tuple[int, int], length: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """An arrow from the center; its head takes half of a short arrow, at most 0.2 of a cell."""
    head = min(0.2, 0.55 * length)

    def shape(down: np.ndarray, right: np.ndarray) -> np.ndarray:
        along = direction[0] * down + direction[1] * right
        across = np.abs(direction[1] * down - direction[0] * right)
        in_shaft = (along >= 0) & (along <= length - head) & (across <= 0.2 * head)
        in_head = (along >= length - head) & (across <= 0.75 * (length - along))
        return in_shaft | in_head

    return shape


def _paint_policy(tile: np.ndarray, probabilities: np.ndarray) -> None:
    # Lengths grow with the square root, so that the area of an arrow grows with its probability.
    for action, direction in _DIRECTIONS.items():
        if probabilities[action] > 0.02:
            length = 0.44 * np.sqrt(probabilities[action])
            _paint(tile, _arrow(direction, length), ARROW, 0.35 + 0.55 * probabilities[action])
    if probabilities[STAY] > 0.02:
        _paint(tile, _disc(0.16 * np.sqrt(probabilities[STAY])), ARROW, 0.35 + 0.55 * probabilities[STAY])


def _paint_object(tile: np.ndarray, reward: float, p_terminate: float, is_present: bool) -> None:
    color = NEUTRAL if reward == 0 else GOOD if reward > 0 else BAD
    radius = 0.17 + 0.21 * min(np.sqrt(abs(reward)), 1.0)
    if not is_present:
        _paint(tile, _disc(radius, radius - 0.05), color, 0.55)
        return
    _paint(tile, _disc(radius), color, 1.0)
    _paint(tile, _disc(radius, radius - 0.07), WALL, float(p_terminate))


def _paint_agent(tile: np.ndarray) -> None:
    _paint(tile, _disc(0.31), WHITE, 1.0)
    _paint(tile, _disc(0.26), AGENT, 1.0)


def _join(tiles: np.ndarray) -> np.ndarray:
    """Put tiles [rows, columns, size, size, 3] together and draw a frame of wall around them. [height, width, 3]."""
    rows, columns, size = tiles.shape[:3]
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    frame = max(size // 4, 1)
    framed = np.empty((picture.shape[0] + 2 * frame, picture.shape[1] + 2 * frame, 3))
    framed[:] = WALL
    framed[frame:-frame, frame:-frame] = picture
    return framed
