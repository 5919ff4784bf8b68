"""Weights of replay against slow references, and what they must never do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.curricula.prioritization import ProportionalPrioritization, RankPrioritization, TopKPrioritization
from tests.support.reference import level_buffer as reference

SCORE = np.array([0.5, -1.0, 2.0, 0.5, 9.0, 0.0, 0.5, 2.0], np.float32)
IS_FILLED = np.array([True, True, True, True, False, True, True, True])
ALL = [
    (RankPrioritization(0.3), reference.rank_weights, 0.3),
    (RankPrioritization(2.0), reference.rank_weights, 2.0),
    (ProportionalPrioritization(0.5), reference.proportional_weights, 0.5),
    (ProportionalPrioritization(1.0), reference.proportional_weights, 1.0),
    (TopKPrioritization(3), reference.top_k_weights, 3),
    (TopKPrioritization(8), reference.top_k_weights, 8),
]
names = pytest.mark.parametrize(("prioritization", "slow", "setting"), ALL, ids=[repr(case[0]) for case in ALL])


@names
@pytest.mark.parametrize("seed", range(5))
def test_weights_equal_the_slow_ones(prioritization, slow, setting, seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(-2, 5, 8).astype(np.float32)  # many ties
    is_filled = rng.random(8) < 0.7
    np.testing.assert_allclose(
        prioritization.weights(score, is_filled), slow(score, is_filled, setting), rtol=1e-5, atol=1e-8
    )


@names
def test_an_empty_slot_has_weight_exactly_zero(prioritization, slow, setting):
    weights = prioritization.weights(jnp.asarray(SCORE), jnp.asarray(IS_FILLED))
    assert weights[4] == 0.0
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)


@names
def test_an_empty_buffer_has_no_weights(prioritization, slow, setting):
    assert (prioritization.weights(jnp.asarray(SCORE), jnp.zeros(8, bool)) == 0.0).all()


@names
def test_compiled_weights_equal_eager_ones(prioritization, slow, setting):
    compiled = jax.jit(prioritization.weights)(SCORE, IS_FILLED)
    np.testing.assert_allclose(compiled, prioritization.weights(jnp.asarray(SCORE), jnp.asarray(IS_FILLED)), rtol=1e-6)


@names
def test_order_in_memory_does_not_matter_to_different_scores(prioritization, slow, setting):
    score = jnp.arange(8.0)
    forward = prioritization.weights(score, jnp.ones(8, bool))
    backward = prioritization.weights(score[::-1], jnp.ones(8, bool))
    np.testing.assert_allclose(forward, backward[::-1], rtol=1e-6)


def test_steep_ranks_of_a_full_buffer_stay_finite():
    weights = RankPrioritization(0.05).weights(jnp.arange(4000.0), jnp.ones(4000, bool))
    assert np.isfinite(weights).all()
    assert weights[3999] > 0.999


@pytest.mark.parametrize("score", [3e38, 1e-40, 0.0, -5.0])
def test_proportional_weights_of_extreme_scores_are_finite(score):
    weights = ProportionalPrioritization(0.1).weights(jnp.full(4, score, jnp.float32), jnp.ones(4, bool))
    np.testing.assert_allclose(weights, 0.25, rtol=1e-5)


@pytest.mark.parametrize("make", [RankPrioritization, ProportionalPrioritization])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_temperature_is_refused(make, temperature):
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        make(temperature)


def test_top_k_of_none_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TopKPrioritization(0)
