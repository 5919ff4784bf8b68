"""Advantages against their definition, and the difference between termination and truncation."""

import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core.returns import generalized_advantages, retrace


def _slow_advantages(reward, terminated, truncated, value, next_value, gamma, gae_lambda):
    """The sum of the definition, step by step to the end of the episode."""
    num_steps = len(reward)
    advantages = np.zeros(num_steps)
    for t in range(num_steps):
        weight = 1.0
        for k in range(t, num_steps):
            bootstrap = 0.0 if terminated[k] else gamma * next_value[k]
            advantages[t] += weight * (reward[k] + bootstrap - value[k])
            if terminated[k] or truncated[k]:
                break
            weight *= gamma * gae_lambda
    return advantages


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_advantages_equal_the_sum_of_their_definition(gamma, gae_lambda):
    rng = np.random.default_rng(0)
    reward, value, next_value = rng.normal(size=(3, 12)).astype(np.float32)
    terminated = rng.random(12) < 0.2
    truncated = ~terminated & (rng.random(12) < 0.2)
    fast = generalized_advantages(
        *map(jnp.asarray, (reward, terminated, truncated, value, next_value)), gamma=gamma, gae_lambda=gae_lambda
    )
    slow = _slow_advantages(reward, terminated, truncated, value, next_value, gamma, gae_lambda)
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-5)


def test_truncation_bootstraps_and_termination_does_not():
    ones, no, yes = jnp.ones(1), jnp.zeros(1, bool), jnp.ones(1, bool)
    kwargs = {"gamma": 0.5, "gae_lambda": 1.0}
    cut = generalized_advantages(ones, no, yes, jnp.zeros(1), 4 * ones, **kwargs)
    ended = generalized_advantages(ones, yes, no, jnp.zeros(1), 4 * ones, **kwargs)
    assert cut.item() == 1.0 + 0.5 * 4.0
    assert ended.item() == 1.0


def test_lambda_one_gives_the_discounted_return_minus_the_value():
    reward = jnp.array([1.0, 2.0, 3.0])
    terminated = jnp.array([False, False, True])
    value = jnp.array([0.5, 0.5, 0.5])
    advantage = generalized_advantages(
        reward, terminated, jnp.zeros(3, bool), value, jnp.roll(value, -1), gamma=0.5, gae_lambda=1.0
    )
    np.testing.assert_allclose(advantage[0], 1.0 + 0.5 * 2.0 + 0.25 * 3.0 - 0.5)


def test_retrace_is_the_sum_of_its_definition():
    rng = np.random.default_rng(1)
    reward, q, next_value = rng.normal(size=(3, 9))
    terminated, truncated = rng.random(9) < 0.2, rng.random(9) < 0.2
    discount = 0.9 * (1.0 - terminated)
    trace = np.where(terminated | truncated | (np.arange(9) == 8), 0.0, 0.8 * rng.random(9))
    slow = np.zeros(9)
    for t in range(9):  # Q + sum of traced errors of one step
        weight, slow[t] = 1.0, q[t]
        for k in range(t, 9):
            slow[t] += weight * (reward[k] + discount[k] * next_value[k] - q[k])
            weight *= discount[k] * trace[k]
    fast = retrace(*map(jnp.float32, (reward, discount, trace, q, next_value)))
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-5)
