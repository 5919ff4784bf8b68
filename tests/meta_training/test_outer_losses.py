"""Outer losses: their values by hand, and what carries no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core import returns
from metadisco.meta_training import outer_losses


def test_advantages_are_normalised():
    normal = returns.normalize(jnp.array([[1.0, 3.0], [5.0, 7.0]]))
    np.testing.assert_allclose(normal, (np.array([[1.0, 3.0], [5.0, 7.0]]) - 4.0) / 5.0**0.5, rtol=1e-6)


def test_equal_advantages_give_no_loss():
    assert outer_losses.policy_gradient_loss(jnp.full((2, 3), -1.0), jnp.zeros((2, 3))) == 0.0


def test_the_policy_gradient_loss_by_hand():
    log_prob, advantage = jnp.log(jnp.array([[0.5, 0.25]])), jnp.array([[2.0, 0.0]])
    np.testing.assert_allclose(outer_losses.policy_gradient_loss(log_prob, advantage), -np.log(2.0) / 2, rtol=1e-6)


def test_advantages_carry_no_gradient():
    log_prob, advantage = jnp.log(jnp.array([[0.5, 0.25]])), jnp.array([[2.0, 0.0]])
    assert not jnp.any(jax.grad(outer_losses.policy_gradient_loss, argnums=1)(log_prob, advantage))


@pytest.mark.parametrize(("which", "sign"), [(0, -1.0), (1, -1.0), (2, 1.0), (3, 1.0)])
def test_entropies_are_rewarded_and_squares_are_punished(which, sign):
    terms = [jnp.float32(2.0) if i == which else jnp.float32(0.0) for i in range(4)]
    assert outer_losses.regularization(*terms, weights=(0.5, 0.5, 0.5, 0.5)) == sign
