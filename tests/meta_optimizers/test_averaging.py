"""The running mean of a search: as NumPy has it, beside a search that is unchanged, and nearer to the optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.meta_optimizers.averaging import Averaged
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import CenteredRanks

GOAL = jnp.linspace(-1.0, 1.0, 6)
SEARCH = Evolution(sigma=Decay(0.1), learning_rate=Decay(0.2), shaping=CenteredRanks())
NUM_TASKS = 4


def run(optimizer, num_steps, seed=0, noise=0.0):
    """Meta-parameters after each generation on a bowl about `GOAL`, [num_steps, 6]."""

    def generation(state, step):
        key = jax.random.fold_in(jax.random.key(seed), step)
        population, asked = optimizer.ask(key, state, NUM_TASKS)
        fitness = -jnp.sum((population - GOAL) ** 2, axis=1).reshape(2, NUM_TASKS)
        fitness += noise * jax.random.normal(jax.random.fold_in(key, 1), fitness.shape)
        state, _ = optimizer.tell(key, asked, population, fitness)
        return state, optimizer.meta_params(state)

    first = optimizer.init(jax.random.key(0), jnp.zeros(6), NUM_TASKS)
    return np.asarray(jax.jit(lambda state: jax.lax.scan(generation, state, jnp.arange(num_steps))[1])(first))


def test_the_mean_is_that_of_all_at_first_and_forgets_later():
    found, last = run(Averaged(SEARCH, rate=0.25), 9), run(SEARCH, 9)
    wanted = [last[:n].mean(axis=0) for n in (1, 2, 3, 4)]
    for each in last[4:]:
        wanted.append(0.75 * wanted[-1] + 0.25 * each)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_rate_of_1_is_the_search_itself():
    np.testing.assert_allclose(run(Averaged(SEARCH, rate=1.0), 5), run(SEARCH, 5), rtol=1e-5, atol=1e-6)


def test_where_fitness_is_noisy_the_mean_ends_nearer_to_the_optimum():
    errors = [
        [np.linalg.norm(run(optimizer, 200, seed, noise=0.5)[-1] - GOAL) for seed in range(4)]
        for optimizer in (Averaged(SEARCH), SEARCH)
    ]
    averaged, plain = np.mean(errors, axis=1)
    assert averaged < 0.7 * plain


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match=r"Averaged.rate must be in \(0, 1\]"):
        Averaged(SEARCH, rate=rate)
