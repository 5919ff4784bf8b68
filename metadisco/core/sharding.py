"""Shard a population over devices.

Lives are independent of each other, so every device runs its own loop over its shard, without communication. Lives are
assigned round-robin, longest first, so that all devices have about the same work. The devices may be those of several
processes: the mesh spans them all.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from metadisco.core import lowrank, trees
from metadisco.core.types import Population

Items = Any  # pytree with leading axis M
Results = Any  # pytree with leading axis M
Sums = Any  # pytree

AXIS = "population"
SHARED = PartitionSpec()
SPREAD = PartitionSpec(AXIS)


def num_usable_cores() -> int:
    """CPU cores that this process may run on, which is also the best number of devices on a CPU."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_slots(wanted: int | None, num_lives: int, *, on_cpu: int, evenness: float = 1.0) -> int:
    """How many of its lives a device runs side by side.

    Few stay in a CPU's cache. An accelerator is filled by as many as let the longest life and the sum of all lives end
    together: with more, some would idle at the end; with fewer, the rest would take longer.

    Args:
        wanted: what the user has set; None to choose.
        num_lives: of one device.
        on_cpu: what suits a CPU.
        evenness: mean lifetime over the longest.
    """
    if wanted is not None:
        return wanted
    return on_cpu if jax.default_backend() == "cpu" else max(1, math.ceil(evenness * num_lives))


