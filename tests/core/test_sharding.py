"""Spreading a population over devices changes nothing but who computes what."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core.lowrank import LowRank
from metadisco.core.sharding import deal, population_mesh, run_sharded, scatter
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import FixedLifetime, LogUniformLifetime, evenness
from metadisco.lives.critic import Critic
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.objectives.lpg import LPG
from tests.support import small


def _double(population, items):
    return {"sum": population["w"] * items, "item": items}


@pytest.mark.parametrize("num_items", [1, 4, 5])
def test_results_come_back_in_order_however_many_items_there_are(num_items):
    assert jax.device_count() == 2
    items = jnp.arange(num_items, dtype=jnp.float32)
    population = {"w": jnp.arange(num_items, dtype=jnp.float32) + 10.0}
    work = jnp.asarray(np.random.default_rng(0).integers(1, 9, num_items))
    results = scatter(_double, population, items, work=work, mesh=population_mesh())
    np.testing.assert_array_equal(results["item"], items)
    np.testing.assert_array_equal(results["sum"], items * population["w"])


@pytest.mark.parametrize("num_items", [1, 4, 5])
def test_each_device_has_a_stretch_of_those_that_stay_where_they_are(num_items):
    def with_its_device(items):
        return items, jnp.full(items.shape, jax.lax.axis_index("population"))

    items, devices = run_sharded(with_its_device, jnp.arange(num_items), mesh=population_mesh())
    np.testing.assert_array_equal(items, np.arange(num_items))
    np.testing.assert_array_equal(devices, np.arange(num_items) // ((num_items + 1) // 2))


def test_a_shared_base_is_not_dealt():
    def first_rows(population, items):
        w = population["w"]
        return jnp.broadcast_to(w.base[0, 0], items.shape) + w.scale * items

    members = LowRank(jnp.full((3, 2), 7.0), jnp.ones((5, 3, 1)), jnp.ones((5, 2, 1)), jnp.arange(5.0))
    results = scatter(first_rows, {"w": members}, jnp.arange(5.0), work=jnp.ones(5), mesh=population_mesh())
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


def test_an_accelerator_has_as_many_slots_as_end_with_the_longest_life(monkeypatch):
    lifetimes = LogUniformLifetime(10, 250)
    domain = Domain(small.inner_loop(), DomainRandomization(replace(small.TASKS, lifetimes=lifetimes)))
    assert domain.num_slots(1000) == 4  # in a CPU's cache
    assert replace(domain, inner=small.inner_loop(LPG(width=256))).num_slots(1000) == 1
    assert domain.num_slots(14) == 2  # so that none idles for long when the last lives run out
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    num_slots = domain.num_slots(1000)
    drawn = np.sort(np.asarray(jax.vmap(lifetimes.sample)(jax.random.split(jax.random.key(0), 1000))))[::-1]
    ends = np.zeros(num_slots, int)
    for lifetime in drawn:  # the next life takes the slot that is free first
        ends[np.argmin(ends)] += lifetime
    assert ends.max() < 1.05 * drawn.max()
    assert num_slots * ends.max() < 1.1 * drawn.sum()
    assert replace(domain, slots=3).num_slots(1000) == 3
    many = Domain(small.inner_loop(critic=Critic()), domain.curriculum, num_tasks=2000)
    assert GradientTrainer((many,)).num_slots(many) == 1000  # of each of two devices


@pytest.mark.parametrize(
    ("component", "expected"), [(FixedLifetime(9), 1.0), (LogUniformLifetime(7, 7), 1.0), ((), 1.0)]
)
def test_equal_lives_and_those_of_unknown_length_are_even(component, expected):
    assert evenness(component) == expected


def test_evenness_of_a_curriculum_is_that_of_what_it_draws():
    lifetimes = LogUniformLifetime(16, 96)
    replay = PrioritizedLevelReplay(replace(small.TASKS, lifetimes=lifetimes))
    drawn = jax.vmap(lifetimes.sample)(jax.random.split(jax.random.key(1), 4000))
    assert evenness(replay) == pytest.approx(float(jnp.mean(drawn)) / 96, rel=0.02)
