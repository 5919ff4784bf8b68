"""A weight matrix that differs from a shared one by a product of two thin ones (arXiv:2511.16652).

A population whose members are W + s a b^T multiplies by W in one large matrix product for all members:
x (W + s a b^T) = x W + s (x a) b^T. `LowRank` is a pytree leaf type for such a weight; whatever multiplies by a
weight that may be one calls `project`. In a population, `base` has no leading axis and `left`, `right` and `scale`
have: `in_axes` and `take` know.
"""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class LowRank:
    """W + scale * left @ right^T."""

    base: jax.Array  # [inputs, outputs]
    left: jax.Array  # [inputs, rank]
    right: jax.Array  # [outputs, rank]
    scale: jax.Array  # [] float32


def _is_lowrank(leaf: Any) -> bool:
    return isinstance(leaf, LowRank)


def project(weight: jax.Array | LowRank, x: jax.Array) -> jax.Array:
    """Multiply x by a weight.

    Args:
        weight: [inputs, outputs], full or low-rank.
        x: [..., inputs] float32.

    Returns:
        [..., outputs] float32.
    """
    if isinstance(weight, LowRank):
        return x @ weight.base + weight.scale * (x @ weight.left) @ weight.right.T
    return x @ weight


def dense(weight: jax.Array | LowRank) -> jax.Array:
    """The full matrix. [inputs, outputs]."""
    if isinstance(weight, LowRank):
        return weight.base + weight.scale * weight.left @ weight.right.T
    return weight


def is_shared(population: Any) -> bool:
    """Whether the members of a population share a base."""
    return any(_is_lowrank(leaf) for leaf in jax.tree.leaves(population, is_leaf=_is_lowrank))


def label(population: Any, *, base: Any, other: Any) -> Any:
    """A tree like a population, with `base` in place of every shared base and `other` in place of all other arrays."""

    def mark(leaf: Any) -> Any:
        return LowRank(base, other, other, other) if _is_lowrank(leaf) else other

    return jax.tree.map(mark, population, is_leaf=_is_lowrank)


def in_axes(population: Any) -> Any:
    """`jax.vmap` axes of a population: 0 everywhere but at shared bases."""
    return label(population, base=None, other=0)


def take(population: Any, indices: jax.Array) -> Any:
    """Members of a population by index; shared bases stay as they are."""

    def pick(leaf: Any) -> Any:
        if _is_lowrank(leaf):
            return LowRank(leaf.base, leaf.left[indices], leaf.right[indices], leaf.scale[indices])
        return leaf[indices]

    return jax.tree.map(pick, population, is_leaf=_is_lowrank)
