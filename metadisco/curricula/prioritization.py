"""How scores of levels become weights of replaying them (arXiv:2010.03934, section 3).

A prioritization turns the scores of a level buffer into weights that sum to 1. A place that holds no level has weight
exactly 0, so a level that was never played is never replayed. Where nothing is filled all weights are 0.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from metadisco.core.jax_defaults import own_defaults


class Prioritization(Protocol):
    """A preference among levels."""

    def weights(self, score: jax.Array, is_filled: jax.Array) -> jax.Array:
        """Weights [C] float32 of places with scores [C] float32, 0 where not filled [C] bool."""


@own_defaults
@dataclass(frozen=True)
class RankPrioritization:
    """h(rank) = (1 / rank)^(1 / temperature), rank 1 for the highest score.

    Attributes:
        temperature: how flat; towards 0 only the best level is replayed.

    Note:
        Levels with equal scores share the weights of their ranks equally. In published code the order in memory
        decides, and of many levels with regret 0 always the same few would be replayed.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = RankPrioritization(1.0).weights(jnp.array([0.0, 5.0, 9.0]), jnp.array([True, True, False]))
        >>> [round(float(weight), 3) for weight in weights]
        [0.333, 0.667, 0.0]
    """

    temperature: float = 0.3

    def __post_init__(self) -> None:
        _check_temperature(self)

    def weights(self, score: jax.Array, is_filled: jax.Array) -> jax.Array:
        """Weights by rank. [C] float32."""
        order = jnp.argsort(jnp.where(is_filled, -score, jnp.inf))  # filled ones first, best first
        ordered = score[order]
        rank = 1.0 + jnp.arange(score.size, dtype=jnp.float32)
        by_rank = jnp.where(is_filled[order], jnp.exp(-jnp.log(rank) / self.temperature), 0.0)
        is_tied = (ordered[1:] == ordered[:-1]) & (is_filled[order][1:] == is_filled[order][:-1])
        group = jnp.cumsum(jnp.concatenate([jnp.zeros(1, jnp.int32), (~is_tied).astype(jnp.int32)]))
        sums = jax.ops.segment_sum(by_rank, group, score.size, indices_are_sorted=True)
        sizes = jax.ops.segment_sum(jnp.ones_like(by_rank), group, score.size, indices_are_sorted=True)
        shared = sums[group] / sizes[group]
        return normalize(jnp.zeros_like(by_rank).at[order].set(shared), is_filled)


@own_defaults
@dataclass(frozen=True)
class ProportionalPrioritization:
    """score^(1 / temperature).

    Attributes:
        temperature: how flat; towards 0 only the best level is replayed.

    Note:
        A negative score counts as 0. Where no score is positive, all filled places have the same weight.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature(self)

    def weights(self, score: jax.Array, is_filled: jax.Array) -> jax.Array:
        """Weights by score. [C] float32."""
        positive = jnp.where(is_filled, jnp.maximum(score, 0.0), 0.0)
        # Relative to the largest, so that the power neither overflows nor vanishes everywhere.
        share = positive / jnp.maximum(jnp.max(positive), jnp.finfo(jnp.float32).tiny)
        powers = jnp.where(share > 0.0, jnp.exp(jnp.log(share) / self.temperature), 0.0)
        return normalize(powers, is_filled)


@own_defaults
@dataclass(frozen=True)
class TopKPrioritization:
    """The k best levels equally, the others never. Among equal scores the lower place counts as better.

    Attributes:
        k: how many.
    """

    k: int = 64

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"TopKPrioritization.k must be at least 1, got {self.k}")

    def weights(self, score: jax.Array, is_filled: jax.Array) -> jax.Array:
        """Weights by being among the best. [C] float32."""
        _, best = jax.lax.top_k(jnp.where(is_filled, score, -jnp.inf), self.k)
        return normalize(jnp.zeros(score.size).at[best].set(1.0), is_filled)


def normalize(values: jax.Array, is_filled: jax.Array) -> jax.Array:
    """Scale non-negative values to sum to 1 over filled places, uniform where all are 0; 0 elsewhere. [C] float32."""
    values = jnp.where(is_filled, values, 0.0)
    values = jnp.where(jnp.sum(values) > 0.0, values, is_filled.astype(jnp.float32))
    return values / jnp.maximum(jnp.sum(values), jnp.finfo(jnp.float32).tiny)


def _check_temperature(prioritization: RankPrioritization | ProportionalPrioritization) -> None:
    if not 0.0 < prioritization.temperature < float("inf"):
        raise ValueError(
            f"{type(prioritization).__name__}.temperature must be positive and finite, got "
            f"{prioritization.temperature}; use a small one such as 0.01 to replay only the best levels, a large one "
            "such as 100 to replay all alike"
        )
