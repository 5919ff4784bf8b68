"""Pictures show what the level and the state say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.envs.gridworld import rendering
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.hand_designed import hand_designed
from metadisco.envs.gridworld.levels import embed
from metadisco.envs.gridworld.mazes import parse_ascii
from metadisco.envs.gridworld.rendering import render_ascii, render_image

ENV = GridWorld(2, 3, 1, 1)
LEVEL = parse_ascii("S.#\n..G")
SIZE = 32
FRAME = SIZE // 4


def center(image, row, column):
    """Color in the middle of a cell."""
    return image[FRAME + row * SIZE + SIZE // 2, FRAME + column * SIZE + SIZE // 2]


def color(rgb):
    return np.round(255 * np.array(rgb)).astype(np.uint8)


def state_of(env, level, **changes):
    state = env.reset(env.noise(jax.random.key(0), ()), level)[1]
    return state.replace(**changes)


def test_text_shows_walls_agent_and_objects():
    assert render_ascii(ENV, LEVEL) == "A.#\n..+"


def test_text_shows_penalties_with_a_minus():
    assert render_ascii(ENV, LEVEL.replace(reward=jnp.array([-1.0]))) == "A.#\n..-"


def test_text_follows_the_state():
    state = state_of(ENV, LEVEL, cell=jnp.int32(1), present_from=jnp.array([5]))
    assert render_ascii(ENV, LEVEL, state) == ".A#\n..."


def test_walls_outside_a_small_level_are_cropped_away():
    larger = GridWorld(6, 6, 2, 1)
    embedded = embed(ENV, LEVEL, larger)
    assert render_ascii(larger, embedded) == render_ascii(ENV, LEVEL)
    np.testing.assert_array_equal(render_image(larger, embedded), render_image(ENV, LEVEL))


def test_image_has_one_tile_per_cell_and_a_frame():
    image = render_image(ENV, LEVEL)
    assert image.shape == (2 * SIZE + 2 * FRAME, 3 * SIZE + 2 * FRAME, 3)
    assert image.dtype == np.uint8


def test_image_colors_cells_by_what_is_there():
    image = render_image(ENV, LEVEL)
    for (row, column), expected in {
        (0, 0): rendering.AGENT,
        (0, 1): rendering.FLOOR,
        (0, 2): rendering.WALL,
        (1, 2): rendering.GOOD,
    }.items():
        np.testing.assert_array_equal(center(image, row, column), color(expected))


def test_image_moves_the_agent_with_the_state():
    image = render_image(ENV, LEVEL, state_of(ENV, LEVEL, cell=jnp.int32(4)))
    np.testing.assert_array_equal(center(image, 1, 1), color(rendering.AGENT))
    np.testing.assert_array_equal(center(image, 0, 0), color(rendering.FLOOR))


def test_absent_object_is_an_empty_circle():
    image = render_image(ENV, LEVEL, state_of(ENV, LEVEL, present_from=jnp.array([5])))
    np.testing.assert_array_equal(center(image, 1, 2), color(rendering.FLOOR))
    assert (image != render_image(ENV, LEVEL.replace(object_cell=jnp.array([-1])))).any()


def test_policy_is_drawn_on_free_cells_only():
    plain = render_image(ENV, LEVEL)
    policy = np.zeros((6, 5))
    policy[1, 3] = policy[2, 3] = 1.0  # right, on a free cell and on a wall
    changed = np.argwhere((render_image(ENV, LEVEL, policy=policy) != plain).any(axis=-1)) - FRAME
    assert len(changed) > 20
    assert (changed[:, 0] < SIZE).all()
    # The arrow lies in the right half of the second cell; its shaft starts in the center.
    assert (changed[:, 1] >= 1.5 * SIZE - 1).all()
    assert (changed[:, 1] < 2 * SIZE).all()


def test_random_positions_are_drawn_from_the_state_only():
    env, level = hand_designed("rand_sparse", jax.random.key(0))
    assert set(render_ascii(env, level)) == set("A.\n")
    assert set(render_ascii(env, level, state_of(env, level))) == set("A.+-\n")


def test_policy_of_all_subsets_is_refused_with_a_hint():
    with pytest.raises(ValueError, match="subset"):
        render_image(ENV, LEVEL, policy=np.zeros((12, 5)))


def test_tiny_cells_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        render_image(ENV, LEVEL, cell_size=2)
