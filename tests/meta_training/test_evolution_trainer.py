"""A meta-step by evolution: the same for any number of devices, every part of it matters, in one domain or several."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from metadisco.agents.networks import Table
from metadisco.core import config
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import FixedLifetime, Tasks
from metadisco.envs.base import Discrete
from metadisco.lives.life import InitialCondition, InnerLoop
from metadisco.meta_optimizers.base import repeat
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.gradient import MetaGradient
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_training import domain as domain_module
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.lpg import LPG
from tests.support import probes, remembering, small, two_states


@dataclass(frozen=True)
class Nothing:
    """A level without content, for probes."""

    def sample(self, key):
        del key
        return jnp.zeros(())


@dataclass(frozen=True)
class Generous(probes.RewardByAction):
    """100 for action 1."""

    spec = replace(probes.RewardByAction.spec, observation=Discrete(2))

    def reward(self, obs, action):
        return 100.0 * action


def domains():
    """Two of the smallest, since a meta-step takes long to compile."""
    inner = two_states.inner_loop(num_steps=5, critic=None)
    states = Domain(inner, DomainRandomization(remembering.ShortLives()), 3, slots=3, name="states")
    tasks = Tasks(Nothing(), FixedLifetime(2))
    inner = replace(inner, env=Generous())
    probe = Domain(inner, DomainRandomization(tasks), 2, slots=2, name="probe", reference_return=100.0)
    return states, probe


def trainer(**options):
    return EvolutionTrainer(**({"domains": domains(), "meta_optimizer": Evolution(), "num_steps": 3} | options))


@struct.dataclass
class Told:
    evolution: Any
    fitness: jax.Array  # [R, N] float32


@dataclass(frozen=True)
class Witness(Evolution):
    """Evolution that keeps the fitness that it is told."""

    def init(self, key, meta_params, num_tasks):
        return Told(super().init(key, meta_params, num_tasks), jnp.zeros((2, num_tasks)))

    def ask(self, key, state, num_tasks):
        population, asked = super().ask(key, state.evolution, num_tasks)
        return population, state.replace(evolution=asked)

    def tell(self, key, state, population, fitness, *, train_mask=None):
        evolution, metrics = super().tell(key, state.evolution, population, fitness, train_mask=train_mask)
        return Told(evolution, fitness), metrics

    def meta_params(self, state):
        return super().meta_params(state.evolution)


WITNESS = Witness(sigma=Decay(1.0))  # so far from each other that no candidate lives as another one


@pytest.fixture(scope="module")
def witnessed():
    """Train states before and after a meta-step of two domains, and its metrics."""
    witness = trainer(meta_optimizer=WITNESS)
    before = small.begun(witness)
    return before, *jax.jit(witness.step)(jax.random.key(5), before)


def test_candidates_live_in_the_domain_of_their_task(witnessed):
    """As when each domain is given its candidates and tasks by hand."""
    before, state, _ = witnessed
    propose_key, init_key, meta_key, _ = jax.random.split(jax.random.key(5), 4)

    @jax.jit
    def by_hand(meta):
        fitness, (population, _) = [], WITNESS.ask(meta_key, meta, 5)
        for i, (domain, members) in enumerate(zip(domains(), ([0, 1, 2, 5, 6, 7], [3, 4, 8, 9]), strict=True)):
            num = domain.num_tasks
            _, proposal = domain.curriculum.propose(jax.random.fold_in(propose_key, i), (), num)
            initials = InitialCondition(jax.random.split(jax.random.fold_in(init_key, i), num), proposal.tasks)
            theirs = jax.tree.map(lambda leaf, members=members: leaf[jnp.array(members)], population)
            outcomes = domain.live(theirs, repeat((initials, jnp.zeros(num)), 2))
            fitness.append(domain.normalize(outcomes.fitness).reshape(2, num))
        return jnp.concatenate(fitness, axis=1)

    found = np.asarray(state.meta.fitness)
    np.testing.assert_allclose(found, by_hand(before.meta), rtol=1e-4, atol=1e-5)
    assert len(np.unique(found)) > 5  # so that a candidate that lives elsewhere shows


def test_fitness_is_on_the_scale_of_each_domain_and_returns_are_reported(witnessed):
    _, state, metrics = witnessed
    fitness = state.meta.fitness[:, 3:]
    assert jnp.all((fitness >= 0.0) & (fitness <= 1.0))  # of 100
    np.testing.assert_allclose(metrics["fitness/probe"], 100.0 * fitness.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["fitness/states"], state.meta.fitness[:, :3].mean(), rtol=1e-5)


def test_work_is_counted_by_domain(witnessed):
    _, _, metrics = witnessed
    assert metrics["env_steps/probe"] == 4 * 2 * 4 * 5  # lives, updates, workers, steps
    assert metrics["env_steps"] == metrics["env_steps/states"] + metrics["env_steps/probe"]
    assert metrics["agent_updates"] * 4 * 5 == metrics["env_steps"]


def test_a_meta_step_moves_the_meta_parameters_and_keeps_every_type(witnessed):
    begun, state, metrics = witnessed
    assert metrics["update_norm"] > 0.0
    assert all(value.shape == () and jnp.isfinite(value) for value in metrics.values())
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), each) for each in (begun, state)]
    assert kinds[0] == kinds[1]


@pytest.mark.slow
def test_low_rank_candidates_live_in_the_domain_of_their_task_too():
    trained = trainer(meta_optimizer=LowRankEvolution(rank=2))
    begun = small.begun(trained)
    state, metrics = jax.jit(trained.step)(jax.random.key(1), begun)
    assert metrics["update_norm"] > 0.0
    assert metrics["finite_fraction"] == 1.0
    assert metrics["env_steps/probe"] == 4 * 2 * 4 * 5
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), begun.meta.meta_params, state.meta.meta_params)
    assert all(jax.tree.leaves(moved))


def test_a_trainer_is_its_own_configuration():
    one = replace(small.trainer(), num_steps=2)
    assert config.from_data(config.to_data(one)) == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"domains": ()}, "one or more"),
        ({"domains": (domains()[0], domains()[0])}, "different names"),
        ({"meta_optimizer": MetaGradient()}, "ask and tell"),
        (
            {"domains": (domains()[0], replace(domains()[1], inner=small.inner_loop(LPG(width=8))))},
            "must learn the same",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        trainer(**change)


def test_a_domain_checks_its_curriculum_and_its_scale():
    with pytest.raises(ValueError, match="reference_return"):
        replace(domains()[0], random_return=1.0)
    with pytest.raises(ValueError, match="num_tasks"):
        replace(domains()[0], num_tasks=0)
    too_small = PrioritizedLevelReplay(small.TASKS, capacity=2)
    with pytest.raises(ValueError, match="capacity"):
        replace(domains()[0], curriculum=too_small)


def _steps(trainer, num_steps=2):
    step = jax.jit(trainer.step)
    state = small.begun(trainer)
    for i in range(num_steps):
        state, metrics = step(jax.random.key(i), jax.device_get(state))  # one program: it is on two devices
    return state, metrics


def of_one_domain():
    return EvolutionTrainer(domains()[:1], Evolution(), num_steps=3)


@pytest.fixture(scope="module")
def two_steps():
    return _steps(of_one_domain())


def test_meta_parameters_move_and_steps_are_counted(two_steps):
    state, metrics = two_steps
    trainer = of_one_domain()
    before = trainer.meta_params(small.begun(trainer))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, trainer.meta_params(state))
    assert all(jax.tree.leaves(moved)), moved
    assert state.step == 2
    assert all(value.shape == () and jnp.isfinite(value) for value in metrics.values())


def test_work_is_counted_in_one_domain(two_steps):
    _, metrics = two_steps
    assert float(metrics["agent_updates"]) == pytest.approx(6 * float(metrics["lifetime"]), rel=1e-6)  # three pairs
    assert metrics["env_steps"] == metrics["agent_updates"] * 4 * 5


@pytest.mark.slow  # the fast ones are in test_distributed
@pytest.mark.parametrize("optimizer", [Evolution(), LowRankEvolution()])
def test_one_and_two_devices_give_the_same_meta_parameters(optimizer, monkeypatch):
    assert jax.device_count() == 2
    trainer = small.trainer(optimizer)
    both, _ = _steps(trainer)
    one = jax.make_mesh((1,), ("population",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(domain_module, "population_mesh", lambda: one)
    alone, _ = _steps(trainer)
    small.assert_trees_close(trainer.meta_params(both), trainer.meta_params(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_slots_do_not_change_the_result():
    trainer = small.trainer()
    (few, _), (many, _) = _steps(trainer), _steps(small.trainer(slots=8))
    small.assert_trees_close(trainer.meta_params(few), trainer.meta_params(many), rtol=1e-4, atol=1e-5)


def test_a_meta_step_compiles_once(two_steps):
    """What comes out has the types of what went in."""
    structure = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), two_steps[0])
    begun = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), small.begun(of_one_domain()))
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
