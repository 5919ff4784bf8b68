"""Lifetimes and tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.tasks import FixedLifetime, LogUniformLifetime
from tests import small


def test_the_logarithm_of_a_lifetime_is_uniform():
    lifetimes = jax.vmap(LogUniformLifetime(10, 250).sample)(jax.random.split(jax.random.key(0), 4000))
    assert lifetimes.min() >= 10
    assert lifetimes.max() <= 250
    spread = (np.log(lifetimes) - np.log(10)) / np.log(25)
    assert stats.kstest(spread, "uniform").statistic < 0.03  # rounding to whole updates alone gives 0.02
    np.testing.assert_allclose(jnp.mean(lifetimes), 240 / np.log(25), rtol=0.05)


def test_a_fixed_lifetime_is_fixed():
    assert FixedLifetime(7).sample(jax.random.key(0)) == 7


def test_level_and_lifetime_are_independent_draws():
    tasks = jax.vmap(small.TASKS.sample)(jax.random.split(jax.random.key(0), 200))
    correlation = np.corrcoef(tasks.lifetime, tasks.level.max_steps)[0, 1]
    assert abs(correlation) < 0.2


@pytest.mark.parametrize(
    "make", [lambda: FixedLifetime(0), lambda: LogUniformLifetime(0, 5), lambda: LogUniformLifetime(6, 5)]
)
def test_impossible_lifetimes_are_refused(make):
    with pytest.raises(ValueError, match="Lifetime"):
        make()
