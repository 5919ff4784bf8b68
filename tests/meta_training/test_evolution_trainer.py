"""A meta-step over several environments."""

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
from metadisco.lives.life import InitialCondition
from metadisco.meta_optimizers.base import repeat
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.gradient import MetaGradient
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
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
