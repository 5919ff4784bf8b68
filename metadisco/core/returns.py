"""Returns and advantages of one trajectory (`[T]`; vmap over workers), and their scale."""

import chex
import jax
import jax.numpy as jnp


def generalized_advantages(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    *,
    gamma: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Generalised advantage estimates (arXiv:1506.02438, eq. 16).

    A_t = delta_t + gamma lambda A_{t+1} within an episode, and delta_t = r_t + gamma V(s'_t) - V(s_t), where V(s'_t)
    counts as 0 after termination but not after truncation. The sum over later steps stops at either.

    Args:
        reward: [T] float32.
        terminated: [T] bool.
        truncated: [T] bool.
        value: [T] float32, V(s_t).
        next_value: [T] float32, V of the observation that step t led to, before any reset.
        gamma: discount in [0, 1].
        gae_lambda: trade-off between bias (0) and variance (1).

    Returns:
        [T] float32 advantages; add `value` for the lambda-returns.
    """
    chex.assert_rank([reward, terminated, truncated, value, next_value], 1)
    chex.assert_equal_shape([reward, terminated, truncated, value, next_value])
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    carries_on = gamma * gae_lambda * (1.0 - (terminated | truncated).astype(jnp.float32))

    def step(advantage: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta_t, carries_on_t = now
        advantage = delta_t + carries_on_t * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(step, jnp.zeros_like(delta[0]), (delta, carries_on), reverse=True)
    return advantages


def normalize(advantage: jax.Array) -> jax.Array:
    """Zero mean and unit standard deviation over all axes; 0 where all are equal."""
    variance = jnp.var(advantage)
    # The root has no derivative at 0, and a derivative passes through the branch that is not selected, too.
    deviation = jnp.where(variance > 0.0, jnp.sqrt(jnp.where(variance > 0.0, variance, 1.0)), 0.0)
    return (advantage - jnp.mean(advantage)) / (deviation + 1e-8)


def retrace(
    reward: jax.Array,
    discount: jax.Array,
    trace: jax.Array,
    q_of_action: jax.Array,
    next_value: jax.Array,
) -> jax.Array:
    """Returns of actions corrected for another policy having acted (arXiv:1606.02647).

    G_t = r_t + d_t (V(s'_t) + c_t+1 (G_t+1 - Q(s_t+1, a_t+1))); the trace c stops at the end of an episode and of the
    rollout.

    Args:
        reward: [T] float32.
        discount: [T] float32, gamma; 0 at termination.
        trace: [T] float32, c_t+1; lambda min(1, pi(a_t+1|s_t+1) / mu(a_t+1|s_t+1)), or 0 where step t was the last.
        q_of_action: [T] float32, Q(s_t, a_t).
        next_value: [T] float32, V of the observation that step t led to, before any reset.

    Returns:
        [T] float32.
    """
    chex.assert_rank([reward, discount, trace, q_of_action, next_value], 1)
    chex.assert_equal_shape([reward, discount, trace, q_of_action, next_value])

    def step(later: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward_t, discount_t, trace_t, q_t, next_value_t = now
        returned = reward_t + discount_t * (next_value_t + trace_t * later)
        return returned - q_t, returned

    each = (reward, discount, trace, q_of_action, next_value)
    return jax.lax.scan(step, jnp.zeros_like(reward[0]), each, reverse=True)[1]
