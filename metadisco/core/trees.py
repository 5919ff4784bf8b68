"""Pytree helpers, and `stream`: run many loops of different lengths through a fixed number of slots.

A population of lives has lifetimes that differ by a factor of 25. Running all of them for the longest lifetime wastes
two thirds of the work; `stream` gives every slot that becomes free the next item, and has static shapes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")
Item = Any
Individual = Any


def index(tree: Tree, indices: jax.Array) -> Tree:
    """Take `indices` along the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def where(condition: jax.Array, on_true: Tree, on_false: Tree) -> Tree:
    """Select whole trees. `condition` broadcasts against the leading axes of every leaf."""

    def select(left: jax.Array, right: jax.Array) -> jax.Array:
        extra = jnp.ndim(left) - jnp.ndim(condition)
        return jnp.where(jnp.reshape(condition, condition.shape + (1,) * extra), left, right)

    return jax.tree.map(select, on_true, on_false)


def num_bytes(tree: Any) -> int:
    """Bytes of all leaves, which may be arrays or their shapes."""

    def size(leaf: Any) -> int:
        # A key is two words, whatever its dtype says.
        itemsize = 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
        return int(leaf.size * itemsize)

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))


def stack(trees: list[Tree]) -> Tree:
    """Stack trees of equal structure along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def stream(
    body: Callable[[Individual, Item], Item],
    active: Callable[[Item], jax.Array],
    individuals: Individual,
    items: Item,
    *,
    slots: int,
    order: jax.Array,
    take: Callable[[Individual, jax.Array], Individual] = index,
    in_axes: Any = 0,
) -> Item:
    """Advance every item until it is no longer active, `slots` of them at a time.

    The same as, for every i, `while active(items[i]): items[i] = body(individuals[i], items[i])`. The slots are
    vmapped and run in lock-step (a single one is not vmapped); a slot whose item has finished writes it back and takes
    the next one in `order`. Nothing is computed for finished items except while the last ones drain, so put the longest
    first.

    Args:
        body: one step of one item.
        active: whether one item still has work to do, [] bool.
        individuals: pytree with leading axis M, constant for each item.
        items: pytree with leading axis M.
        slots: how many items run side by side.
        order: [M] int32, a permutation: the order in which items are begun.
        take: how to take individuals by index; for trees with shared leaves.
        in_axes: vmap axes of an individual; for trees with shared leaves.

    Returns:
        Items, [M, ...], all of them finished.
    """
    num_items = order.shape[0]
    slots = min(slots, num_items)
    if slots == 1:
        return _one_by_one(body, active, individuals, items, order, take)
    run = jax.vmap(body, in_axes=(in_axes, 0))
    is_active = jax.vmap(active)

    def load(slot_index: jax.Array, items: Item) -> tuple[Individual, Item]:
        safe = jnp.minimum(slot_index, num_items - 1)
        return take(individuals, safe), index(items, safe)

    def refill(state: tuple) -> tuple:
        items, slot_index, slot_items, _, next_position = state
        done = (slot_index < num_items) & ~is_active(slot_items)
        # An index beyond the end is dropped by the scatter: only finished items are written.
        destination = jnp.where(done, slot_index, num_items)
        items = jax.tree.map(lambda all_, some: all_.at[destination].set(some, mode="drop"), items, slot_items)
        position = next_position + jnp.cumsum(done) - 1
        next_index = jnp.where(position < num_items, order[jnp.minimum(position, num_items - 1)], num_items)
        slot_index = jnp.where(done, next_index, slot_index)
        loaded_individuals, loaded = load(slot_index, items)
        slot_items = where(done, loaded, slot_items)
        return items, slot_index, slot_items, loaded_individuals, next_position + jnp.sum(done)

    def needs_refill(state: tuple) -> jax.Array:
        _, slot_index, slot_items, _, _ = state
        return jnp.any((slot_index < num_items) & ~is_active(slot_items))

    def advance(state: tuple) -> tuple:
        items, slot_index, slot_items, slot_individuals, next_position = state
        slot_items = run(slot_individuals, slot_items)
        state = (items, slot_index, slot_items, slot_individuals, next_position)
        return jax.lax.while_loop(needs_refill, refill, state)

    slot_index = order[:slots]
    slot_individuals, slot_items = load(slot_index, items)
    state = (items, slot_index, slot_items, slot_individuals, jnp.asarray(slots, jnp.int32))
    state = jax.lax.while_loop(needs_refill, refill, state)  # items that had nothing to do
    state = jax.lax.while_loop(lambda state: jnp.any(state[1] < num_items), advance, state)
    return state[0]


def _one_by_one(
    body: Callable[[Individual, Item], Item],
    active: Callable[[Item], jax.Array],
    individuals: Individual,
    items: Item,
    order: jax.Array,
    take: Callable[[Individual, jax.Array], Individual],
) -> Item:
    """`stream` with one slot: nothing is vmapped, so that what is conditional in the body stays conditional."""

    def finish(position: jax.Array, items: Item) -> Item:
        i = order[position]
        individual = take(individuals, i)
        item = jax.lax.while_loop(active, lambda item: body(individual, item), index(items, i))
        return jax.tree.map(lambda all_, one: all_.at[i].set(one), items, item)

    return jax.lax.fori_loop(0, order.shape[0], finish, items)
