"""Values as distributions over bins: a squashed scale, expectations, and targets of two neighboring bins.

The scale is that of arXiv:1805.11593, so that returns of any size have bins.
"""

import chex
import jax
import jax.numpy as jnp

_SLOPE = 1e-3  # of the scale far from 0


def squash(value: jax.Array) -> jax.Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x."""
    # The root less 1 would lose digits near 0: the same, without the difference. So does the inverse.
    return value / (jnp.sqrt(jnp.abs(value) + 1.0) + 1.0) + _SLOPE * value


def unsquash(squashed: jax.Array) -> jax.Array:
    """The inverse of `squash`."""
    shifted = jnp.abs(squashed) + (1.0 + _SLOPE)
    root = 2.0 * shifted / (jnp.sqrt(1.0 + 4.0 * _SLOPE * shifted) + 1.0)
    return jnp.sign(squashed) * (root - 1.0) * (root + 1.0)


def expected_value(logits: jax.Array, largest: float) -> jax.Array:
    """Expectation over bins on the squashed scale, in units of returns.

    Args:
        logits: [..., bins], of bins spaced evenly from -`largest` to `largest`.
        largest: of the scale.

    Returns:
        [...] float32.
    """
    bins = jnp.linspace(-largest, largest, logits.shape[-1], dtype=jnp.float32)
    return unsquash(jnp.sum(jax.nn.softmax(logits) * bins, axis=-1))


def two_hot(value: jax.Array, num_bins: int, largest: float) -> jax.Array:
    """Probabilities of the two bins around a value, with the value as expectation; clipped to the scale.

    Args:
        value: [...] float32, in units of returns.
        num_bins: number of bins.
        largest: of the scale.

    Returns:
        [..., num_bins] float32.
    """
    chex.assert_type(value, jnp.float32)
    place = (jnp.clip(squash(value), -largest, largest) + largest) / (2.0 * largest) * (num_bins - 1)
    lower = jnp.minimum(jnp.floor(place), num_bins - 2)
    above = (place - lower)[..., None]
    lower = lower.astype(jnp.int32)
    return (1.0 - above) * jax.nn.one_hot(lower, num_bins) + above * jax.nn.one_hot(lower + 1, num_bins)
