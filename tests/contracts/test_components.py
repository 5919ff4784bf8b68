"""Every exported component keeps its contract (metadisco.testing)."""

from dataclasses import replace

import jax
import pytest

from metadisco.curricula.accel import ACCEL
from metadisco.curricula.fixed import DrawnTasks, FixedSet
from metadisco.curricula.paired import PAIRED
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.envs.base import Box, EnvSpec
from metadisco.envs.gymnax_adapter import ENVIRONMENTS, Gymnax
from metadisco.envs.hand_designed import hand_designed
from metadisco.meta.evolution import Evolution
from metadisco.meta.gradient import MetaGradient
from metadisco.meta.lowrank_evolution import LowRankEvolution
from metadisco.meta.schedules import Decay
from metadisco.meta.shaping import CenteredRanks
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.drift import DPODrift, LPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.testing import check_curriculum, check_environment, check_meta_optimizer, check_objective
from tests import small, two_states
from tests.small import LEVELS, TASKS

CONTINUOUS = EnvSpec(Box((4,)), Box((2,), -1.0, 1.0))
FAST = {"sigma": Decay(0.1), "learning_rate": Decay(0.05), "shaping": CenteredRanks()}
REPLAY = PrioritizedLevelReplay(TASKS, capacity=6, fill_before_replay=0.3)


@pytest.mark.parametrize(
    ("objective", "spec"),
    [
        (small.OBJECTIVE, two_states.TwoStates.spec),
        (replace(small.OBJECTIVE, lifetime_features=False), two_states.TwoStates.spec),
        (A2C(), two_states.TwoStates.spec),
        (A2C(), CONTINUOUS),
        (PPO(), CONTINUOUS),
        (MirrorLearning(DPODrift()), two_states.TwoStates.spec),
        (MirrorLearning(LPODrift(width=4, temporal=True)), two_states.TwoStates.spec),
        (MirrorLearning(LPODrift(width=4, clip=None)), CONTINUOUS),
    ],
    ids=repr,
)
def test_objective(objective, spec):
    check_objective(objective, spec)


def test_grid_world():
    check_environment(LEVELS.env, LEVELS.sample(jax.random.key(0)))


@pytest.mark.parametrize("name", ["rand_small"])
def test_grid_world_with_random_positions(name):
    check_environment(*hand_designed(name, jax.random.key(0)))


def test_probe():
    check_environment(two_states.TwoStates(), two_states.task().level)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_shapes_of_gymnax(name):
    env = Gymnax(name)
    check_environment(env, env.default_level, run=False)


@pytest.mark.parametrize(
    "env", [Gymnax("CartPole-v1"), *(pytest.param(Gymnax(name), marks=pytest.mark.slow) for name in ENVIRONMENTS[1:])]
)
def test_gymnax(env):
    level = env.default_level
    check_environment(env, level, num_steps=12)


@pytest.mark.parametrize(
    "curriculum",
    [
        DomainRandomization(TASKS),
        FixedSet(DrawnTasks(TASKS, num_levels=5)),
        REPLAY,
        replace(REPLAY, robust=True),
        ACCEL(REPLAY),
        PAIRED(TASKS),
    ],
    ids=lambda each: type(each).__name__,
)
def test_curriculum(curriculum):
    check_curriculum(curriculum)


@pytest.mark.parametrize(
    "meta_optimizer",
    [
        Evolution(**FAST),
        *(pytest.param(Evolution(strategy=s, **FAST), marks=pytest.mark.slow) for s in ("SNES", "PGPE", "CMA_ES")),
        LowRankEvolution(**FAST),
        MetaGradient(learning_rate=Decay(0.05)),
    ],
    ids=repr,
)
def test_meta_optimizer(meta_optimizer):
    check_meta_optimizer(meta_optimizer)
