"""The level buffer against a slow one, and the statistics of its draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.core.types import Task
from metadisco.curricula import buffer as level_buffer
from metadisco.curricula.prioritization import RankPrioritization
from tests.support.reference import level_buffer as reference
from tests.support.small import assert_trees_close

CAPACITY = 6


def named(names) -> Task:
    """Tasks that are told apart by a number."""
    names = np.asarray(names, np.int32)
    return jax.tree.map(jnp.asarray, Task({"name": names, "half": (names / 2).astype(np.float32)}, lifetime=names + 1))


# Each operation of its own takes as long to compile as all of a function.
tick, _insert, _update = (jax.jit(each) for each in (level_buffer.tick, level_buffer.insert, level_buffer.update))
replay_weights = jax.jit(level_buffer.replay_weights, static_argnums=(1, 2))


@partial(jax.jit, static_argnums=0)
def empty(capacity=CAPACITY):
    return level_buffer.empty(jax.tree.map(lambda leaf: leaf[0], named([0])), capacity)


def insert(buffer, names, scores, is_candidate=None):
    is_candidate = np.ones(len(names), bool) if is_candidate is None else np.asarray(is_candidate)
    return _insert(buffer, named(names), np.asarray(scores, np.float32), is_candidate)


def update(buffer, places, scores, born=None):
    places = np.asarray(places, np.int32)
    born = np.asarray(buffer.born)[places] if born is None else np.asarray(born, np.int32)
    return _update(buffer, places, born, np.asarray(scores, np.float32), np.ones(len(places), bool))


@pytest.fixture
def half_full():
    return insert(tick(empty()), [10, 11, 12], [1.0, 3.0, 2.0])[0]


def assert_same(buffer, slow):
    assert buffer.is_filled.tolist() == [level is not None for level in slow.places]
    assert int(buffer.num_nonfinite) == slow.num_nonfinite
    buffer = jax.device_get(buffer)
    for i, level in enumerate(slow.places):
        if level is not None:
            assert int(buffer.tasks.level["name"][i]) == level["name"]
            assert float(buffer.score[i]) == pytest.approx(level["score"], rel=1e-5)
            for name in ("born", "last_seen", "num_plays"):
                assert int(getattr(buffer, name)[i]) == level[name]


@pytest.mark.parametrize("seed", range(6))
def test_a_history_equals_that_of_the_slow_buffer(seed):
    """Random scores with ties, some not finite, lives that have not ended, duplicates, and levels evicted meanwhile."""
    rng = np.random.default_rng(seed)
    buffer, slow = empty(), reference.Buffer(CAPACITY)
    for generation in range(12):
        buffer, slow.clock = tick(buffer), slow.clock + 1
        scores = rng.choice([-1.0, 0.0, 1.0, 2.5, 4.0, 7.0, np.nan, np.inf, -np.inf], 5).astype(np.float32)
        finished, places = rng.random(5) < 0.8, rng.integers(-1, CAPACITY, 5).astype(np.int32)
        born = np.asarray(buffer.born)[places] - (rng.random(5) < 0.2)
        buffer = _update(buffer, places, born.astype(np.int32), scores, finished)
        slow.update(places, born, scores, finished)
        names = np.arange(5) + 5 * generation
        buffer, _ = _insert(buffer, named(names), scores, finished & (places < 0))
        slow.insert(names, scores, finished & (places < 0))
        assert_same(buffer, slow)


def test_the_best_of_buffer_and_candidates_are_kept():
    rng = np.random.default_rng(0)
    old, new = rng.permutation(12)[:6], rng.permutation(12)[:6] + 0.5
    buffer, _ = insert(empty(), range(6), old)
    buffer, num_inserted = insert(buffer, range(6, 12), new)
    assert sorted(buffer.score.tolist()) == sorted([*old, *new])[-6:]
    assert int(num_inserted) == sum(score in new for score in buffer.score.tolist())


def test_empty_places_are_filled_before_a_level_is_replaced(half_full):
    buffer, num_inserted = insert(half_full, [13, 14], [-5.0, -6.0])
    assert int(num_inserted) == 2
    assert {10, 11, 12, 13, 14} <= set(buffer.tasks.level["name"].tolist())


def test_a_candidate_that_only_equals_the_lowest_does_not_replace_it():
    buffer, _ = insert(empty(2), [1, 2], [0.0, 1.0])
    buffer, num_inserted = insert(buffer, [3, 4], [0.0, -1.0])
    assert int(num_inserted) == 0
    assert set(buffer.tasks.level["name"].tolist()) == {1, 2}


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_keeps_a_candidate_out_and_is_counted(half_full, score):
    buffer, num_inserted = insert(half_full, [13, 14], [score, 0.5])
    assert int(num_inserted) == 1
    assert 13 not in np.asarray(buffer.tasks.level["name"])
    assert int(buffer.num_nonfinite) == 1


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_changes_no_score_but_the_level_was_seen(half_full, score):
    buffer = jax.device_get(update(tick(half_full), [1], [score]))
    np.testing.assert_array_equal(buffer.score, half_full.score)
    assert (int(buffer.last_seen[1]), int(buffer.num_plays[1]), int(buffer.num_nonfinite)) == (2, 2, 1)


def test_lives_on_the_same_level_give_it_their_mean(half_full):
    buffer = update(half_full, [1, 0, 1, 1], [2.0, 7.0, 4.0, np.nan])
    buffer = jax.device_get(buffer)
    np.testing.assert_allclose(buffer.score[:2], [7.0, 3.0])
    assert buffer.num_plays[:3].tolist() == [2, 4, 1]


def test_huge_scores_of_the_same_level_do_not_overflow(half_full):
    assert np.isfinite(np.asarray(update(half_full, [1, 1, 1], [3e38] * 3).score)[1])


def test_a_score_never_goes_to_the_level_that_has_taken_the_place():
    buffer, _ = insert(tick(empty(1)), [1], [0.0])
    born = buffer.born
    buffer, _ = insert(tick(buffer), [2], [5.0])
    after = update(buffer, [0], [99.0], born=born)
    assert_trees_close(after, buffer)


def test_negative_places_and_unfinished_lives_change_nothing(half_full):
    scores, places = np.array([9.0, np.nan], np.float32), np.array([-1, 0], np.int32)
    after = _update(half_full, places, np.asarray(half_full.born)[places], scores, np.array([True, False]))
    assert_trees_close(after, half_full)


@pytest.mark.parametrize("staleness_weight", [0.0, 0.3, 1.0])
def test_replay_weights_equal_the_slow_ones(half_full, staleness_weight):
    buffer = tick(update(tick(tick(half_full)), [0], [2.5]))
    by_score = reference.rank_weights(buffer.score, buffer.is_filled, 0.7)
    expected = reference.mixed_weights(by_score, 4, buffer.last_seen, buffer.is_filled, staleness_weight)
    weights = np.asarray(replay_weights(buffer, RankPrioritization(0.7), staleness_weight))
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    assert (weights[3:] == 0.0).all()


def test_where_nothing_is_stale_the_staleness_term_is_uniform(half_full):
    weights = replay_weights(half_full, RankPrioritization(), 1.0)
    np.testing.assert_allclose(weights, [1 / 3] * 3 + [0] * 3, rtol=1e-6)


WEIGHTS = np.array([0.5, 0.0, 0.3, 0.15, 0.05], np.float32)


@partial(jax.jit, static_argnums=(1, 2))
def many_draws(weights, num_places, num_draws=20_000):
    keys = jax.random.split(jax.random.key(5), num_draws)
    return jax.vmap(level_buffer.draw_places, in_axes=(0, None, None))(keys, weights, num_places)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_frequencies_of_draws_are_those_of_drawing_without_replacement(length):
    draws = [tuple(row) for row in np.asarray(many_draws(WEIGHTS, length)).tolist()]
    expected = reference.sequence_probabilities(WEIGHTS, length)
    possible = [sequence for sequence, probability in expected.items() if probability > 0]
    assert set(draws) <= set(possible)
    counts = [draws.count(sequence) for sequence in possible]
    assert (
        stats.chisquare(counts, [expected[sequence] * 20_000 for sequence in possible], sum_check=False).pvalue > 1e-3
    )


def test_more_draws_than_weights_are_minus_one():
    draws = np.asarray(many_draws(WEIGHTS, 5, 50))
    assert (draws[:, 4] == -1).all()
    assert (np.sort(draws[:, :4]) == [0, 2, 3, 4]).all()


def test_nothing_is_drawn_from_an_empty_buffer():
    weights = replay_weights(empty(), RankPrioritization(), 0.3)
    assert (np.asarray(many_draws(weights, 3, 1)) == -1).all()


def test_compiled_buffer_equals_the_eager_one_and_keeps_its_types(half_full):
    arguments = named([20, 21]), jnp.array([9.0, 0.0]), jnp.ones(2, bool)
    eager, compiled = (f(half_full, *arguments)[0] for f in (level_buffer.insert, jax.jit(level_buffer.insert)))
    assert_trees_close(eager, compiled)
    places, scores = jnp.array([0, 0], jnp.int32), jnp.array([1.0, 2.0])
    arguments = places, half_full.born[places], scores, jnp.ones(2, bool)
    eager, compiled = (f(half_full, *arguments) for f in (level_buffer.update, jax.jit(level_buffer.update)))
    assert_trees_close(eager, compiled)
    assert jax.eval_shape(level_buffer.update, half_full, *arguments) == jax.eval_shape(lambda: half_full)


def test_an_impossible_capacity_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        empty(0)
