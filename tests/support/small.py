"""Tiny components that the tests share, so that compilations are shared too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.agents.networks import Table
from metadisco.agents.optimizers import SGD
from metadisco.core import config
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import LogUniformLifetime, Tasks
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.lives.critic import Critic
from metadisco.lives.learner import Learner
from metadisco.lives.life import InitialCondition, InnerLoop
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.online_evolution import OnlineEvolution, PersistentES
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer, MetaTrainer
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.meta_training.online_trainer import OnlineEvolutionTrainer
from metadisco.meta_training.truncation import Unroll
from metadisco.objectives.lpg import LPG
from tests.support import remembering, two_states

LEVELS = GridLevels(max_side=4, num_walls=2, max_objects=2, max_steps=(5, 12))
TASKS = Tasks(LEVELS, LogUniformLifetime(1, 5))
OBJECTIVE = LPG(width=4, num_predictions=3, embedding_width=4, lifetime_features=True)


def inner_loop(objective=OBJECTIVE, **options) -> InnerLoop:
    settings = {"learner": Learner(SGD(40.0), SGD(4.0)), "num_workers": 4, "num_steps": 5, "num_test_workers": 4}
    return InnerLoop(LEVELS.env, Table(), objective, **(settings | options))


def trainer(meta_optimizer=Evolution(), **options) -> EvolutionTrainer:
    settings = {"num_tasks": 4, "num_steps": 3, "slots": 3}
    return MetaTrainer(inner_loop(), DomainRandomization(TASKS), meta_optimizer, **(settings | options))


def gradient_trainer(inner=None, curriculum=DomainRandomization(TASKS), **options) -> GradientTrainer:
    inner = inner_loop(critic=Critic()) if inner is None else inner
    settings = {"unroll": Unroll(num_updates=2), "num_tasks": 4, "num_steps": 6, "slots": 2} | options
    domain = {name: settings.pop(name) for name in ("num_tasks", "slots", "score") if name in settings}
    return GradientTrainer((Domain(inner, curriculum, **domain),), **settings)


def online_trainer(estimator=PersistentES(), inner=None, **options) -> OnlineEvolutionTrainer:
    """On the smallest environment, whose lives are of one to five updates."""
    settings = {"num_updates": 2, "num_tasks": 4, "num_steps": 6, "slots": 3, "guidance": None} | options
    domain = {name: settings.pop(name) for name in ("num_tasks", "slots", "score") if name in settings}
    inner = two_states.inner_loop(critic=None) if inner is None else inner
    meta_optimizer = OnlineEvolution(estimator, guidance=settings.pop("guidance"))
    curriculum = DomainRandomization(remembering.ShortLives())
    return OnlineEvolutionTrainer((Domain(inner, curriculum, **domain),), meta_optimizer, **settings)


def altered(trainer, **fields):
    """A trainer with other fields, or with other fields of its only domain."""
    return config.replace_fields(trainer, fields)


@partial(jax.jit, static_argnums=0)  # one program: each operation of its own takes as long to compile
def initials(num: int, seed: int = 0) -> InitialCondition:
    task_key, life_key = jax.random.split(jax.random.key(seed))
    return InitialCondition(jax.random.split(life_key, num), jax.vmap(TASKS.sample)(jax.random.split(task_key, num)))


@partial(jax.jit, static_argnums=(0, 1))
def population(objective, num: int):
    return jax.vmap(objective.init)(jax.random.split(jax.random.key(7), num))


@partial(jax.jit, static_argnums=0)
def begun(trainer):
    """The train state of a trainer before its first meta-step."""
    return trainer.init(jax.random.key(0))


def assert_trees_close(left, right, **tolerance) -> None:
    def compare(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), **tolerance)

    jax.tree.map(compare, left, right)
