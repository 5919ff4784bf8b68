"""A meta-step: the same for any number of devices, and every part of it matters."""

import jax
import jax.numpy as jnp
import pytest

from metadisco.agents.networks import Table
from metadisco.lives.life import InnerLoop
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_training import domain as domain_module
from metadisco.objectives.actor_critic import A2C
from tests.support import small


def _steps(trainer, num_steps=2):
    step = jax.jit(trainer.step)
    state = trainer.init(jax.random.key(0))
    for i in range(num_steps):
        state, metrics = step(jax.random.key(i), state)
    return state, metrics


@pytest.fixture(scope="module")
def two_steps():
    return _steps(small.trainer())


def test_meta_parameters_move_and_steps_are_counted(two_steps):
    state, metrics = two_steps
    trainer = small.trainer()
    before = trainer.meta_params(trainer.init(jax.random.key(0)))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, trainer.meta_params(state))
    assert all(jax.tree.leaves(moved)), moved
    assert state.step == 2
    assert all(value.shape == () and jnp.isfinite(value) for value in metrics.values())


def test_work_is_counted(two_steps):
    _, metrics = two_steps
    assert metrics["agent_updates"] == 8 * metrics["lifetime"]  # four pairs
    assert metrics["env_steps"] == metrics["agent_updates"] * 4 * 5


@pytest.mark.slow  # the fast ones are in test_distributed
@pytest.mark.parametrize("optimizer", [Evolution(), LowRankEvolution()])
def test_one_and_two_devices_give_the_same_meta_parameters(optimizer, two_steps, monkeypatch):
    assert jax.device_count() == 2
    trainer = small.trainer(optimizer)
    both, _ = two_steps if optimizer == Evolution() else _steps(trainer)
    one = jax.make_mesh((1,), ("population",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(domain_module, "population_mesh", lambda: one)
    alone, _ = _steps(trainer)
    small.assert_trees_close(trainer.meta_params(both), trainer.meta_params(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_slots_do_not_change_the_result(two_steps):
    state, _ = _steps(small.trainer(slots=8))
    trainer = small.trainer()
    small.assert_trees_close(trainer.meta_params(two_steps[0]), trainer.meta_params(state), rtol=1e-4, atol=1e-5)


def test_a_meta_step_compiles_once(two_steps):
    """What comes out has the types of what went in."""
    trainer = small.trainer()
    structure = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), two_steps[0])
    begun = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), trainer.init(jax.random.key(0)))
    assert structure == begun


def test_equal_trainers_are_equal_and_hash_alike():
    assert small.trainer() == small.trainer()
    assert hash(small.trainer()) == hash(small.trainer())
    assert small.trainer() != small.trainer(num_tasks=6)


def test_a_hand_written_objective_cannot_be_meta_trained():
    trainer = small.altered(small.trainer(), inner=InnerLoop(small.LEVELS.env, Table(), A2C(), num_workers=2))
    with pytest.raises(ValueError, match="nothing to meta-train"):
        trainer.init(jax.random.key(0))


@pytest.mark.parametrize("field", ["num_tasks", "num_steps", "slots"])
def test_sizes_below_one_are_refused(field):
    with pytest.raises(ValueError, match=field):
        small.trainer(**{field: 0})
