"""Scores and intervals against arithmetic by hand and known distributions."""

import numpy as np
import pytest

from metadisco.evaluation import stats
from metadisco.evaluation.stats import Interval, iqm, iqm_interval, ks_critical, ks_distance, mean_interval, normalize


def test_random_scores_zero_and_optimal_scores_one():
    random_return, optimal_return = np.array([0.5, -1.0]), np.array([1.5, 3.0])
    returns = np.array([[0.5, 1.5, 1.0], [-1.0, 3.0, -3.0]])
    np.testing.assert_allclose(normalize(returns, random_return, optimal_return), [[0, 1, 0.5], [0, 1, -0.5]])


def test_leading_axes_are_points_of_a_curve():
    returns = np.arange(24.0).reshape(4, 3, 2)
    scores = normalize(returns, np.zeros(3), np.full(3, 2.0))
    np.testing.assert_allclose(scores, returns / 2.0)


def test_a_task_without_a_scale_is_refused():
    with pytest.raises(ValueError, match=r"tasks \[1\]"):
        normalize(np.zeros((2, 1)), np.array([0.0, 1.0]), np.array([1.0, 1.0]))


@pytest.mark.parametrize("num_scores", [1, 3, 4, 7, 8, 41])
def test_iqm_is_the_mean_without_the_lowest_and_highest_quarter(num_scores):
    scores = np.random.default_rng(num_scores).normal(size=num_scores)
    dropped = num_scores // 4
    expected = np.mean(sorted(scores)[dropped : num_scores - dropped])
    np.testing.assert_allclose(iqm(scores), expected)


def test_iqm_is_over_all_tasks_and_seeds():
    scores = np.array([[0.0, 100.0], [1.0, 3.0]])  # sorted 0, 1, 3, 100
    np.testing.assert_allclose(iqm(scores), 2.0)
    np.testing.assert_allclose(iqm_interval(scores).point, 2.0)


@pytest.mark.parametrize("shape", [(40, 1), (40, 2), (4, 10)])
def test_interval_covers_the_truth_as_often_as_it_says(shape):
    """The IQM of a symmetric distribution estimates its mean; a bootstrap of few numbers is a little too narrow."""
    generator = np.random.default_rng(0)
    covered = []
    for repetition in range(200):
        scores = 0.3 + generator.normal(size=shape)
        interval = iqm_interval(scores, num_resamples=200, seed=repetition)
        covered.append(interval.low <= 0.3 <= interval.high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_confidence_widens_the_interval():
    scores = np.random.default_rng(0).normal(size=(20, 3))
    narrow, wide = (iqm_interval(scores, confidence=confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.point < narrow.high < wide.high


def test_seeds_are_resampled_within_their_task():
    """Tasks that differ a lot while seeds hardly do: with strata the interval is as narrow as the seeds are."""
    tasks = np.linspace(0.0, 1.0, 20)[:, None]
    scores = tasks + 0.01 * np.random.default_rng(0).normal(size=(20, 4))
    stratified = iqm_interval(scores)
    assert stratified.high - stratified.low < 0.01
    over_tasks = iqm_interval(scores.mean(axis=1, keepdims=True))
    assert over_tasks.high - over_tasks.low > 0.1


def test_the_same_scores_give_the_same_interval():
    scores = np.random.default_rng(0).normal(size=(6, 3))
    assert iqm_interval(scores) == iqm_interval(scores)
    assert iqm_interval(scores) != iqm_interval(scores, seed=1)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (5, 3)])
def test_equal_scores_give_a_point(shape):
    assert iqm_interval(np.ones(shape)) == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((0, 2)), np.array([[0.0, np.nan]]), np.array([[np.inf]])])
def test_scores_without_a_mean_are_refused(scores):
    with pytest.raises(ValueError, match="scores"):
        iqm_interval(scores)


def test_ks_distance_by_hand():
    assert ks_distance(np.array([1, 2, 3]), np.array([1, 2, 3])) == 0.0
    assert ks_distance(np.array([1, 2]), np.array([3])) == 1.0
    assert ks_distance(np.array([1.0, np.inf]), np.array([1.0, 1.0])) == 0.5


def test_ks_critical_is_exceeded_as_often_as_it_says():
    assert ks_critical(100, 100) == pytest.approx(1.358 * np.sqrt(0.02), rel=1e-3)
    rng = np.random.default_rng(1)
    distances = [ks_distance(rng.random(200), rng.random(300)) for _ in range(500)]
    assert np.mean(np.array(distances) > ks_critical(200, 300)) == pytest.approx(0.05, abs=0.02)


