"""Exact returns against a walk through the whole tree of events, against rollouts, and against each other."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core import trees
from metadisco.envs import rollout
from metadisco.envs.gridworld.dynamics import NUM_ACTIONS
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.envs.gridworld.oracle import optimal_action_values, optimal_return, policy_return, random_return
from tests.support.reference.gridworld import Level, expected_return

TINY = GridLevels(
    min_side=2, max_side=3, num_walls=2, max_objects=2, max_steps=(1, 8), p_terminate=(0.05, 1.0), p_respawn=(0.05, 1.0)
)
SMALL = GridLevels(
    min_side=3, max_side=5, num_walls=4, min_objects=2, max_objects=3, max_steps=(20, 40), p_respawn=(0.05, 1.0)
)
NUM_LEVELS = 8

optimal = jax.jit(optimal_return, static_argnums=0)
random = jax.jit(random_return, static_argnums=0)
of_policy = jax.jit(policy_return, static_argnums=0)
action_values = jax.jit(optimal_action_values, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def draw_many(levels, keys):
    return jax.vmap(levels.sample)(keys)


def draw(levels, seed=0):
    many = draw_many(levels, jax.random.split(jax.random.key(seed), NUM_LEVELS))
    return [trees.index(many, i) for i in range(NUM_LEVELS)]


@pytest.fixture(scope="module")
def tiny_levels():
    return draw(TINY)


@pytest.fixture(scope="module")
def small_levels():
    return draw(SMALL)


def stochastic_policy(env, seed):
    logits = 2.0 * jax.random.normal(jax.random.key(seed), (env.spec.observation.num, NUM_ACTIONS))
    return jax.nn.softmax(logits)


def uniform_policy(env):
    return jnp.full((env.spec.observation.num, NUM_ACTIONS), 1.0 / NUM_ACTIONS)


def initial_index(env, level):
    return env.reset(env.noise(jax.random.key(0), ()), level)[0]


def test_optimal_return_agrees_with_expectimax(tiny_levels):
    for level in tiny_levels:
        expected = expected_return(Level.read(TINY.env, level))
        np.testing.assert_allclose(optimal(TINY.env, level), expected, rtol=1e-5, atol=1e-6)


def test_policy_return_agrees_with_the_tree_of_events(tiny_levels):
    for seed, level in enumerate(tiny_levels):
        policy = stochastic_policy(TINY.env, seed)
        expected = expected_return(Level.read(TINY.env, level), np.asarray(policy, np.float64))
        np.testing.assert_allclose(of_policy(TINY.env, level, policy), expected, rtol=1e-5, atol=1e-6)


@partial(jax.jit, static_argnums=0)
def simulate(env, key, level, probabilities):
    """Returns of the first episodes of many workers. [B]."""
    num_workers, num_steps = 2048, SMALL.max_steps[1]

    def policy(uniform, obs):
        prob = probabilities[obs]
        action = jnp.sum(uniform[:, None] > jnp.cumsum(prob, axis=-1), axis=-1)
        return jnp.minimum(action, NUM_ACTIONS - 1), jnp.zeros(num_workers)

    begin_key, rollout_key = jax.random.split(key)
    obs, state = rollout.begin(begin_key, env, level, num_workers)
    trajectory, _, _ = rollout.rollout(rollout_key, env, level, policy, obs, state, num_steps=num_steps)
    return rollout.accumulate(*rollout.no_returns(num_workers), trajectory)


@pytest.mark.parametrize("is_uniform", [True, False], ids=["random", "stochastic policy"])
def test_exact_return_agrees_with_rollouts(small_levels, is_uniform):
    env = SMALL.env
    deviations = []
    for seed, level in enumerate(small_levels):
        policy = uniform_policy(env) if is_uniform else stochastic_policy(env, seed)
        returns, is_over = jax.device_get(simulate(env, jax.random.key(seed), level, policy))
        assert is_over.all()
        exact = random(env, level) if is_uniform else of_policy(env, level, policy)
        deviations.append((returns.mean() - float(exact)) / (returns.std() / np.sqrt(len(returns)) + 1e-6))
    assert np.abs(deviations).max() < 4.0


def test_return_of_the_uniform_policy_is_the_random_return(small_levels):
    for level in small_levels:
        uniform = of_policy(SMALL.env, level, uniform_policy(SMALL.env))
        np.testing.assert_allclose(uniform, random(SMALL.env, level), rtol=1e-5, atol=1e-6)


def test_no_policy_beats_the_optimal_return(small_levels):
    for level in small_levels:
        best = float(optimal(SMALL.env, level))
        assert float(random(SMALL.env, level)) <= best + 1e-5
        for seed in range(3):
            assert float(of_policy(SMALL.env, level, stochastic_policy(SMALL.env, seed))) <= best + 1e-5


def test_greedy_policy_of_the_first_step_lies_between_random_and_optimal(small_levels):
    # It is stationary, so it may be worse than the optimum at the end of an episode.
    for level in small_levels[:4]:
        values = action_values(SMALL.env, level)
        greedy = jax.nn.one_hot(values.argmax(axis=-1), NUM_ACTIONS)
        low, high = float(random(SMALL.env, level)), float(optimal(SMALL.env, level))
        assert low - 1e-5 <= float(of_policy(SMALL.env, level, greedy)) <= high + 1e-5


def test_best_first_action_value_is_the_optimal_return(small_levels):
    for level in small_levels:
        first = action_values(SMALL.env, level)[initial_index(SMALL.env, level)]
        np.testing.assert_allclose(first.max(), optimal(SMALL.env, level), rtol=1e-6)


def test_action_values_with_one_step_left_are_the_expected_rewards():
    level = draw(TINY)[0].replace(
        walls=jnp.zeros(9, bool),
        start=jnp.int32(0),
        object_cell=jnp.array([1, 3], jnp.int32),
        reward=jnp.array([0.25, -0.5]),
    )
    last = action_values(TINY.env, level, 1)
    #                                            up   down  left right stay
    np.testing.assert_allclose(last[9 * 3 + 0], [0.0, -0.5, 0.0, 0.25, 0.0])  # both objects present
    np.testing.assert_allclose(last[9 * 2 + 0], [0.0, -0.5, 0.0, 0.0, 0.0])  # only the second


def test_returns_grow_with_time_for_rewards_without_risk():
    level = draw(SMALL)[1].replace(reward=jnp.full(3, 0.5), p_terminate=jnp.zeros(3))
    returns = [float(optimal(SMALL.env, level.replace(max_steps=jnp.int32(n)))) for n in (5, 10, 20, 40)]
    assert returns == sorted(returns)
    assert returns[0] < returns[-1]


def test_vmap_and_map_over_levels_equal_single_calls(small_levels):
    stacked = trees.stack(small_levels)
    single = [float(optimal(SMALL.env, level)) for level in small_levels]
    solve = partial(optimal_return, SMALL.env)
    np.testing.assert_allclose(jax.jit(jax.vmap(solve))(stacked), single, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(partial(jax.lax.map, solve))(stacked), single, rtol=1e-5)


def test_levels_with_other_numbers_do_not_compile_again():
    traces = []

    @jax.jit
    def counted(level):
        traces.append(level)
        return optimal_return(SMALL.env, level)

    for level in draw(SMALL, seed=1)[:3]:
        counted(level)
    assert len(traces) == 1


def test_planes_are_refused():
    level = draw(SMALL)[0]
    with pytest.raises(ValueError, match="tabular"):
        optimal_return(dataclasses.replace(SMALL.env, planes=True), level)


def test_policy_of_another_shape_is_refused(small_levels):
    with pytest.raises(AssertionError):
        policy_return(SMALL.env, small_levels[0], jnp.ones((7, NUM_ACTIONS)))
