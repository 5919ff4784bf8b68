"""A meta-step by evolution: the same for any number of devices, every part of it matters, in one domain or several."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
from metadisco.meta_training import domain as domain_module
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.lpg import LPG
from tests.support import probes, small


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
    grid = Domain(small.inner_loop(), DomainRandomization(small.TASKS), 3, slots=3, name="grid")
    inner = replace(small.inner_loop(), env=Generous(), torso=Table())
    tasks = Tasks(Nothing(), FixedLifetime(2))
    probe = Domain(inner, DomainRandomization(tasks), 2, slots=2, name="probe", reference_return=100.0)
    return grid, probe


def trainer(**options):
    return EvolutionTrainer(**({"domains": domains(), "meta_optimizer": Evolution(), "num_steps": 3} | options))


@dataclass(frozen=True)
class Witness:
    """Asks for a known population and keeps the fitness that it is told."""

    replicas: int = 2

    def init(self, key, meta_params, num_tasks):
        del key, meta_params
        return small.population(small.OBJECTIVE, 2 * num_tasks)

    def ask(self, key, state, num_tasks):
        del key, num_tasks
        return state, state

    def tell(self, key, state, population, fitness, *, train_mask=None):
        del key, state, population, train_mask
        return fitness, {"fitness": jnp.mean(fitness)}

    def meta_params(self, state):
        return state


@pytest.fixture(scope="module")
def witnessed():
    witness = trainer(meta_optimizer=Witness())
    state = witness.init(jax.random.key(0))
    return jax.jit(witness.step)(jax.random.key(5), state)


def test_candidates_live_in_the_domain_of_their_task(witnessed):
    """As when each domain is given its candidates and tasks by hand."""
    state, _ = witnessed
    population = small.population(small.OBJECTIVE, 10)
    propose_key, init_key, _, _ = jax.random.split(jax.random.key(5), 4)
    for i, (domain, members) in enumerate(zip(domains(), ([0, 1, 2, 5, 6, 7], [3, 4, 8, 9]), strict=True)):
        _, proposal = domain.curriculum.propose(jax.random.fold_in(propose_key, i), (), domain.num_tasks)
        initials = InitialCondition(jax.random.split(jax.random.fold_in(init_key, i), domain.num_tasks), proposal.tasks)
        antagonists = jnp.zeros(domain.num_tasks)
        theirs = jax.tree.map(lambda leaf, members=members: leaf[jnp.array(members)], population)
        outcomes = jax.jit(domain.live)(theirs, repeat((initials, antagonists), 2))
        begin = (0, 3)[i]
        fitness = state.meta[:, begin : begin + domain.num_tasks]
        np.testing.assert_allclose(fitness.reshape(-1), domain.normalize(outcomes.fitness), rtol=1e-4, atol=1e-5)


def test_fitness_is_on_the_scale_of_each_domain_and_returns_are_reported(witnessed):
    state, metrics = witnessed
    fitness = state.meta[:, 3:]
    assert jnp.all((fitness >= 0.0) & (fitness <= 1.0))  # of 100
    np.testing.assert_allclose(metrics["fitness/probe"], 100.0 * fitness.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["fitness/grid"], state.meta[:, :3].mean(), rtol=1e-5)


def test_work_is_counted_by_domain(witnessed):
    _, metrics = witnessed
    assert metrics["env_steps/probe"] == 4 * 2 * 4 * 5  # lives, updates, workers, steps
    assert metrics["env_steps"] == metrics["env_steps/grid"] + metrics["env_steps/probe"]
    assert metrics["agent_updates"] * 4 * 5 == metrics["env_steps"]


def test_a_meta_step_moves_the_meta_parameters_and_keeps_every_type():
    trained = trainer()
    begun = trained.init(jax.random.key(0))
    state, metrics = jax.jit(trained.step)(jax.random.key(1), begun)
    assert metrics["update_norm"] > 0.0
    assert all(value.shape == () and jnp.isfinite(value) for value in metrics.values())
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), each) for each in (begun, state)]
    assert kinds[0] == kinds[1]


@pytest.mark.slow
def test_low_rank_candidates_live_in_the_domain_of_their_task_too():
    trained = trainer(meta_optimizer=LowRankEvolution(rank=2))
    begun = trained.init(jax.random.key(0))
    state, metrics = jax.jit(trained.step)(jax.random.key(1), begun)
    assert metrics["update_norm"] > 0.0
    assert metrics["finite_fraction"] == 1.0
    assert metrics["env_steps/probe"] == 4 * 2 * 4 * 5
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), begun.meta.meta_params, state.meta.meta_params)
    assert all(jax.tree.leaves(moved))


def test_a_trainer_is_its_own_configuration():
    grid = domains()[0]
    one = EvolutionTrainer((grid,), Evolution(), num_steps=2)
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


def test_work_is_counted_in_one_domain(two_steps):
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
