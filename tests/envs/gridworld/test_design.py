"""Grid-world levels made by choice: legal whatever is chosen, and drawn from the distribution by uniform choices."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.core import trees
from metadisco.envs.gridworld.design import FIRST_WALL, NUMBER, SIDE
from metadisco.envs.gridworld.levels import GridLevels
from tests.support.reference.gridworld import Level, assert_legal, distances

PAPER = GridLevels()
REACHABLE = GridLevels(4, 5, num_walls=13, max_objects=5, min_objects=2, max_steps=(5, 9), reachable=True)
TINY = GridLevels(min_side=2, max_side=3, num_walls=3, max_objects=5)
NUM_BINS = 6
NUM_LEVELS = 600


@partial(jax.jit, static_argnums=(0, 1))
def compose(levels, num_levels=NUM_LEVELS, seed=0):
    """Levels whose every choice is uniform among the legal options, with drafts and options before each step."""
    design = levels.design(NUM_BINS)

    def choose(draft, inputs):
        key, step = inputs
        choice_key, uniform_key = jax.random.split(key)
        options = design.options(draft, step)
        option = jax.random.categorical(choice_key, jnp.where(options, 0.0, -jnp.inf))
        placed = design.place(draft, step, option, jax.random.uniform(uniform_key))
        return trees.where(jnp.any(options), placed, draft), (draft, options)

    def one(key):
        inputs = jax.random.split(key, design.num_steps), jnp.arange(design.num_steps)
        draft, history = jax.lax.scan(choose, design.begin(), inputs)
        return design.finish(draft), draft, history

    return jax.vmap(one)(jax.random.split(jax.random.key(seed), num_levels))


@pytest.fixture(scope="module", params=[PAPER, REACHABLE, TINY], ids=["paper", "reachable", "tiny"])
def family(request):
    return request.param, *jax.device_get(compose(request.param))


def test_levels_are_legal(family):
    assert_legal(family[1])


def test_levels_have_the_shapes_and_types_of_drawn_ones(family):
    levels, made, *_ = family
    drawn = jax.eval_shape(levels.sample, jax.random.key(0))
    assert jax.eval_shape(lambda: trees.index(made, 0)) == drawn
    assert (made.object_type == np.arange(levels.max_objects)).all()


def test_existing_objects_come_first_and_their_number_is_in_range(family):
    levels, made, *_ = family
    exists = made.object_cell >= 0
    assert (exists[:, :-1] >= exists[:, 1:]).all()
    assert exists.sum(1).max() <= levels.max_objects
    has_room = (~made.walls).sum(1) > levels.min_objects
    assert exists.sum(1)[has_room].min() >= levels.min_objects


def test_parameters_are_in_range(family):
    levels, made, *_ = family
    exists = made.object_cell >= 0
    assert (made.reward[:, 0] >= 0).all()
    for name in ("reward", "p_terminate", "p_respawn"):
        low, high = np.float32(getattr(levels, name))
        values = getattr(made, name)[exists]
        assert low <= values.min() <= values.max() <= high
    assert levels.max_steps[0] <= made.max_steps.min() <= made.max_steps.max() <= levels.max_steps[1]


def test_the_room_is_in_the_corner_and_has_at_most_the_walls_that_were_chosen(family):
    levels, made, draft, _ = family
    inside = np.maximum(*np.divmod(np.arange(levels.max_side**2), levels.max_side)) < draft.side[:, None]
    assert made.walls[~inside].all()
    np.testing.assert_array_equal(draft.walls.sum(1), levels.num_walls)
    assert ((made.walls & inside) <= draft.walls).all()


def test_all_steps_have_options_but_those_of_objects_that_do_not_exist(family):
    levels, made, _, (_, options) = family
    is_played = options.any(-1)
    num_map = FIRST_WALL + levels.num_walls + 1
    assert is_played[:, :num_map].all()
    exists = made.object_cell >= 0
    np.testing.assert_array_equal(is_played[:, num_map : num_map + levels.max_objects], exists)
    np.testing.assert_array_equal(is_played[:, num_map + levels.max_objects : -1], np.tile(exists, 3))
    assert is_played[:, -1].all()


def test_reachable_levels_reach_an_object():
    levels = jax.device_get(compose(REACHABLE)[0])
    for i in range(0, NUM_LEVELS, 5):
        level = Level.read(REACHABLE.env, trees.index(levels, i))
        assert any(cell in distances(level) for cell in level.object_cell)


def test_a_distance_that_choices_do_not_keep_is_refused():
    with pytest.raises(ValueError, match="min_distance=3 cannot be kept where a teacher makes levels"):
        replace(REACHABLE, min_distance=3).design(4)


def test_levels_are_opened_only_where_no_object_is_reachable():
    made, draft, _ = jax.device_get(compose(REACHABLE))

    @jax.jit
    @jax.vmap
    def close(draft):
        walls = REACHABLE.design(NUM_BINS)._blocked(draft)
        level = REACHABLE.furnish(walls, draft.start, draft.object_cell, draft.parameters, draft.max_steps)
        return level, REACHABLE.accepts(level)

    closed, is_accepted = jax.device_get(close(draft))
    assert 0.1 < is_accepted.mean() < 0.9
    np.testing.assert_array_equal((closed.walls == made.walls).all(1), is_accepted)


QUANTITIES = {
    "free cells": lambda level: (~level.walls).sum(1),
    "objects": lambda level: (level.object_cell >= 0).sum(1),
    "first cell of the agent": lambda level: level.start,
    "cell of an object": lambda level: level.object_cell[:, 0],
    "first reward": lambda level: level.reward[:, 0],
    "a later reward": lambda level: level.reward[:, 1][level.object_cell[:, 1] >= 0],
    "p_terminate": lambda level: level.p_terminate[:, 0],
    "p_respawn": lambda level: level.p_respawn[:, 0],
    "max_steps": lambda level: level.max_steps,
}


@pytest.fixture(scope="module")
def made_and_drawn():
    drawn = jax.jit(jax.vmap(PAPER.sample))(jax.random.split(jax.random.key(1), 4 * NUM_LEVELS))
    return jax.device_get((compose(PAPER, NUM_LEVELS)[0], drawn))


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_uniform_choices_draw_from_the_distribution(made_and_drawn, quantity):
    made, drawn = (QUANTITIES[quantity](levels) for levels in made_and_drawn)
    assert stats.ks_2samp(made, drawn).pvalue > 1e-3


def test_every_choice_can_be_seen(family):
    levels, _, draft, (before, options) = family
    observe = jax.jit(jax.vmap(levels.design(NUM_BINS).observe))
    num_levels, num_steps = options.shape[:2]
    flat = jax.tree.map(lambda leaf: leaf[:20].reshape(-1, *leaf.shape[2:]), before)
    seen = np.asarray(observe(flat)).reshape(20, num_steps, -1)
    last = np.asarray(observe(trees.index(draft, np.arange(20))))[:, None]
    changes = (np.diff(np.concatenate([seen, last], axis=1), axis=1) != 0).any(-1)
    assert np.isfinite(seen).all()
    assert np.abs(seen).max() <= 1.0
    # A wall outside the room changes nothing.
    is_wall = np.isin(np.arange(num_steps), np.arange(FIRST_WALL, FIRST_WALL + levels.num_walls))
    np.testing.assert_array_equal(changes[:, ~is_wall], options[:20].any(-1)[:, ~is_wall])
    assert num_levels == NUM_LEVELS


def test_sides_and_numbers_are_chosen_directly():
    design = PAPER.design(NUM_BINS)
    place = jax.jit(design.place)
    draft = place(design.begin(), np.int32(SIDE), np.int32(2), 0.5)
    draft = place(draft, np.int32(NUMBER), np.int32(1), 0.5)
    assert (int(draft.side), int(draft.number)) == (6, 2)


def test_a_number_that_does_not_vary_is_no_choice():
    levels = GridLevels(max_side=4, num_walls=1, max_objects=1, p_terminate=(1.0, 1.0), max_steps=(9, 9))
    made, _, (_, options) = compose(levels, 20)
    assert (made.p_terminate == 1.0).all()
    assert (made.max_steps == 9).all()
    assert options[:, -4:].sum(-1).tolist() == [[NUM_BINS, 1, NUM_BINS, 1]] * 20


@pytest.mark.parametrize("num_bins", [2, 40])
def test_a_bin_holds_its_share_of_the_range(num_bins):
    design = GridLevels(min_side=5, max_side=5, num_walls=0, max_objects=1).design(num_bins)
    assert design.num_options == max(25, num_bins)
    draft = replace(design.begin(), side=jnp.int32(5), object_cell=jnp.array([3]))
    step = jnp.int32(design.num_steps - 2)  # p_respawn
    made = jax.jit(lambda option, uniform: design.finish(design.place(draft, step, option, uniform)).p_respawn[0])
    values = [float(made(np.int32(option), uniform)) for option in range(num_bins) for uniform in (0.0, 0.999999)]
    edges = 0.001 * 100 ** (np.arange(num_bins + 1) / num_bins)
    np.testing.assert_allclose(values[::2], edges[:-1], rtol=1e-4)
    np.testing.assert_allclose(values[1::2], edges[1:], rtol=1e-4)
