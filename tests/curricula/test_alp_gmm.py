"""ALP-GMM: learning progress, the mixture that is fitted to it, and the tasks that are drawn from that."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.stats import multivariate_normal

from metadisco.core import config
from metadisco.core.types import Task
from metadisco.curricula import gaussian_mixture
from metadisco.curricula.alp_gmm import ALPGMM
from metadisco.curricula.task_features import GridFeatures, LevelNumbers
from metadisco.envs.gridworld.features import level_features
from tests.support import small, traced
from tests.support.small import TASKS, assert_trees_close


@dataclass(frozen=True)
class Numbers:
    """Tasks that are numbers from 0 to 1."""

    def sample(self, key):
        return Task(jax.random.uniform(key), jnp.int32(3))


CURRICULUM = ALPGMM(
    Numbers(),
    LevelNumbers(),
    fit_every=20,
    window=40,
    num_remembered=60,
    min_components=1,
    max_components=4,
    num_iterations=15,
)
NUMBERS = {"random_probability": 0.9, "fit_every": 50, "regularization": 1.0}


@partial(jax.jit, static_argnums=(0, 3))
def propose(curriculum, key, state, num_tasks, values=None):
    return traced.with_values(curriculum, values or {}).propose(key, state, num_tasks)


@partial(jax.jit, static_argnums=0)
def observe(curriculum, key, state, proposal, scores, finished, values=None):
    return traced.with_values(curriculum, values or {}).observe(key, state, proposal, scores, finished)


begin = jax.jit(lambda curriculum: curriculum.init(jax.random.key(0)), static_argnums=0)
fit = jax.jit(
    partial(gaussian_mixture.fit, num_iterations=40, regularization=1e-3),
    static_argnames=("min_components", "max_components"),
)
NUM_TASKS = 10
ALL = np.ones(NUM_TASKS, bool)


@lru_cache
def keys_of(steps):
    """Two keys for each meta-step."""
    pairs = jax.jit(jax.vmap(lambda step: jax.random.split(jax.random.key(step))))(np.arange(steps))
    return [(pair[0], pair[1]) for pair in pairs]


def spend(curriculum, score, steps=12, values=None):
    """A run whose scores are a function of level and meta-step; the last state, proposals and metrics."""
    state, proposals, rows = begin(curriculum), [], []
    for step, (propose_key, observe_key) in enumerate(keys_of(steps)):
        _, proposal = propose(curriculum, propose_key, state, NUM_TASKS, values)
        scores = np.asarray(score(np.asarray(proposal.tasks.level), step), np.float32)
        state, metrics = observe(curriculum, observe_key, state, proposal, scores, ALL, values)
        proposals.append(proposal)
        rows.append(metrics)
    return state, proposals, rows


# The mixture

CLUSTERS = np.concatenate(
    [
        np.random.default_rng(0).normal(center, spread, (num, 2))
        for center, spread, num in (((0, 0), 0.3, 40), ((4, 1), 0.2, 60), ((-2, 5), 0.5, 30))
    ]
).astype(np.float32)
EVERY = np.ones(len(CLUSTERS), bool)


def slow_em(mixture, points, num_iterations, regularization):
    """Expectation maximization from a given mixture, in float64."""
    weight, mean, covariance = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(mixture))
    for _ in range(num_iterations):
        density = np.stack(
            [w * multivariate_normal(m, c).pdf(points) for w, m, c in zip(weight, mean, covariance)], axis=1
        )
        responsibility = density / density.sum(axis=1, keepdims=True)
        num = responsibility.sum(axis=0)
        weight, mean = num / len(points), responsibility.T @ points / num[:, None]
        for k, (r, m) in enumerate(zip(responsibility.T, mean)):
            covariance[k] = (points - m).T @ ((points - m) * r[:, None]) / num[k] + regularization * np.eye(2)
    return weight, mean, covariance


@partial(jax.jit, static_argnames="most")
def em(num_iterations, counts=EVERY, points=CLUSTERS, num=3, most=3):
    return gaussian_mixture.expectation_maximization(
        jax.random.key(1),
        jnp.asarray(points),
        counts,
        num,
        max_components=most,
        num_iterations=num_iterations,
        regularization=0.01,
    )


def test_expectation_maximization_is_that_of_a_slow_one():
    expected = slow_em(em(0), CLUSTERS.astype(np.float64), 6, 0.01)
    for found, each in zip(jax.tree.leaves(em(6)), expected, strict=True):
        np.testing.assert_allclose(found, each, rtol=2e-3, atol=2e-3)


def test_the_likelihood_is_that_of_scipy_and_grows():
    log_likelihood = jax.jit(gaussian_mixture.log_likelihood)
    likelihoods = [log_likelihood(em(num), CLUSTERS, EVERY) for num in (0, 3, 9)]
    mixture = em(3)
    density = sum(w * multivariate_normal(m, c).pdf(CLUSTERS) for w, m, c in zip(*jax.tree.leaves(mixture)))
    np.testing.assert_allclose(likelihoods[1], np.log(density).sum(), rtol=1e-4)
    assert likelihoods[0] <= likelihoods[1] + 1e-2
    assert likelihoods[1] <= likelihoods[2] + 1e-2


def test_points_that_do_not_count_change_nothing():
    spoiled = np.concatenate([CLUSTERS, np.full((5, 2), 77.0, np.float32)])
    counts = np.arange(len(spoiled)) < len(CLUSTERS)

    @jax.jit
    def maximize(mixture, points, mask):
        responsibility = jax.nn.softmax(gaussian_mixture.log_joint(mixture, points), axis=1)
        responsibility = jnp.where(mask[:, None], responsibility, 0.0)
        return gaussian_mixture.maximize(mixture, points, responsibility, regularization=0.01)

    expected, found = (maximize(em(0), *each) for each in ((CLUSTERS, EVERY), (spoiled, counts)))
    assert_trees_close(found, expected, rtol=1e-4, atol=1e-5)
    drawn = em(4, counts=counts, points=spoiled)
    assert (drawn.mean < 10).all()
    assert (drawn.covariance < 30).all()


def test_akaikes_criterion_finds_the_number_of_clusters():
    mixture = fit(jax.random.key(0), jnp.asarray(CLUSTERS), EVERY, min_components=1, max_components=6)
    centers = np.asarray(mixture.mean)[np.asarray(mixture.is_active)]
    for center in ((0, 0), (4, 1), (-2, 5)):
        assert np.abs(centers - center).max(axis=1).min() < 0.3
    one_cluster = fit(jax.random.key(0), jnp.asarray(CLUSTERS[:40]), EVERY[:40], min_components=1, max_components=6)
    assert one_cluster.is_active.sum() < mixture.is_active.sum() <= 5


def test_the_number_of_components_can_be_fixed():
    mixture = fit(jax.random.key(0), jnp.asarray(CLUSTERS), EVERY, min_components=2, max_components=2)
    assert mixture.is_active.sum() == 2


@pytest.mark.parametrize("num", [0, 1, 2])
def test_fewer_points_than_components_leave_the_rest_empty(num):
    mixture = em(3, counts=np.arange(len(CLUSTERS)) < num)
    assert mixture.is_active.sum() == num
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mixture))


def test_components_are_drawn_by_their_weights_and_points_by_their_covariances():
    covariance = jnp.array([[0.5, 0.2], [0.2, 0.3]])
    mixture = gaussian_mixture.GaussianMixture(
        weight=jnp.array([0.1, 0.6, 0.3, 0.0]),
        mean=jnp.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [99.0, 99.0]]),
        covariance=jnp.broadcast_to(covariance, (4, 2, 2)),
    )
    draw = jax.jit(jax.vmap(gaussian_mixture.sample, in_axes=(0, None, None)))
    keys = jax.random.split(jax.random.key(0), 6000)
    points = np.asarray(draw(keys, mixture, jnp.array([3.0, 1.0, 0.0, 5.0])))
    component = (points > 25).argmax(axis=1) + (points > 25).any(axis=1)
    counts = np.bincount(component, minlength=3)
    assert counts[2] == 0
    assert stats.chisquare(counts[:2], [4500, 1500]).pvalue > 1e-3
    np.testing.assert_allclose(np.cov(points[component == 0].T), covariance, atol=0.05)
    nobody = np.asarray(draw(keys, mixture, jnp.zeros(4)))  # then all that are not empty are as likely
    counts = np.bincount((nobody > 25).argmax(axis=1) + (nobody > 25).any(axis=1), minlength=3)
    assert stats.chisquare(counts).pvalue > 1e-3


# Learning progress


age = jax.jit(lambda curriculum, state: curriculum._age(state), static_argnums=0)


def test_progress_is_that_of_a_slow_search():
    curriculum = replace(CURRICULUM, num_remembered=25, window=25, fit_every=1000)
    state, remembered, rng = begin(curriculum), [], np.random.default_rng(0)
    for step in range(6):
        _, proposal = propose(curriculum, jax.random.key(step), state, NUM_TASKS)
        scores = rng.normal(size=NUM_TASKS).astype(np.float32)
        scores[rng.random(NUM_TASKS) < 0.2] = np.inf
        finished = rng.random(NUM_TASKS) < 0.7
        state, metrics = observe(curriculum, jax.random.key(9), state, proposal, scores, finished)
        told = [
            (float(level), score)
            for level, score, is_over in zip(np.asarray(proposal.tasks.level), scores, finished)
            if is_over and np.isfinite(score)
        ]
        progress = [abs(s - min(remembered, key=lambda e: abs(e[0] - x))[1]) for x, s in told if remembered]
        np.testing.assert_allclose(metrics["progress"], np.mean(progress) if progress else 0.0, rtol=1e-4)
        assert metrics["nonfinite_scores"] == np.sum(finished & ~np.isfinite(scores))
        remembered = (remembered + told)[-25:]
        kept = sorted(score for _, score in remembered)
        is_kept = np.asarray(age(curriculum, state)) < 25
        np.testing.assert_allclose(sorted(np.asarray(state.score)[is_kept].tolist()), kept, rtol=1e-6)


def test_of_equally_near_tasks_the_latest_counts():
    state = begin(CURRICULUM)
    _, proposal = propose(CURRICULUM, jax.random.key(0), state, NUM_TASKS)
    for score in (1.0, 5.0, 5.0):
        scores = np.full(NUM_TASKS, score, np.float32)
        state, metrics = observe(CURRICULUM, jax.random.key(0), state, proposal, scores, ALL)
    assert metrics["progress"] == 0.0


def test_progress_of_a_constant_score_is_0_and_nothing_is_preferred():
    state, proposals, rows = spend(CURRICULUM, lambda level, _: np.full(level.shape, 0.7))
    assert state.is_fitted
    assert all(row["progress"] == 0.0 for row in rows)
    assert (np.asarray(state.mixture.mean)[:, -1] == 0.0).all()
    levels = np.concatenate([proposal.tasks.level for proposal in proposals[4:]])
    assert np.histogram(levels, 4, (0, 1))[0].min() > 3


# Proposals


def where_it_changes(level, step):
    """The return on levels above 0.75 goes up and down; elsewhere it stays."""
    return np.where(level > 0.75, 1.0 + (-1.0) ** step, 0.5)


def share_of_progress(curriculum, **numbers):
    values = traced.values_of(curriculum, NUMBERS) | numbers
    _, proposals, _ = spend(curriculum, where_it_changes, steps=16, values=values)
    return np.mean([np.mean(np.asarray(proposal.tasks.level) > 0.75) for proposal in proposals[6:]])


def test_tasks_come_from_where_the_score_changes():
    assert share_of_progress(CURRICULUM, random_probability=0.0) > 0.6
    assert 0.1 < share_of_progress(CURRICULUM, random_probability=1.0) < 0.4
    assert share_of_progress(CURRICULUM, fit_every=10_000) < 0.4


def test_the_unit_of_the_score_does_not_matter():
    states = [
        spend(CURRICULUM, lambda level, step: scale * where_it_changes(level, step), steps=6)[0]  # noqa: B023
        for scale in (1.0, 1024.0)
    ]
    assert_trees_close(states[0].mixture, states[1].mixture, rtol=1e-4, atol=1e-5)
    assert states[0].is_fitted


def test_the_first_tasks_are_plain_draws():
    state = begin(CURRICULUM)
    _, proposal = propose(replace(CURRICULUM, random_probability=0.0), jax.random.key(0), state, 500)
    assert stats.kstest(np.asarray(proposal.tasks.level), "uniform").pvalue > 1e-3
    features = np.asarray(jax.jit(jax.vmap(LevelNumbers().describe))(proposal.tasks))
    np.testing.assert_allclose(proposal.notes, (features - state.center) / state.scale, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.std(proposal.notes, axis=0), [1.0, 0.0], atol=0.1)


def last_levels(curriculum, **numbers):
    def score(level, step):
        return where_it_changes(level, step) + 0.1 * np.sin(99.0 * level + step)

    values = traced.values_of(curriculum, NUMBERS) | numbers
    return spend(curriculum, score, steps=11, values=values)[1][-1].tasks.level


@pytest.fixture(scope="module")
def last_usually():
    return last_levels(CURRICULUM)


@pytest.mark.parametrize(
    "change",
    [
        {"num_candidates": 2},
        {"window": 20},
        {"num_remembered": 40},
        {"min_components": 4},
        {"max_components": 1},
        {"num_iterations": 1},
    ],
    ids=str,
)
def test_every_setting_matters(last_usually, change):
    assert not np.array_equal(last_usually, last_levels(replace(CURRICULUM, **change)))


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_matters(last_usually, name):
    assert not np.array_equal(last_usually, last_levels(CURRICULUM, **{name: NUMBERS[name]}))


def test_the_features_matter():
    @dataclass(frozen=True)
    class Nothing:
        def describe(self, task):
            return 0.0 * task.level[None]

    blind = replace(CURRICULUM, features=Nothing(), random_probability=0.0)
    assert share_of_progress(blind) < 0.4


def test_same_key_same_proposal_and_many_seeds_do_what_each_does_alone():
    state = spend(CURRICULUM, where_it_changes, steps=5)[0]
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(partial(CURRICULUM.propose, num_tasks=5), in_axes=(0, None)))(keys, state)[1]
    together = jax.device_get(together)
    for i in range(2):
        alone, again = (propose(CURRICULUM, keys[i], state, 5)[1] for _ in range(2))
        assert_trees_close(alone, again)
        assert_trees_close(jax.tree.map(lambda leaf: leaf[i], together), alone, rtol=1e-5, atol=1e-6)  # noqa: B023
    assert (together.tasks.level[0] != together.tasks.level[1]).any()


def test_huge_scores_leave_the_mixture_finite():
    state, *_ = spend(CURRICULUM, lambda level, step: 3e38 * np.sign(level - 0.5) * (-1.0) ** step, steps=6)
    assert state.is_fitted
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.mixture))


# Features


def test_features_of_grid_worlds_are_those_of_the_level_and_its_lifetime():
    tasks = small.initials(6).task
    found = jax.jit(jax.vmap(GridFeatures(small.LEVELS.env).describe))(tasks)
    level = jax.jit(jax.vmap(partial(level_features, small.LEVELS.env)))(tasks.level)
    distance = np.where(np.isfinite(level.reward_distance), level.reward_distance, 16)
    expected = [level.num_free, level.num_objects, np.log(level.max_steps), distance, np.log(tasks.lifetime)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-6)


def test_where_objects_move_their_distance_is_left_out():
    env = replace(small.LEVELS.env, planes=True, random_positions=True)
    (features,) = jax.jit(jax.vmap(GridFeatures(env).describe))(small.initials(1).task)
    assert features.shape == (4,)
    assert np.isfinite(features).all()


ON_GRIDS = ALPGMM(TASKS, GridFeatures(small.LEVELS.env), num_remembered=300, num_candidates=3)


def test_it_survives_json():
    assert config.from_data(config.to_data(ON_GRIDS)) == ON_GRIDS


@pytest.mark.slow
def test_it_fits_both_meta_optimizers():
    curriculum = ON_GRIDS
    for build in (small.trainer, partial(small.gradient_trainer, curriculum=curriculum)):
        run = small.altered(build(), curriculum=curriculum)
        key = jax.eval_shape(jax.random.key, 0)
        before = jax.eval_shape(run.init, key)
        after, metrics = jax.eval_shape(run.step, key, before)
        assert jax.tree.structure(after) == jax.tree.structure(before)
        assert {"progress", "mixture_components", "nonfinite_scores"} <= set(metrics)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_probability": 1.2}, "random_probability must be in 0..1"),
        ({"num_candidates": 0}, "num_candidates must be at least 1"),
        ({"fit_every": 0}, "fit_every must be at least 1"),
        ({"window": 61}, "window must be at most num_remembered = 60"),
        ({"min_components": 5}, "min_components <= max_components <= window"),
        ({"max_components": 41}, "min_components <= max_components <= window"),
        ({"regularization": 0.0}, "regularization must be above 0"),
        ({"features": GridFeatures(small.LEVELS.env)}, r"GridFeatures cannot describe these tasks.*LevelNumbers"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_what_cannot_work_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CURRICULUM, **change)


def test_more_tasks_than_are_remembered_are_refused():
    with pytest.raises(ValueError, match="num_remembered must be at least"):
        CURRICULUM.check(61)
