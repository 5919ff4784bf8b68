"""Fitness shaping: from fitness to the utility that an evolution strategy is given.

Fitness and utility are [2, N]: rows eta + sigma e and eta - sigma e on the same N tasks; higher is better. A non-finite
fitness ranks worst; a pair ties where both are non-finite.
"""

from dataclasses import dataclass
from typing import Protocol

import chex
import jax
import jax.numpy as jnp


class Shaping(Protocol):
    """From fitness to utility."""

    def __call__(self, fitness: jax.Array) -> jax.Array:
        """[2, N] float32, not necessarily finite, to [2, N] finite float32."""


@dataclass(frozen=True)
class PairwiseSign:
    """Within each pair the better gets 1, the other 0, and a tie 1/2 each (arXiv:2402.05828)."""

    def __call__(self, fitness: jax.Array) -> jax.Array:
        """See the class."""
        return _split(jnp.sign(_difference(fitness)))


@dataclass(frozen=True)
class PairwiseDifference:
    """Within each pair +-d / 2 for a difference d: the only shaping by which the gradient is that of the fitness."""

    def __call__(self, fitness: jax.Array) -> jax.Array:
        """See the class. A pair with one non-finite member counts as the largest finite gap."""
        difference = _finite_difference(fitness)
        return jnp.stack([difference, -difference]) / 2.0


@dataclass(frozen=True)
class PairwiseRoot:
    """Within each pair +-sqrt|d| / 2 for a difference d: larger differences count more, outliers do not dominate."""

    def __call__(self, fitness: jax.Array) -> jax.Array:
        """See the class. A pair with one non-finite member counts as the largest finite gap."""
        difference = _finite_difference(fitness)
        root = jnp.sign(difference) * jnp.sqrt(jnp.abs(difference))
        return jnp.stack([root, -root]) / 2.0


@dataclass(frozen=True)
class CenteredRanks:
    """Ranks over the whole population, scaled to [-1/2, 1/2] (arXiv:1703.03864); ties share their mean rank."""

    def __call__(self, fitness: jax.Array) -> jax.Array:
        """See the class."""
        chex.assert_rank(fitness, 2)
        flat = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf).reshape(-1)
        ordered = jnp.sort(flat)
        below = jnp.searchsorted(ordered, flat, side="left")
        up_to = jnp.searchsorted(ordered, flat, side="right")
        rank = (below + up_to - 1) / 2.0
        return (rank / max(flat.shape[0] - 1, 1) - 0.5).reshape(fitness.shape)


def _difference(fitness: jax.Array) -> jax.Array:
    """First minus second of each pair; +-inf where only one is finite, 0 where neither is. [N]."""
    chex.assert_rank(fitness, 2)
    plus, minus = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf)
    return jnp.where(plus == minus, 0.0, plus - minus)


def _finite_difference(fitness: jax.Array) -> jax.Array:
    """`_difference`, with the largest finite gap in place of an infinite one. [N]."""
    difference = _difference(fitness)
    finite_gap = jnp.max(jnp.where(jnp.isfinite(difference), jnp.abs(difference), 0.0))
    return jnp.clip(difference, -finite_gap, finite_gap)


def _split(preference: jax.Array) -> jax.Array:
    return jnp.stack([0.5 + 0.5 * preference, 0.5 - 0.5 * preference])
