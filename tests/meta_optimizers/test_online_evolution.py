"""Estimators of online evolution: on lives of one unroll they are whole-life evolution, on longer ones as published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.meta_optimizers.base import repeat
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.online_evolution import (
    GuidedES,
    NoiseReuseES,
    OnlineEvolution,
    PersistentES,
    TruncatedES,
    orthonormal_basis,
)
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import PairwiseDifference

ESTIMATORS = (TruncatedES(), PersistentES(), NoiseReuseES())
SETTINGS = {"sigma": Decay(0.2, rate=0.9), "learning_rate": Decay(0.05, rate=0.99)}
START = {"matrix": jnp.ones((2, 3)), "bias": jnp.zeros(2)}
NUM_LANES = 6


def _fitness(population, tasks):
    return jnp.sum(jnp.sin(population["matrix"]), axis=(1, 2)) - jnp.sum((population["bias"] - tasks[:, None]) ** 2, 1)


def _generations(optimizer, num_steps, goes_on=None):
    """Means after each generation."""
    tasks = jnp.linspace(-1.0, 1.0, NUM_LANES)

    @jax.jit
    def step(key, state):
        population, state = optimizer.ask(key, state, NUM_LANES)
        fitness = _fitness(population, repeat(tasks, 2)).reshape(2, -1)
        return optimizer.tell(key, state, population, fitness)[0]

    state, means = optimizer.init(jax.random.key(0), START, NUM_LANES), []
    for i in range(num_steps):
        if goes_on is not None and i:
            state = optimizer.go_on(state, goes_on)
        state = step(jax.random.key(i), state)
        means.append(optimizer.meta_params(state))
    return means


def test_with_one_unroll_per_life_all_are_whole_life_evolution():
    """With the same key also the noise is the same."""
    wanted = _generations(Evolution(shaping=PairwiseDifference(), **SETTINGS), 3)
    for estimator in ESTIMATORS:
        for got, mean in zip(_generations(OnlineEvolution(estimator, **SETTINGS), 3), wanted):
            for name in START:
                np.testing.assert_allclose(got[name], mean[name], rtol=1e-4, atol=1e-5)


def test_where_lives_go_on_the_estimators_differ():
    goes_on = jnp.arange(NUM_LANES) % 2 == 0
    means = [_generations(OnlineEvolution(each, **SETTINGS), 3, goes_on)[-1]["bias"] for each in ESTIMATORS]
    assert all(jnp.any(means[i] != means[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def _perturbations(estimator, goes_on, num_steps):
    optimizer = OnlineEvolution(estimator, sigma=Decay(0.5, rate=0.5))
    state, kept = optimizer.init(jax.random.key(0), jnp.ones(5), 2), []

    @jax.jit
    def step(key, state):
        population, state = optimizer.ask(key, state, 2)
        return optimizer.tell(key, state, population, jnp.array([[1.0, 2.0], [0.0, 0.5]]))[0]

    for i in range(num_steps):
        state = step(jax.random.key(i), optimizer.go_on(state, jnp.array(goes_on) & (i > 0)))
        kept.append(jax.tree.map(np.asarray, state.perturbation))
    return kept


def test_what_is_credited_is_the_noise_over_its_variance_of_this_life():
    """Lane 0 begins anew in each generation, lane 1 goes on; sigma is 0.5, 0.25, 0.125."""
    variance = np.array([0.5, 0.25, 0.125]) ** 2
    for estimator in ESTIMATORS:
        steps = _perturbations(estimator, [False, True], 3)
        fresh = [each.noise / v for each, v in zip(steps, variance)]
        for i, each in enumerate(steps):
            np.testing.assert_allclose(each.credit[0], fresh[i][0], rtol=1e-5)
        if isinstance(estimator, NoiseReuseES):
            assert all((each.noise[1] == steps[0].noise[1]).all() for each in steps)
            wanted = [fresh[0][1]] * 3
        else:
            assert (steps[0].noise[1] != steps[1].noise[1]).all()
            wanted = np.cumsum([each[1] for each in fresh], axis=0)
            wanted = wanted if isinstance(estimator, PersistentES) else [each[1] for each in fresh]
        np.testing.assert_allclose([each.credit[1] for each in steps], wanted, rtol=1e-4)


DECAY, TARGET, NUM_UNROLLS, LANES = 0.4, np.array([1.0, -0.5]), 3, 20_000
THETA = np.array([0.3, 0.2])


def _true_gradient():
    """Of minus the sum over unrolls of |x_t - target|^2 / 2, with x_t = 0.4 x_{t-1} + theta from 0.

    The loss is quadratic, so that smoothing with symmetric noise does not change its gradient, whether unrolls have
    the same noise or their own.
    """
    x, slope, gradient, truncated = np.zeros(2), 0.0, np.zeros(2), np.zeros(2)
    for _ in range(NUM_UNROLLS):
        x, slope = DECAY * x + THETA, DECAY * slope + 1.0
        gradient -= slope * (x - TARGET)
        truncated -= x - TARGET  # as if theta had an effect on this unroll only
    return gradient, truncated


def _estimates(estimator):
    """Estimates [NUM_UNROLLS, LANES, 2] of the unrolls of independent lives; theta stays."""
    optimizer = OnlineEvolution(estimator, sigma=Decay(0.3))
    ask = jax.jit(optimizer.ask, static_argnums=2)
    state = optimizer.init(jax.random.key(5), jnp.asarray(THETA, jnp.float32), LANES)
    x, estimates = np.zeros((2, LANES, 2)), []
    for i in range(NUM_UNROLLS):
        state = optimizer.go_on(state, jnp.full(LANES, i > 0))
        population, state = ask(jax.random.key(i), state, LANES)
        x = x[:1].repeat(2, axis=0) if estimator.rejoins else x
        x = DECAY * x + np.asarray(population).reshape(2, LANES, 2)
        outcome = -0.5 * np.sum((x - TARGET) ** 2, axis=-1)
        estimates.append(0.5 * (outcome[0] - outcome[1])[:, None] * np.asarray(state.perturbation.credit))
    return np.array(estimates)


def test_means_and_variances_of_estimates_are_as_published():
    """Persistent and noise-reuse ES are unbiased, truncated ES is not.

    The variance is that of an update from lanes that are anywhere in their lives: of one unroll, over all unrolls.
    """
    exact, truncated = _true_gradient()
    variance = {}
    for estimator in ESTIMATORS:
        estimates = _estimates(estimator)
        of_lives = estimates.sum(axis=0)
        mean, error = of_lives.mean(axis=0), of_lives.std(axis=0) / np.sqrt(LANES)
        is_truncated = isinstance(estimator, TruncatedES)
        assert (abs(mean - (truncated if is_truncated else exact)) < 4.0 * error).all(), estimator
        assert is_truncated == bool((abs(mean - exact) > 10.0 * error).all())
        variance[type(estimator)] = estimates.var(axis=1).sum()
    assert variance[TruncatedES] < 0.9 * variance[NoiseReuseES] < 0.8 * variance[PersistentES]


def test_the_update_is_the_mean_of_the_estimates_of_lanes():
    optimizer = OnlineEvolution(PersistentES())
    state = optimizer.init(jax.random.key(0), START, NUM_LANES)
    population, state = jax.jit(optimizer.ask, static_argnums=2)(jax.random.key(1), state, NUM_LANES)
    fitness = jax.random.normal(jax.random.key(2), (2, NUM_LANES))
    told, metrics = jax.jit(optimizer.tell)(jax.random.key(1), state, population, fitness)
    credit = np.asarray(state.perturbation.credit, float)
    gradient = np.mean(0.5 * np.asarray(fitness[0] - fitness[1])[:, None] * credit, axis=0)
    moment = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(told.opt_state[0].mu)])
    np.testing.assert_allclose(moment, -0.1 * gradient, rtol=1e-4, atol=1e-6)  # Adam's after one step
    np.testing.assert_allclose(metrics["meta_gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)


def _guided(alpha, directions, num_lanes=4000):
    optimizer = OnlineEvolution(guidance=GuidedES(alpha, num_directions=3), sigma=Decay(0.5))
    state = optimizer.init(jax.random.key(0), jnp.zeros(8), num_lanes)
    for each in directions:
        state = optimizer.guide(state, jnp.asarray(each, jnp.float32))
    return jax.jit(optimizer.ask, static_argnums=2)(jax.random.key(1), state, num_lanes)[1].perturbation


def test_guidance_that_ignores_the_span_is_evolution_and_so_is_none_that_has_any():
    plain = OnlineEvolution(sigma=Decay(0.5))
    state = plain.init(jax.random.key(0), jnp.zeros(8), 4000)
    wanted = jax.jit(plain.ask, static_argnums=2)(jax.random.key(1), state, 4000)[1].perturbation
    for got in (_guided(1.0, np.eye(8)[:2]), _guided(0.0, []), _guided(0.3, np.zeros((2, 8)))):
        np.testing.assert_allclose(got.noise, wanted.noise, rtol=1e-6)
        np.testing.assert_allclose(got.credit, wanted.credit, rtol=1e-6)


def test_guidance_alone_stays_in_the_span_of_the_last_gradients():
    """Three directions are kept, the first is forgotten; one is twice another, and they have rank 2."""
    a, b = np.arange(8.0), np.array([0, 1.0, 0, -2, 0, 0, 3, 0])
    noise = np.asarray(_guided(0.0, [np.ones(8), a, 1e-3 * b, 2.0 * a]).noise)
    basis = np.linalg.qr(np.stack([a, b]).T)[0]
    np.testing.assert_allclose(noise @ basis @ basis.T, noise, atol=1e-4)
    within = noise @ basis
    np.testing.assert_allclose(np.cov(within.T), np.eye(2) * 0.25 * 8 / 2, atol=0.1)


def test_guided_noise_has_the_covariance_of_the_paper():
    """alpha I + (1 - alpha) (P / r) U U^T, times sigma^2."""
    covariance = np.cov(np.asarray(_guided(0.4, np.eye(8)[:2], num_lanes=40_000).noise).T)
    wanted = 0.25 * np.diag(0.4 + np.array([0.6 * 4, 0.6 * 4, *np.zeros(6)]))
    np.testing.assert_allclose(covariance, wanted, atol=0.02)


def test_a_basis_spans_what_it_is_made_of():
    directions = jnp.array([[3.0, 0, 0, 0], [0, 0, 0, 0], [1.0, 1e-3, 0, 0], [0, 0, 5.0, 5.0]])
    basis, is_used = jax.jit(orthonormal_basis)(directions)
    assert int(is_used.sum()) == 2  # what 1e-3 adds is below what float32 can tell
    np.testing.assert_allclose(basis @ basis.T, np.diag(is_used.astype(float)), atol=1e-3)
    np.testing.assert_allclose(directions[3] @ basis.T @ basis, directions[3], atol=1e-3)


@pytest.mark.parametrize("settings", [{"alpha": 1.5}, {"alpha": -0.1}, {"num_directions": 0}])
def test_wrong_guidance_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        GuidedES(**settings)


def test_a_gradient_without_guidance_is_refused():
    optimizer = OnlineEvolution()
    with pytest.raises(ValueError, match="guidance is None"):
        optimizer.guide(optimizer.init(jax.random.key(0), START, 2), START)