def test_mean_of_runs_has_students_interval():
    """Mean 2, deviation 1, three runs: 4.3027 / sqrt(3) to either side."""
    interval = mean_interval(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose((interval.point, interval.low, interval.high), (2.0, -0.4841, 4.4841), atol=1e-4)
    assert mean_interval(np.array([0.5])) == Interval(0.5, 0.5, 0.5)


def two_agents():
    """Six tasks with five seeds of each of two agents, who tie in places."""
    generator = np.random.default_rng(7)
    first, second = (np.round(generator.normal(middle, width, (6, 5)), 2) for middle, width in ((0.7, 0.3), (0.6, 0.4)))
    second[0, :2] = first[0, :2]
    return first, second


def test_statistics_are_those_of_rliable():
    """Numbers of rliable 1.2.0, which needs arch < 8, which does not import beside pandas 3: it is not installed."""
    first, second = two_agents()
    found = stats.aggregates(first)
    assert found["iqm"].point == pytest.approx(0.6075)
    assert found["optimality_gap"].point == pytest.approx(0.428)
    assert stats.probability_of_improvement(first, second) == pytest.approx(0.4633333333)
    shares = stats.profile(first, np.array([0.0, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(shares, [0.96666667, 0.7, 0.2, 0.03333333], rtol=1e-6)


def test_intervals_are_those_of_rliable_made_wider_for_few_seeds():
    """Its 95% percentile intervals of 20,000 and 3,000 resamples, with the ends moved away from the point."""
    first, second = two_agents()
    found, stretch = stats.aggregates(first, num_resamples=10_000), np.sqrt(5 / 4)
    theirs = {"iqm": (0.514375, 0.685), "optimality_gap": (0.34933333, 0.50966667)}
    for name, ends in theirs.items():
        point = found[name].point
        expected = [point + stretch * (end - point) for end in ends]
        np.testing.assert_allclose([found[name].low, found[name].high], expected, atol=0.01)
    ours, point = stats.improvement_interval(first, second), 0.46333333
    expected = [point + stretch * (end - point) for end in (0.31333333, 0.62)]
    np.testing.assert_allclose([ours.low, ours.high], expected, atol=0.02)
    shares = stats.profile_interval(first, np.array([0.5, 0.75]), num_resamples=5000)
    expected = shares[0] + stretch * (np.array([[0.53333333, 0.06666667], [0.83333333, 0.33333333]]) - shares[0])
    np.testing.assert_allclose(shares[1:], expected, atol=0.04)  # steps of 1/30


def test_iqm_of_the_table_has_the_interval_of_iqm_interval():
    first, _ = two_agents()
    assert stats.aggregates(first)["iqm"] == iqm_interval(first)


def test_probability_of_improvement_counts_pairs_of_runs():
    first, second = two_agents()
    pairs = [(x > y) + (x == y) / 2 for task in range(6) for x in first[task] for y in second[task]]
    assert stats.probability_of_improvement(first, second) == pytest.approx(np.mean(pairs))
    assert stats.probability_of_improvement(second, first) == pytest.approx(1.0 - np.mean(pairs))
    assert stats.improvement_interval(first, first - 10.0) == Interval(1.0, 1.0, 1.0)


def test_with_one_seed_tasks_are_resampled_together():
    """Agents who differ by the same little on tasks that differ a lot: one is better on every task."""
    scores = np.random.default_rng(0).normal(size=(20, 1))
    assert stats.improvement_interval(scores + 0.01, scores) == Interval(1.0, 1.0, 1.0)


def test_agents_with_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        stats.improvement_interval(np.zeros((2, 3)), np.zeros((2, 2)))


@pytest.mark.parametrize(("num_levels", "expected"), [(4, 0.0), (10, 0.0), (20, 0.5), (15, (0.0 + 0.5 * 1.0) / 1.5)])
def test_cvar_is_the_mean_of_the_worst_tenth_of_the_levels(num_levels, expected):
    levels = np.random.default_rng(0).permutation(num_levels).astype(float)  # 0, 1, 2, ... in some order
    scores = levels[:, None] + np.array([-1.0, 1.0])  # seeds cancel: levels count, not runs
    assert stats.cvar(scores) == pytest.approx(expected)


def test_optimality_gap_does_not_reward_scores_above_one():
    assert stats.optimality_gap(np.array([[0.5, 3.0], [1.0, 0.75]])) == pytest.approx((0.5 + 0.25) / 4)


def test_interval_of_the_cvar_covers_that_of_the_true_scores():
    """A percentile interval does so in 2 of 3 cases only."""
    generator = np.random.default_rng(0)
    levels = generator.beta(4.0, 1.2, size=(40, 1))
    covered = []
    for _ in range(60):
        interval = stats.aggregates(levels + 0.2 * generator.normal(size=(40, 4)), num_resamples=200)["cvar"]
        covered.append(interval.low <= stats.cvar(levels) <= interval.high)
    assert np.mean(covered) > 0.75
