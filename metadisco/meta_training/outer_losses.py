"""Outer losses: differentiable measures of an updated agent (arXiv:2310.02782).

Every loss is a function of arrays. Docstrings say which arguments are stop-gradiented.
"""

import chex
import jax
import jax.numpy as jnp

from metadisco.core import returns


def policy_gradient_loss(log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
    """Mean over steps and workers of -log pi(a|s) times the normalised advantage, which is constant.

    Args:
        log_prob: [T, B] float32, of the actions taken, under the policy that took them.
        advantage: [T, B] float32, not yet normalised.

    Returns:
        [] float32.
    """
    chex.assert_rank([log_prob, advantage], 2)
    chex.assert_equal_shape([log_prob, advantage])
    return -jnp.mean(log_prob * jax.lax.stop_gradient(returns.normalize(advantage)))


def regularization(
    policy_entropy: jax.Array,
    prediction_entropy: jax.Array,
    squared_pi_hat: jax.Array,
    squared_y_hat: jax.Array,
    *,
    weights: tuple[float, float, float, float],
) -> jax.Array:
    """-beta0 H(pi) - beta1 H(y) + beta2 mean pi_hat^2 + beta3 mean |y_hat|^2.

    Args:
        policy_entropy: [] H(pi), nats.
        prediction_entropy: [] H(y), nats.
        squared_pi_hat: [] mean pi_hat^2.
        squared_y_hat: [] mean |y_hat|^2.
        weights: beta0 to beta3.

    Returns:
        [] float32.
    """
    chex.assert_rank([policy_entropy, prediction_entropy, squared_pi_hat, squared_y_hat], 0)
    beta0, beta1, beta2, beta3 = weights
    return -beta0 * policy_entropy - beta1 * prediction_entropy + beta2 * squared_pi_hat + beta3 * squared_y_hat
