"""Action distributions: what an agent's `logits` (or, later, means and scales) say about actions."""

import jax
import jax.numpy as jnp


def sample_categorical(uniform: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw an action by inverting the distribution function: one uniform number for any number of actions.

    Args:
        uniform: [...] float32 in [0, 1).
        logits: [..., A] float32.

    Returns:
        action [...] int32 and its log probability [...] float32.
    """
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)
    action = jnp.zeros(uniform.shape, jnp.int32)
    total = jnp.zeros_like(uniform)
    # Unrolled: a cumulative sum over a handful of actions is slower than adding them up.
    for a in range(logits.shape[-1] - 1):
        total = total + probs[..., a]
        action = action + (uniform >= total)
    return action, log_prob_categorical(logits, action)


def log_prob_categorical(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Log probability of `action`. [...] float32."""
    log_probs = jax.nn.log_softmax(logits)
    chosen = jax.nn.one_hot(action, logits.shape[-1], dtype=log_probs.dtype)
    return jnp.sum(log_probs * chosen, axis=-1)


def entropy_categorical(logits: jax.Array) -> jax.Array:
    """Entropy in nats. [...] float32."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def kl_categorical(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """KL(p || q) from normalised log probabilities [..., A], in nats. [...] float32."""
    return jnp.sum(jnp.exp(log_probs) * (log_probs - reference_log_probs), axis=-1)
