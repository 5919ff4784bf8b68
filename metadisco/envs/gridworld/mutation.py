"""One small change of a grid-world level, as ACCEL evolves levels (arXiv:2203.01302), that keeps the level legal.

An edit moves, adds or removes a wall, moves, adds or removes an object, moves the start, or perturbs one parameter.
Which one is drawn uniformly among those that are possible in this level, so that no edit is a masked no-op. A legal
level stays one: start and objects stand on distinct free cells of the room, existing objects come first, the first
reward is never negative, and every parameter is within the range that levels are drawn from. A perturbed parameter
that would leave its range is reflected at the end: clipped, it would pile up there over many generations.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.envs.gridworld.dynamics import GridLevel, pick

(
    MOVE_WALL,
    ADD_WALL,
    REMOVE_WALL,
    MOVE_OBJECT,
    ADD_OBJECT,
    REMOVE_OBJECT,
    MOVE_START,
    PERTURB_REWARD,
    PERTURB_P_TERMINATE,
    PERTURB_P_RESPAWN,
    PERTURB_MAX_STEPS,
) = range(11)
NUM_UNIFORMS = 7  # random numbers that an edit takes
LONGEST_STEP = 0.25  # of a perturbation, as a share of the range


@dataclass(frozen=True)
class LevelRules:
    """What a level of a distribution may look like.

    Attributes:
        columns: width of the full grid, in cells; it is square.
        min_side: smallest side of the room, in cells.
        max_walls: most wall cells inside the room.
        min_objects: fewest objects.
        max_steps: lowest and highest episode length, both included.
        reward: lowest and highest reward.
        p_terminate: lowest and highest probability that collecting an object ends the episode.
        p_respawn: lowest and highest probability per step that an object reappears.
    """

    columns: int
    min_side: int
    max_walls: int
    min_objects: int
    max_steps: tuple[int, int]
    reward: tuple[float, float]
    p_terminate: tuple[float, float]
    p_respawn: tuple[float, float]


def edit_level(rules: LevelRules, uniforms: jax.Array, level: GridLevel) -> GridLevel:
    """Make one edit, drawn uniformly among those that are possible.

    Args:
        rules: what the level, and the edited one, obey.
        uniforms: [NUM_UNIFORMS] float32 in [0, 1).
        level: one level.

    Returns:
        A level of the same shapes and types. Types of objects and the room's side stay as they are.
    """
    for_edit, for_place, for_choice, for_step, *for_new = uniforms
    cells, objects = jnp.arange(level.walls.size), jnp.arange(level.object_cell.size)
    exists = level.object_cell >= 0
    number = jnp.sum(exists)
    walls = level.walls & _room(rules, level)
    is_empty = ~level.walls & (cells != level.start) & ~jnp.any(cells[:, None] == level.object_cell, axis=1)
    edit = pick(for_edit, _possible_edits(rules, walls, is_empty, exists))

    place = cells == pick(for_place, is_empty)
    source = cells == pick(for_choice, walls)
    adds_wall = (edit == MOVE_WALL) | (edit == ADD_WALL)
    clears_wall = (edit == MOVE_WALL) | (edit == REMOVE_WALL)
    level = replace(
        level,
        walls=(level.walls | (place & adds_wall)) & ~(source & clears_wall),
        start=jnp.where(edit == MOVE_START, jnp.argmax(place), level.start).astype(jnp.int32),
    )
    chosen = objects == pick(for_choice, exists)
    moves = (edit == MOVE_OBJECT) & chosen
    level = replace(level, object_cell=jnp.where(moves, jnp.argmax(place), level.object_cell).astype(jnp.int32))
    level = _perturb(rules, edit, chosen, for_step, for_choice, level)
    adds = (edit == ADD_OBJECT) & (objects == number)
    level = _add_object(rules, adds, jnp.argmax(place), jnp.stack(for_new), level)
    # The first object stays: a level needs one, and its reward has a range of its own.
    removed = pick(for_choice, exists & (objects > 0))
    return _remove_object(edit == REMOVE_OBJECT, removed, number - 1, level)


def _room(rules: LevelRules, level: GridLevel) -> jax.Array:
    """Cells of the room: the smallest square in the upper left corner that holds all free cells. [cells] bool."""
    row, column = jnp.divmod(jnp.arange(level.walls.size), rules.columns)
    reach = jnp.maximum(row, column)
    side = jnp.max(jnp.where(level.walls, rules.min_side, reach + 1))
    return reach < jnp.maximum(side, rules.min_side)


def _possible_edits(rules: LevelRules, walls: jax.Array, is_empty: jax.Array, exists: jax.Array) -> jax.Array:
    """Which edits can be made, in the order of their numbers. [11] bool."""
    num_walls, number = jnp.sum(walls), jnp.sum(exists)
    has_wall, has_place, has_object = num_walls > 0, jnp.any(is_empty), number > 0
    varies = {name: getattr(rules, name)[0] < getattr(rules, name)[1] for name in ("p_terminate", "p_respawn")}
    lowest, highest = rules.reward
    return jnp.stack(
        [
            has_wall & has_place,
            has_place & (num_walls < rules.max_walls),
            has_wall,
            has_place & has_object,
            has_place & (number < exists.size),
            number > max(rules.min_objects, 1),
            has_place,
            has_object & (lowest < highest),
            has_object & varies["p_terminate"],
            has_object & varies["p_respawn"],
            jnp.asarray(rules.max_steps[0] < rules.max_steps[1]),
        ]
    )


def _lowest_reward(rules: LevelRules, num_objects: int) -> jax.Array:
    return jnp.full(num_objects, rules.reward[0], jnp.float32).at[0].max(0.0)


def _perturb(
    rules: LevelRules, edit: jax.Array, chosen: jax.Array, for_step: jax.Array, for_dither: jax.Array, level: GridLevel
) -> GridLevel:
    """Change the parameter that `edit` names, of the chosen object or of the level, if it names one."""
    step = LONGEST_STEP * (2.0 * for_step - 1.0)
    low, high = rules.max_steps
    # An integer stands for the interval up to the next one, so that short episodes can change at all.
    max_steps = jnp.floor(_log_step(level.max_steps + for_dither, step, low, high + 1)).astype(jnp.int32)
    lowest_reward = _lowest_reward(rules, chosen.size)
    reward = _step(level.reward, step, lowest_reward, rules.reward[1])
    p_terminate = _log_step(level.p_terminate, step, *rules.p_terminate)
    p_respawn = _log_step(level.p_respawn, step, *rules.p_respawn)
    return replace(
        level,
        reward=jnp.where((edit == PERTURB_REWARD) & chosen, reward, level.reward),
        p_terminate=jnp.where((edit == PERTURB_P_TERMINATE) & chosen, p_terminate, level.p_terminate),
        p_respawn=jnp.where((edit == PERTURB_P_RESPAWN) & chosen, p_respawn, level.p_respawn),
        max_steps=jnp.where(edit == PERTURB_MAX_STEPS, jnp.clip(max_steps, low, high), level.max_steps),
    )


def _add_object(
    rules: LevelRules, adds: jax.Array, cell: jax.Array, uniforms: jax.Array, level: GridLevel
) -> GridLevel:
    """Put a new object with random parameters where `adds` [K] is True."""
    lowest_reward = _lowest_reward(rules, adds.size)
    reward = _step(lowest_reward, uniforms[0], lowest_reward, rules.reward[1])
    p_terminate = _log_step(jnp.float32(rules.p_terminate[0]), uniforms[1], *rules.p_terminate)
    p_respawn = _log_step(jnp.float32(rules.p_respawn[0]), uniforms[2], *rules.p_respawn)
    return replace(
        level,
        object_cell=jnp.where(adds, cell, level.object_cell).astype(jnp.int32),
        reward=jnp.where(adds, reward, level.reward),
        p_terminate=jnp.where(adds, p_terminate, level.p_terminate),
        p_respawn=jnp.where(adds, p_respawn, level.p_respawn),
    )


def _remove_object(removes: jax.Array, removed: jax.Array, last: jax.Array, level: GridLevel) -> GridLevel:
    """Take an object away; the last one takes its place, so that existing objects still come first."""
    objects = jnp.arange(level.object_cell.size)

    def without(values: jax.Array, absent: float) -> jax.Array:
        shifted = jnp.where(objects == removed, values[last], values)
        shifted = jnp.where(objects == last, jnp.asarray(absent, values.dtype), shifted)
        return jnp.where(removes, shifted, values)

    return replace(
        level,
        object_cell=without(level.object_cell, -1),
        reward=without(level.reward, 0.0),
        p_terminate=without(level.p_terminate, 0.0),
        p_respawn=without(level.p_respawn, 0.0),
    )


def _step(value: jax.Array, step: jax.Array, low: jax.Array | float, high: float) -> jax.Array:
    """Move by a share of the range, at most 1, and reflect at its ends."""
    moved = value + step * (high - low)
    moved = jnp.where(moved > high, 2.0 * high - moved, moved)
    moved = jnp.where(moved < low, 2.0 * low - moved, moved)
    return jnp.clip(moved, low, high)  # for rounding


def _log_step(value: jax.Array, step: jax.Array, low: float, high: float) -> jax.Array:
    """Like `_step`, in the logarithm."""
    logarithm = jnp.log(jnp.maximum(value, low))
    return jnp.clip(jnp.exp(_step(logarithm, step, float(np.log(low)), float(np.log(high)))), low, high)