def population_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices along one axis; all devices of all processes by default."""
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_even(num_tasks: int, replicas: int, *, name: str = "num_tasks") -> None:
    """Refuse a population that leaves accelerators, or other hosts, idle.

    A single CPU is exempt: it has a device per core, whatever their number, and shards are padded, which for 64 pairs
    of lives on 6 cores costs 3 %.

    Args:
        num_tasks: N.
        replicas: R; the population has N R lives.
        name: Of the setting N.

    Raises:
        ValueError: Where the devices do not divide N R; it names the nearest N for which they do.
    """
    num_devices = jax.device_count()
    if num_tasks * replicas % num_devices == 0 or (jax.process_count() == 1 and jax.default_backend() == "cpu"):
        return
    unit = num_devices // math.gcd(num_devices, replicas)
    below, above = num_tasks // unit * unit, -(-num_tasks // unit) * unit
    nearest = f"{below} or {above}" if below else str(above)
    raise ValueError(
        f"{name} = {num_tasks} makes {num_tasks * replicas} lives, which {num_devices} devices cannot share evenly: "
        f"the nearest that they can is {name} = {nearest}. Or run on fewer devices."
    )


def deal(num_items: int, num_devices: int) -> tuple[np.ndarray, np.ndarray]:
    """Assign items round-robin: device d gets items d, d + D, d + 2D, ...

    Args:
        num_items: M.
        num_devices: D.

    Returns:
        Items by device, one shard after the other, M rounded up to a multiple of D; items from M on are padding. And
        the positions of items 0 to M - 1 in that, [M].
    """
    rounds = -(-num_items // num_devices)
    dealt = np.arange(rounds * num_devices).reshape(rounds, num_devices).T.reshape(-1)
    return dealt, np.argsort(dealt)[:num_items]


def on_each_device(run: Callable[..., Results], mesh: Mesh, in_specs: tuple) -> Callable[..., Results]:
    """Apply `run` per shard.

    Args:
        run: a function of pytrees; what it returns has the leading axis of the shard.
        mesh: from `population_mesh`.
        in_specs: `SPREAD`, `SHARED` or a pytree of them for each argument.

    Returns:
        The same function of whole populations.
    """
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # op by op, a device cannot loop on its own
        return run
    # vma checks fail on scans whose carry begins as a constant.
    return jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=SPREAD, check_vma=False)


def scatter(
    run: Callable[[Population, Items], Results],
    population: Population,
    items: Items,
    *,
    work: jax.Array,
    mesh: Mesh,
) -> Results:
    """Shard a population by the work of its items, and gather the results in their order.

    Args:
        run: applied per shard: (population [M / D], items [M / D]) to results [M / D]. Where D does not divide M,
            shards are padded with copies of the shortest item.
        population: meta-parameters, leading axis M.
        items: leading axis M.
        work: [M] how long each item takes, in any unit.
        mesh: from `population_mesh`.

    Returns:
        Results, leading axis M, in the order of the items.
    """
    num_items = work.shape[0]
    order = jnp.argsort(-work)
    dealt, places = deal(num_items, mesh.devices.size)
    held = order[np.minimum(dealt, num_items - 1)]
    results = on_each_device(run, mesh, (_specs(population), SPREAD))(
        lowrank.take(population, held), jax.tree.map(lambda leaf: leaf[held], items)
    )
    restore = jnp.asarray(places)[jnp.argsort(order)]
    return jax.tree.map(lambda leaf: leaf[restore], results)


def _specs(population: Population) -> Any:
    """Sharded leaves, except for replicated bases of low-rank ones."""
    return lowrank.label(population, base=SHARED, other=SPREAD)


def run_sharded(run: Callable[[Items], Results], items: Items, *, mesh: Mesh) -> Results:
    """Apply a function per shard, without resharding: device d has the d-th part of the items.

    Args:
        run: applied per shard, [M / D] to results [M / D].
        items: leading axis M. Shards are padded with copies of the last one.
        mesh: from `population_mesh`.

    Returns:
        Results, leading axis M.
    """
    num_items = jax.tree.leaves(items)[0].shape[0]
    size = -(-num_items // mesh.devices.size) * mesh.devices.size
    results = on_each_device(run, mesh, (SPREAD,))(_padded(items, size))
    return jax.tree.map(lambda leaf: leaf[:num_items], results)


def _padded(items: Items, size: int) -> Items:
    """Items padded with copies of the last one to the leading axis `size`."""
    num_items = jax.tree.leaves(items)[0].shape[0]
    if size == num_items:
        return items
    held = np.minimum(np.arange(size), num_items - 1)
    return jax.tree.map(lambda leaf: leaf[held], items)


def sharded_sum(
    run: Callable[[Any, Any], tuple[Sums, Results]], shared: Any, items: Items, *, slots: int, mesh: Mesh
) -> tuple[Sums, Results]:
    """Map over sharded items with shared parameters, sum part of the results and keep the rest per item.

    There is no resharding: device d has the d-th part of the items. The sum over devices is the only communication.

    Args:
        run: (shared, one item) to what is summed, and what is kept.
        shared: the same for all items.
        items: leading axis M, all of about the same work. Shards are padded with copies of the last one.
        slots: items that run side by side on one device; at most as many as it has.
        mesh: from `population_mesh`.

    Returns:
        The sums over items, and what is kept of each, leading axis M.
    """
    run = jax.jit(run, inline=True)  # traced once for both of its uses
    num_items = jax.tree.leaves(items)[0].shape[0]
    slots = min(slots, -(-num_items // mesh.devices.size))
    size = -(-num_items // (slots * mesh.devices.size)) * slots * mesh.devices.size

    def group(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, slots, *leaf.shape[1:])

    def one(shared: Any, item: Any, is_real: jax.Array) -> tuple[Sums, Results]:
        summand, result = run(shared, item)
        return trees.where(is_real, summand, jax.tree.map(jnp.zeros_like, summand)), result

    def alone(shared: Any, item: Any, is_real: jax.Array) -> tuple[Sums, Results]:
        """A group of one, without the axis that vmap would keep in every product."""
        results = one(shared, *jax.tree.map(lambda leaf: leaf[0], (item, is_real)))
        return jax.tree.map(lambda leaf: leaf[None], results)

    run_group = alone if slots == 1 else jax.vmap(one, in_axes=(None, 0, 0))

    def share(shared: Any, items: Items, is_real: jax.Array) -> tuple[Sums, Results]:
        def add(total: Sums, group: tuple) -> tuple[Sums, Results]:
            summands, results = run_group(shared, *group)
            return jax.tree.map(lambda a, b: a + jnp.sum(b, axis=0), total, summands), results

        groups = jax.tree.map(group, (items, is_real))
        shapes = jax.eval_shape(run, shared, jax.tree.map(lambda leaf: leaf[0], items))[0]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, results = jax.lax.scan(add, zeros, groups)
        return jax.tree.map(lambda leaf: leaf[None], total), jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results
        )

    totals, results = on_each_device(share, mesh, (SHARED, SPREAD, SPREAD))(
        shared, _padded(items, size), np.arange(size) < num_items
    )
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), totals), jax.tree.map(
        lambda leaf: leaf[:num_items], results
    )
