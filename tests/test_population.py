"""Spreading a population over devices changes nothing but who computes what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.lowrank import LowRank
from metadisco.population import deal, population_mesh, share_out, where_they_are


def _double(population, items):
    return {"sum": population["w"] * items, "item": items}


@pytest.mark.parametrize("num_items", [1, 4, 5])
def test_results_come_back_in_order_however_many_items_there_are(num_items):
    assert jax.device_count() == 2
    items = jnp.arange(num_items, dtype=jnp.float32)
    population = {"w": jnp.arange(num_items, dtype=jnp.float32) + 10.0}
    work = jnp.asarray(np.random.default_rng(0).integers(1, 9, num_items))
    results = share_out(_double, population, items, work=work, mesh=population_mesh())
    np.testing.assert_array_equal(results["item"], items)
    np.testing.assert_array_equal(results["sum"], items * population["w"])


@pytest.mark.parametrize("num_items", [1, 4, 5])
def test_each_device_has_a_stretch_of_those_that_stay_where_they_are(num_items):
    def with_its_device(items):
        return items, jnp.full(items.shape, jax.lax.axis_index("population"))

    items, devices = where_they_are(with_its_device, jnp.arange(num_items), mesh=population_mesh())
    np.testing.assert_array_equal(items, np.arange(num_items))
    np.testing.assert_array_equal(devices, np.arange(num_items) // ((num_items + 1) // 2))


def test_a_shared_base_is_not_dealt():
    def first_rows(population, items):
        w = population["w"]
        return jnp.broadcast_to(w.base[0, 0], items.shape) + w.scale * items

    members = LowRank(jnp.full((3, 2), 7.0), jnp.ones((5, 3, 1)), jnp.ones((5, 2, 1)), jnp.arange(5.0))
    results = share_out(first_rows, {"w": members}, jnp.arange(5.0), work=jnp.ones(5), mesh=population_mesh())
    np.testing.assert_array_equal(results, 7.0 + np.arange(5.0) ** 2)


@pytest.mark.parametrize(("num_items", "num_devices"), [(1, 1), (6, 2), (7, 2), (7, 3), (2, 4)])
def test_every_device_gets_equally_many_and_every_item_is_dealt(num_items, num_devices):
    dealt, places = deal(num_items, num_devices)
    assert len(dealt) % num_devices == 0
    assert len(dealt) - num_items < num_devices
    np.testing.assert_array_equal(dealt[places], np.arange(num_items))
    shares = dealt.reshape(num_devices, -1)
    for device, share in enumerate(shares):
        np.testing.assert_array_equal(share % num_devices, device)
