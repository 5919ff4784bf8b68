"""A level buffer: the tasks with the highest scores so far, as pure functions of arrays.

It has C places. A level enters with the score of the first life that was spent on it, so a place is either empty or
holds a level that was played; empty places are never drawn. A life may be long, and its level may be replaced
meanwhile. So a level is identified by its place *and* the clock at which it entered, and none gets another's score.
"""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from metadisco.core import trees
from metadisco.core.types import Key, Task
from metadisco.curricula.prioritization import Prioritization, normalize


@struct.dataclass
class LevelBuffer:
    """C places for levels. What stands in an empty place means nothing."""

    tasks: Task  # leading axis C
    score: jax.Array  # [C] float32, of the latest life that ended on the level; always finite, 0 in an empty place
    last_seen: jax.Array  # [C] int32, clock when a life last ended on the level
    born: jax.Array  # [C] int32, clock when the level entered; -1 in an empty place
    num_plays: jax.Array  # [C] int32, lives that ended on the level
    is_filled: jax.Array  # [C] bool
    clock: jax.Array  # [] int32, observations so far
    num_nonfinite: jax.Array  # [] int32, scores so far that were not finite and kept out

    @property
    def capacity(self) -> int:
        """C."""
        return self.score.shape[0]


def empty(example: Task, capacity: int) -> LevelBuffer:
    """Make a buffer without levels.

    Args:
        example: a task, or its shapes (`jax.eval_shape`).
        capacity: C, at least 1.
    """
    if capacity < 1:
        raise ValueError(f"the capacity of a level buffer must be at least 1, got {capacity}")
    integers = jnp.zeros(capacity, jnp.int32)
    return LevelBuffer(
        tasks=jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), example),
        score=jnp.zeros(capacity, jnp.float32),
        last_seen=integers,
        born=integers - 1,
        num_plays=integers,
        is_filled=jnp.zeros(capacity, bool),
        clock=jnp.zeros((), jnp.int32),
        num_nonfinite=jnp.zeros((), jnp.int32),
    )


def begin(tasks: Task, score: ArrayLike, num_plays: ArrayLike, capacity: int) -> LevelBuffer:
    """Make a buffer of levels that were played before its clock began: they enter at clock 0, in the given order.

    Args:
        tasks: leading axis n, at most C.
        score: [n] float32, finite.
        num_plays: [n] int32.
        capacity: C.
    """
    score, num_plays = jnp.asarray(score, jnp.float32), jnp.asarray(num_plays, jnp.int32)
    chex.assert_equal_shape([score, num_plays])
    num_levels = score.shape[0]
    if num_levels > capacity:
        raise ValueError(f"a buffer of capacity {capacity} cannot hold {num_levels} levels; give the best of them")
    buffer = empty(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tasks), capacity)
    return replace(
        buffer,
        tasks=jax.tree.map(lambda all_, some: all_.at[:num_levels].set(some), buffer.tasks, tasks),
        score=buffer.score.at[:num_levels].set(score),
        born=buffer.born.at[:num_levels].set(0),
        num_plays=buffer.num_plays.at[:num_levels].set(num_plays),
        is_filled=buffer.is_filled.at[:num_levels].set(True),
    )


def replay_weights(buffer: LevelBuffer, prioritization: Prioritization, staleness_weight: float) -> jax.Array:
    """Mix priority with staleness (arXiv:2010.03934, equation 4): (1 - c) w_score + c w_stale.

    w_stale is proportional to the time since a life last ended on the level, and uniform where that is 0 for all.

    Args:
        buffer: C places.
        prioritization: gives w_score.
        staleness_weight: c, in [0, 1].

    Returns:
        [C] float32, summing to 1; exactly 0 in empty places. All 0 if the buffer is empty.
    """
    by_score = prioritization.weights(buffer.score, buffer.is_filled)
    by_staleness = normalize((buffer.clock - buffer.last_seen).astype(jnp.float32), buffer.is_filled)
    return (1.0 - staleness_weight) * by_score + staleness_weight * by_staleness


def draw_places(key: Key, weights: jax.Array, num_places: int) -> jax.Array:
    """Draw different places, one after the other in proportion to the weights of those that are left.

    Without replacement: where one level has most of the weight, the lives that begin together would all be spent on it.

    Args:
        key: randomness.
        weights: [C] float32, not negative.
        num_places: how many, at most C.

    Returns:
        [num_places] int32, in the order of the draws; -1 where no place with a positive weight is left.
    """
    chex.assert_rank(weights, 1)
    # The Gumbel trick: the largest log w + g is a draw in proportion to w, the second the next draw, and so on.
    disturbed = jnp.log(weights) + jax.random.gumbel(key, weights.shape)
    value, places = jax.lax.top_k(disturbed, num_places)
    return jnp.where(value > -jnp.inf, places, -1).astype(jnp.int32)


