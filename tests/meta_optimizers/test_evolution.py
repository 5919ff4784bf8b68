"""Evolution strategies: pairs that share everything but the sign of the noise, and updates that go uphill."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core import lowrank
from metadisco.meta_optimizers.base import repeat
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import CenteredRanks, PairwiseRoot, PairwiseSign

START = {"matrix": np.zeros((3, 4), np.float32), "bias": np.zeros(4, np.float32)}
GOAL = {
    "matrix": np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(3, 4),
    "bias": np.array([0.5, -0.5, 1.0, 0.0], np.float32),
}
FAST = {"sigma": Decay(0.1), "learning_rate": Decay(0.05), "shaping": CenteredRanks()}
ESTIMATORS = [Evolution(**FAST), LowRankEvolution(**FAST), LowRankEvolution(rank=2, **FAST)]


def _full(population):
    is_lowrank = lambda leaf: isinstance(leaf, lowrank.LowRank)  # noqa: E731
    axes = lowrank.in_axes(population)
    return jax.vmap(lambda member: jax.tree.map(lowrank.dense, member, is_leaf=is_lowrank), in_axes=(axes,))(population)


@partial(jax.jit, static_argnums=(0, 3))
def _asked(optimizer, key, start, num_tasks):
    """The first candidates, as full matrices."""
    state = optimizer.init(jax.random.key(0), start, num_tasks)
    return _full(optimizer.ask(key, state, num_tasks)[0])


def _generation(optimizer, key, state, lives, fitness_fn, **options):
    """One generation over the lives [N]: the new state, the fitness [R, N] and the metrics."""
    population, asked = optimizer.ask(key, state, len(lives))
    fitness = fitness_fn(population, repeat(lives, optimizer.replicas)).reshape(optimizer.replicas, -1)
    state, metrics = optimizer.tell(key, asked, population, fitness, **options)
    return state, fitness, metrics


def _bowl(population, lives):
    """Fitness is minus the squared distance to the goal."""
    squares = jax.tree.map(lambda x, goal: jnp.sum((x - goal) ** 2, axis=range(1, x.ndim)), _full(population), GOAL)
    return -sum(jax.tree.leaves(squares))


def _distance(meta_params):
    return sum(jnp.sum((meta_params[name] - GOAL[name]) ** 2) for name in GOAL)


@lru_cache
def _run(optimizer, fitness_fn, *, num_steps, num_tasks=16):
    state = jax.jit(lambda: optimizer.init(jax.random.key(0), jax.tree.map(jnp.asarray, START), num_tasks))()
    step = jax.jit(lambda key, state: _generation(optimizer, key, state, jnp.arange(num_tasks), fitness_fn))
    for i in range(num_steps):
        state, fitness, metrics = step(jax.random.key(i), state)
    return state, fitness, metrics


@pytest.mark.parametrize("optimizer", ESTIMATORS, ids=repr)
def test_a_pair_mirrors_its_noise(optimizer):
    start = jax.tree.map(lambda leaf: leaf + np.float32(2.0), START)
    for name, members in jax.device_get(_asked(optimizer, jax.random.key(1), start, 5)).items():
        np.testing.assert_allclose(
            members[:5] + members[5:], np.broadcast_to(2 * start[name], members[:5].shape), atol=1e-5
        )
        assert np.all(np.std(members[:5], axis=0) > 0)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_low_rank_perturbation_has_the_standard_deviation_that_was_asked_for(rank):
    optimizer = LowRankEvolution(rank=rank, sigma=Decay(0.2))
    seen = jax.device_get(_asked(optimizer, jax.random.key(0), START, 4000))
    np.testing.assert_allclose(np.std(seen["matrix"]), 0.2, rtol=0.05)
    np.testing.assert_allclose(np.std(seen["bias"]), 0.2, rtol=0.05)


def test_the_low_rank_estimate_is_the_gradient_on_average():
    """For a linear fitness the expected update direction is its slope.

    SGD would move along it, Adam's state shows it.
    """
    slope = GOAL["matrix"]

    def fitness_fn(population, lives):
        return jnp.sum(_full(population)["matrix"] * slope, axis=(1, 2))

    class Identity:
        def __call__(self, fitness):
            return fitness

    optimizer = LowRankEvolution(shaping=Identity())
    state, _, _ = _run(optimizer, fitness_fn, num_steps=1, num_tasks=20_000)
    gradient = -np.asarray(state.opt_state[0].mu["matrix"]) / 0.1  # Adam's first moment after one step is 0.1 g
    np.testing.assert_allclose(gradient, slope, atol=0.1)


def _partly_broken(population, lives):
    fitness = _bowl(population, lives)
    broken = jnp.arange(fitness.shape[0]) % 4 == 1
    return jnp.where(broken, jnp.array([jnp.nan, jnp.inf])[lives % 2], fitness)


@pytest.mark.parametrize("shaping", [PairwiseSign(), PairwiseRoot(), CenteredRanks()])
@pytest.mark.parametrize("optimizer_class", [Evolution, LowRankEvolution])
def test_non_finite_fitness_is_counted_and_never_reaches_the_update(optimizer_class, shaping):
    optimizer = optimizer_class(shaping=shaping)
    state, _, metrics = _run(optimizer, _partly_broken, num_steps=3)
    assert metrics["finite_fraction"] == 0.75
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(optimizer.meta_params(state)))
    assert np.isfinite(metrics["fitness"])


@pytest.mark.parametrize("optimizer_class", [Evolution, LowRankEvolution])
@pytest.mark.parametrize(
    "change",
    [
        {"sigma": Decay(0.3)},
        {"sigma": Decay(0.1, rate=0.5)},
        {"sigma": Decay(0.1, rate=0.5, floor=0.09)},
        {"learning_rate": Decay(0.02)},
        {"learning_rate": Decay(0.01, rate=0.5)},
        {"shaping": PairwiseRoot()},
        {"shaping": CenteredRanks()},
    ],
)
def test_every_setting_changes_the_result(optimizer_class, change):
    settings = {"sigma": Decay(0.1), "learning_rate": Decay(0.01), "shaping": PairwiseSign()}
    results = []
    for optimizer in (optimizer_class(**settings), optimizer_class(**(settings | change))):
        state, _, _ = _run(optimizer, _bowl, num_steps=4)
        results.append(np.asarray(optimizer.meta_params(state)["matrix"]))
    assert np.any(results[0] != results[1])


def test_sigma_follows_its_schedule():
    optimizer = Evolution(sigma=Decay(0.4, rate=0.5))
    sigmas = []
    state = jax.jit(lambda: optimizer.init(jax.random.key(0), jax.tree.map(jnp.asarray, START), 4))()
    step = jax.jit(lambda key, state: _generation(optimizer, key, state, jnp.arange(4), _bowl)[0])
    for i in range(4):
        sigmas.append(float(state.strategy.std))
        state = step(jax.random.key(i), state)
    np.testing.assert_allclose(sigmas, [0.4, 0.2, 0.1, 0.05], rtol=1e-6)


def test_pairwise_sign_gives_one_zero_and_halves():
    fitness = jnp.array([[1.0, 0.0, 2.0, jnp.nan, jnp.nan], [0.0, 3.0, 2.0, -5.0, jnp.inf]])
    assert jax.jit(PairwiseSign())(fitness).tolist() == [[1, 0, 0.5, 0, 0.5], [0, 1, 0.5, 1, 0.5]]


def test_pairwise_root_compresses_differences_and_bounds_broken_ones():
    fitness = jnp.array([[4.0, 0.0, jnp.nan], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(jax.jit(PairwiseRoot())(fitness), [[1.0, -0.5, -1.0], [-1.0, 0.5, 1.0]])


def test_centered_ranks_equal_a_sort_and_ties_share():
    fitness = jnp.array([[3.0, 1.0, jnp.nan], [2.0, 1.0, 9.0]])
    np.testing.assert_allclose(
        jax.jit(CenteredRanks())(fitness), np.array([[4, 1.5, 0], [3, 1.5, 5]]) / 5 - 0.5, rtol=1e-6
    )


def test_an_unknown_strategy_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'Open_ES'"):
        Evolution(strategy="OpenES")


def test_a_strategy_that_needs_more_than_a_mean_is_refused():
    with pytest.raises(ValueError, match="RandomSearch"):
        Evolution(strategy="RandomSearch")


@pytest.mark.parametrize(
    "settings", [{"start": 0.0}, {"start": -1.0}, {"start": 1.0, "rate": 0.0}, {"start": 1.0, "floor": 2.0}]
)
def test_wrong_schedules_are_refused(settings):
    with pytest.raises(ValueError, match="Decay"):
        Decay(**settings)


def test_decay_stops_at_its_floor():
    decay = Decay(1.0, rate=0.5, floor=0.2)
    np.testing.assert_allclose(jax.jit(jax.vmap(decay))(np.arange(5, dtype=np.int32)), [1.0, 0.5, 0.25, 0.2, 0.2])


@pytest.mark.parametrize("optimizer", ESTIMATORS, ids=repr)
def test_a_task_that_is_not_trained_on_says_nothing(optimizer):
    """With one pair that counts, the update is that of this pair alone, whatever the other pairs did."""
    train_mask = np.array([True, False, False, False])

    @jax.jit
    def with_others(value):
        def fitness_fn(population, lives):
            fitness = _bowl(population, lives)
            return jnp.where(np.tile(train_mask, 2), fitness, fitness * value)

        start = jax.tree.map(jnp.asarray, START)
        state, key = optimizer.init(jax.random.key(0), start, 4), jax.random.key(1)
        state, _, _ = _generation(optimizer, key, state, jnp.arange(4), fitness_fn, train_mask=jnp.asarray(train_mask))
        return optimizer.meta_params(state)

    sign = {"shaping": PairwiseSign()}  # ranks over the population see every pair
    optimizer = type(optimizer)(**{name: getattr(optimizer, name) for name in ("sigma", "learning_rate")} | sign)
    left, right = with_others(1.0), with_others(-3.0)
    assert np.any(np.asarray(left["matrix"]) != START["matrix"])
    np.testing.assert_array_equal(left["matrix"], right["matrix"])
