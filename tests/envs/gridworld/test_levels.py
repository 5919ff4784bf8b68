"""Level distributions: frequencies and legality."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.core import trees
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.features import object_distance
from metadisco.envs.gridworld.hand_designed import HandDesigned, ObjectKind, hand_designed
from metadisco.envs.gridworld.levels import (
    LABYRINTHS,
    GridLevels,
    distinct_free_cells,
    reachable_cells,
    stack_levels,
)
from metadisco.envs.gridworld.oracle import optimal_return
from tests.support.reference.gridworld import Level, assert_legal, distances

NUM_LEVELS = 4000
PAPER = GridLevels()


@partial(jax.jit, static_argnums=(0, 1))
def draw(levels, num_levels=NUM_LEVELS):
    return jax.vmap(levels.sample)(jax.random.split(jax.random.key(7), num_levels))


def draw_few(levels, num_levels):
    """Without compiling the whole sampler, which costs more than a few levels."""
    drawn = [jax.device_get(levels.sample(key)) for key in jax.random.split(jax.random.key(7), num_levels)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)


@pytest.fixture(scope="module")
def paper_levels():
    return jax.device_get(draw(PAPER))


@pytest.fixture(scope="module")
def open_levels():
    """Rooms without walls inside: their side can be read off."""
    return jax.device_get(draw(GridLevels(min_side=3, max_side=6, num_walls=0, max_objects=2, max_steps=(2, 5))))


def test_sampled_levels_are_legal(paper_levels):
    assert_legal(paper_levels)


def test_side_is_uniform_and_everything_outside_is_wall(open_levels):
    free = ~open_levels.walls.reshape(-1, 6, 6)
    side = free[:, 0].sum(axis=1)
    counts = np.bincount(side, minlength=7)[3:]
    assert stats.chisquare(counts).pvalue > 0.001
    np.testing.assert_array_equal(free.sum(axis=(1, 2)), side**2)


def test_walls_are_drawn_over_the_largest_grid_without_replacement():
    levels = jax.device_get(draw(GridLevels(min_side=10)))
    np.testing.assert_array_equal(levels.walls.sum(axis=1), 15)
    counts = levels.walls.sum(axis=0)
    # Drawing without replacement: the variance of a cell's count is n p (1 - p), and the counts are almost independent.
    deviations = (counts - NUM_LEVELS * 0.15) / np.sqrt(NUM_LEVELS * 0.15 * 0.85)
    assert stats.chi2(99).sf(np.sum(deviations**2) * 99 / 100) > 0.001


def test_small_rooms_keep_their_share_of_the_walls(paper_levels):
    inside = paper_levels.walls.reshape(-1, 10, 10)[:, :4, :4].sum(axis=(1, 2))
    assert abs(inside.mean() - 15 * 16 / 100) < 5 * inside.std() / np.sqrt(NUM_LEVELS)


def test_start_and_objects_are_uniform_over_the_room(open_levels):
    full = ~open_levels.walls.any(axis=1)
    both = full & (open_levels.object_cell[:, 1] >= 0)
    for cells in (open_levels.start[full], open_levels.object_cell[full, 0], open_levels.object_cell[both, 1]):
        assert stats.chisquare(np.bincount(cells, minlength=36)).pvalue > 0.001


def test_number_of_objects_is_uniform(paper_levels):
    counts = np.bincount((paper_levels.object_cell >= 0).sum(axis=1), minlength=6)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.001


def test_existing_objects_come_first(paper_levels):
    exists = paper_levels.object_cell >= 0
    assert (exists[:, :-1] >= exists[:, 1:]).all()


@pytest.mark.parametrize("k", range(5))
def test_first_reward_is_uniform_above_zero_and_others_around_it(paper_levels, k):
    low = 0.0 if k == 0 else -1.0
    rewards = paper_levels.reward[paper_levels.object_cell[:, k] >= 0, k]
    assert stats.kstest(rewards, stats.uniform(low, 1.0 - low).cdf).pvalue > 0.001


@pytest.mark.parametrize(("name", "low", "high"), [("p_terminate", 0.01, 1.0), ("p_respawn", 0.001, 0.1)])
def test_probabilities_are_log_uniform(paper_levels, name, low, high):
    values = getattr(paper_levels, name)[paper_levels.object_cell >= 0]
    assert stats.kstest(values, stats.loguniform(low, high).cdf).pvalue > 0.001


def test_max_steps_are_log_uniform(paper_levels):
    assert stats.kstest(paper_levels.max_steps + 0.5, stats.loguniform(20, 751).cdf).pvalue > 0.001
    assert paper_levels.max_steps.min() >= 20
    assert paper_levels.max_steps.max() <= 750


def test_max_steps_reach_both_ends_with_the_probability_of_a_discrete_log_uniform(open_levels):
    counts = np.bincount(open_levels.max_steps, minlength=6)[2:]
    expected = np.log([3 / 2, 4 / 3, 5 / 4, 6 / 5]) / np.log(6 / 2)
    assert stats.chisquare(counts, NUM_LEVELS * expected).pvalue > 0.001


def test_every_object_has_a_type_of_its_own(paper_levels):
    assert (paper_levels.object_type == np.arange(5)).all()


def test_levels_without_room_have_fewer_objects():
    levels = draw_few(GridLevels(min_side=4, max_side=4, num_walls=13, min_objects=5), 5)
    assert_legal(levels)
    assert ((levels.object_cell >= 0).sum(axis=1) == 2).all()  # 16 cells - 13 walls - 1 start


def test_level_with_a_single_free_cell_has_no_object_and_is_playable():
    levels = GridLevels(min_side=4, max_side=4, num_walls=15)
    level = trees.index(draw_few(levels, 1), 0)
    assert (level.object_cell == -1).all()
    assert (level.walls == (np.arange(16) != level.start)).all()
    noise = levels.env.noise(jax.random.key(0), ())
    _, state = levels.env.reset(noise, level)
    obs, _, step = levels.env.step(noise, state, jnp.int32(0), level)
    assert (int(obs), float(step.reward)) == (level.start, 0.0)


def test_reachable_rejects_exactly_the_levels_without_a_reachable_object():
    dense = GridLevels(min_side=4, max_side=4, num_walls=9, max_objects=2)

    def num_reachable(levels):
        count = 0
        for i in range(60):
            level = Level.read(dense.env, trees.index(levels, i))
            count += any(cell in distances(level) for cell in level.object_cell)
        return count

    accepted = jax.device_get(draw(dataclasses.replace(dense, reachable=True), 60))
    assert_legal(accepted)
    assert num_reachable(accepted) == 60
    assert num_reachable(jax.device_get(draw(dense, 60))) < 45


def test_objects_are_in_reach_and_not_nearer_than_asked_for():
    levels = GridLevels(min_side=4, max_side=7, num_walls=13, min_objects=2, max_objects=3, min_distance=6)
    drawn = jax.device_get(draw(levels, 60))
    assert_legal(drawn)
    nearest, counts = [], []
    for i in range(60):
        level = Level.read(levels.env, trees.index(drawn, i))
        away = [distances(level)[cell] for cell in level.object_cell if cell >= 0]
        nearest.append(min(away))
        counts.append(len(away))
    assert min(nearest) == 6
    assert set(counts) >= {2, 3}
    np.testing.assert_array_equal(nearest_distance(levels.env, drawn), nearest)


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0))
def nearest_distance(env, level):
    return object_distance(env, level, level.object_cell >= 0)


def test_labyrinths_have_one_object_far_away():
    drawn = jax.device_get(draw(LABYRINTHS, 20))
    assert_legal(drawn)
    away = np.asarray(nearest_distance(LABYRINTHS.env, drawn))
    assert ((away >= 12) & np.isfinite(away)).all()
    assert drawn.object_cell.shape == (20, 1)


def test_reachable_cells_agree_with_breadth_first_search(paper_levels):
    flood = jax.jit(jax.vmap(partial(reachable_cells, PAPER.env)))
    levels = trees.index(paper_levels, slice(40))
    for i, cells in enumerate(np.asarray(flood(levels))):
        level = Level.read(PAPER.env, trees.index(levels, i))
        assert set(np.flatnonzero(cells)) == set(distances(level))


def test_compiled_and_vmapped_sample_equals_single_samples(paper_levels):
    for left, right in zip(jax.tree.leaves(draw_few(PAPER, 5)), jax.tree.leaves(paper_levels), strict=True):
        np.testing.assert_allclose(left, right[:5], rtol=1e-5)


def test_distinct_free_cells_are_uniform_over_ordered_pairs():
    walls = np.array([False, True, False, False])
    uniforms = np.random.default_rng(0).random((6000, 4), np.float32)
    pairs = np.asarray(jax.jit(jax.vmap(lambda some: distinct_free_cells(some, walls, 2)))(uniforms))
    counts = [np.sum((pairs == pair).all(axis=1)) for pair in [(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2)]]
    assert sum(counts) == 6000
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    "changes",
    [
        {"min_side": 9},
        {"max_side": 11},
        {"num_walls": 10},
        {"min_objects": 4},
        {"max_objects": 4},
        {"max_steps": (800, 900)},
        {"reward": (-2.0, 0.5)},
        {"p_terminate": (0.001, 0.002)},
        {"p_respawn": (0.5, 0.9)},
        {"min_distance": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_changes_the_levels(paper_levels, changes):
    changed = jax.tree.leaves(draw_few(dataclasses.replace(PAPER, **changes), 5))
    original = [leaf[:5] for leaf in jax.tree.leaves(paper_levels)]
    same = [
        left.shape == right.shape and np.allclose(left, right) for left, right in zip(changed, original, strict=True)
    ]
    assert not all(same)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_side": 11}, "min_side <= max_side"),
        ({"min_side": 3}, "num_walls must be in 0..8"),
        ({"min_objects": 0}, "1 <= min_objects"),
        ({"min_side": 4, "max_side": 4, "reachable": True}, "never accept"),
        ({"min_distance": 50}, r"min_distance must be in 0..42"),
        ({"max_steps": (0, 5)}, "max_steps must be"),
        ({"reward": (-1.0, -0.5)}, "high >= 0"),
        ({"p_respawn": (0.0, 0.1)}, "p_respawn must be"),
        ({"random_positions": True}, "needs planes=True"),
        ({"max_objects": 20}, "too many for a table"),
    ],
)
def test_wrong_setting_fails_at_construction(fields, message):
    with pytest.raises(ValueError, match=message):
        GridLevels(**fields)


def test_stacked_levels_keep_their_returns():
    kind = (ObjectKind(1.0, 0.1, 0.2), ObjectKind(-0.5, 0.5, 0.2))
    designs = [
        HandDesigned(2, 3, 20, kind[:1]),
        HandDesigned(4, 2, 30, kind, walls="..\n.#\n..\n#."),
    ]
    pairs = [(design.env, jax.device_get(jax.jit(design.sample)(jax.random.key(2)))) for design in designs]
    env, levels = stack_levels(pairs)
    assert (env.rows, env.columns, env.num_objects, env.num_types) == (4, 3, 2, 2)
    solve = jax.jit(optimal_return, static_argnums=0)
    together = jax.lax.map(partial(solve, env), levels)
    np.testing.assert_allclose(together, [solve(*pair) for pair in pairs], rtol=1e-5)


def test_stacking_needs_one_kind_of_observation():
    level = hand_designed("rand_sparse", jax.random.key(0))[1]
    with pytest.raises(ValueError, match="same `planes`"):
        stack_levels([(GridWorld(7, 7, 3, 2), level), (GridWorld(7, 7, 3, 2, planes=True), level)])