def tick(buffer: LevelBuffer) -> LevelBuffer:
    """Advance the clock; once per observation."""
    return replace(buffer, clock=buffer.clock + 1)


def update(
    buffer: LevelBuffer, places: jax.Array, born: jax.Array, scores: jax.Array, is_due: jax.Array
) -> LevelBuffer:
    """Update the scores of levels of the buffer by the lives that ended on them.

    Several lives on one level count as one play each, and the level gets the mean of their finite scores. A life on a
    level that was replaced since is ignored. A score that is not finite is counted and changes no score; the level
    counts as seen, or it would stay the stalest.

    Args:
        buffer: C places.
        places: [N] int32, where each level stands; negative for none.
        born: [N] int32, clock when it entered.
        scores: [N] float32.
        is_due: [N] bool, whether the life has ended.
    """
    chex.assert_equal_shape([places, born, scores, is_due])
    safe = jnp.maximum(places, 0)
    is_there = is_due & (places >= 0) & buffer.is_filled[safe] & (buffer.born[safe] == born)
    is_finite = jnp.isfinite(scores)
    counts = is_there & is_finite
    # All lives on one level compute the same mean, so the order of the writes does not matter.
    together = (places[:, None] == places) & counts
    share = 1.0 / jnp.maximum(jnp.sum(together, axis=1, keepdims=True), 1)
    mean = jnp.sum(jnp.where(together, scores * share, 0.0), axis=1)

    # Beyond the end: dropped by the scatter.
    seen, scored = (jnp.where(condition, places, buffer.capacity) for condition in (is_there, counts))
    return replace(
        buffer,
        score=buffer.score.at[scored].set(mean, mode="drop"),
        last_seen=buffer.last_seen.at[seen].set(buffer.clock, mode="drop"),
        num_plays=buffer.num_plays.at[seen].add(1, mode="drop"),
        num_nonfinite=buffer.num_nonfinite + jnp.sum(is_there & ~is_finite, dtype=jnp.int32),
    )


def insert(
    buffer: LevelBuffer, tasks: Task, scores: jax.Array, is_candidate: jax.Array
) -> tuple[LevelBuffer, jax.Array]:
    """Keep the C best of the buffer's levels and the candidates; candidates take empty places first.

    A candidate with a score that is not finite is left out and counted. One that only equals the lowest level does not
    replace it. Of equal candidates the earlier one comes first.

    Args:
        buffer: C places.
        tasks: leading axis N, at most C; levels that the buffer does not hold.
        scores: [N] float32.
        is_candidate: [N] bool, which of them to consider.

    Returns:
        The buffer, and how many candidates entered, [] int32.
    """
    chex.assert_equal_shape([scores, is_candidate])
    is_finite = jnp.isfinite(scores)
    ranked = jnp.where(is_candidate & is_finite, scores, -jnp.inf)
    candidate_score, candidates = jax.lax.top_k(ranked, scores.shape[0])
    negative_score, lowest = jax.lax.top_k(jnp.where(buffer.is_filled, -buffer.score, jnp.inf), scores.shape[0])
    # The best candidate meets the lowest level, the second best the second lowest: those that win are the union's best.
    enters = candidate_score > -negative_score
    places = jnp.where(enters, lowest, buffer.capacity)  # beyond the end: dropped
    newcomers = trees.index(tasks, candidates)
    buffer = replace(
        buffer,
        tasks=jax.tree.map(lambda all_, new: all_.at[places].set(new, mode="drop"), buffer.tasks, newcomers),
        score=buffer.score.at[places].set(candidate_score, mode="drop"),
        last_seen=buffer.last_seen.at[places].set(buffer.clock, mode="drop"),
        born=buffer.born.at[places].set(buffer.clock, mode="drop"),
        num_plays=buffer.num_plays.at[places].set(1, mode="drop"),
        is_filled=buffer.is_filled.at[places].set(True, mode="drop"),
        num_nonfinite=buffer.num_nonfinite + jnp.sum(is_candidate & ~is_finite, dtype=jnp.int32),
    )
    return buffer, jnp.sum(enters, dtype=jnp.int32)
