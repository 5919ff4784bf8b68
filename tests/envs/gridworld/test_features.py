"""Features of levels against breadth-first search and counting in plain Python."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.features import level_features, walking_distances
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.envs.gridworld.mazes import parse_ascii
from tests.support.reference.gridworld import Level, distances

DISTRIBUTION = GridLevels(min_side=3, max_side=6, num_walls=8, max_objects=3)
NUM_LEVELS = 200


@pytest.fixture(scope="module")
def levels():
    return jax.device_get(jax.vmap(DISTRIBUTION.sample)(jax.random.split(jax.random.key(0), NUM_LEVELS)))


def read(levels, i):
    return Level.read(DISTRIBUTION.env, jax.tree.map(lambda leaf: leaf[i], levels))


def test_distances_agree_with_breadth_first_search(levels):
    found = jax.vmap(partial(walking_distances, DISTRIBUTION.env))(levels)
    for i in range(NUM_LEVELS):
        steps = distances(read(levels, i))
        np.testing.assert_array_equal(found[i], [steps.get(cell, np.inf) for cell in range(36)])


def test_features_agree_with_counting(levels):
    found = jax.jit(jax.vmap(partial(level_features, DISTRIBUTION.env)))(levels)
    for i in range(NUM_LEVELS):
        level = read(levels, i)
        steps, cells = distances(level), level.object_cell
        rewards = [cell for cell, reward in zip(cells, level.reward) if cell >= 0 and reward > 0]
        assert found.num_free[i] == level.walls.count(False)
        assert found.max_steps[i] == level.max_steps
        assert found.num_objects[i] == sum(cell >= 0 for cell in cells)
        assert found.reward_distance[i] == min((steps.get(cell, np.inf) for cell in rewards), default=np.inf)
    assert np.isinf(found.reward_distance).any()
    assert (found.reward_distance >= 1).all()


def test_a_detour_counts_in_full():
    level = parse_ascii("""
S#G
.#.
...
""")
    assert level_features(GridWorld(3, 3, 1, 1), level).reward_distance == 6


def test_an_object_that_punishes_is_no_reward():
    level = parse_ascii("S.G").replace(reward=jnp.array([-1.0]))
    assert level_features(GridWorld(1, 3, 1, 1), level).reward_distance == np.inf


def test_random_positions_have_no_distance():
    env = GridWorld(1, 3, 1, 1, planes=True, random_positions=True)
    features = level_features(env, parse_ascii("S.G"))
    assert np.isnan(features.reward_distance)
    assert features.num_objects == 1
