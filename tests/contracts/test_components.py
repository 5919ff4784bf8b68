"""Every exported component keeps its contract (metadisco.testing)."""

import importlib.util
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from metadisco.agents.learned_optimizer import OPEN
from metadisco.core.types import Task
from metadisco.curricula.accel import ACCEL
from metadisco.curricula.alp_gmm import ALPGMM
from metadisco.curricula.fixed import DrawnTasks, FixedSet
from metadisco.curricula.paired import PAIRED
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.self_evolving import SelfEvolvingCurriculum
from metadisco.curricula.task_features import LevelNumbers
from metadisco.curricula.tasks import TaskMixture
from metadisco.envs.base import Box, EnvSpec
from metadisco.envs.gymnax_adapter import ENVIRONMENTS, Gymnax
from metadisco.meta_optimizers.averaging import Averaged
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.gradient import MetaGradient
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_optimizers.online_evolution import GuidedES, OnlineEvolution
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import CenteredRanks
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.count_bonus import WithCountBonus
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.drift import DPODrift, LPODrift
from metadisco.objectives.exploring_a2c import ExploringA2C
from metadisco.objectives.formula_drift import FormulaDrift
from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.objectives.with_optimizer import WithOptimizer
from metadisco.testing import check_curriculum, check_environment, check_meta_optimizer, check_objective
from tests.support import small, two_states
from tests.support.remembering import Remembering
from tests.support.small import LEVELS, TASKS

CONTINUOUS = EnvSpec(Box((4,)), Box((2,), -1.0, 1.0))
FAST = {"sigma": Decay(0.1), "learning_rate": Decay(0.05), "shaping": CenteredRanks()}
WIDE = {"sigma": Decay(0.3), "learning_rate": Decay(0.1), "shaping": CenteredRanks()}


@dataclass(frozen=True)
class Numbers:
    """Tasks that are random numbers, which plain calls draw quickly."""

    def sample(self, key):
        return Task(jax.random.uniform(key), jnp.int32(3))

    def mutate(self, key, parent):
        return Task(parent.level + 1.0, parent.lifetime)


REPLAY = PrioritizedLevelReplay(Numbers(), capacity=6, fill_before_replay=0.3)
PROGRESS = ALPGMM(
    Numbers(), LevelNumbers(), fit_every=6, window=8, num_remembered=12, max_components=3, num_iterations=4
)


@pytest.mark.parametrize(
    ("objective", "spec"),
    [
        (small.OBJECTIVE, two_states.TwoStates.spec),
        (A2C(), two_states.TwoStates.spec),
        (PPO(), CONTINUOUS),
        (MirrorLearning(DPODrift()), two_states.TwoStates.spec),
        (MirrorLearning(LPODrift(width=4, temporal=True)), two_states.TwoStates.spec),
        (MirrorLearning(FormulaDrift("0.8 * A * (r - 1) - 0.1 * t", "A * l + 0.3")), two_states.TwoStates.spec),
        (FormulaPolicyGradient("0.5 * advantage * (1 - prob) + 0.3 * td_error"), two_states.TwoStates.spec),
        (Remembering(), two_states.TwoStates.spec),
        (ScheduledA2C(width=4), two_states.TwoStates.spec),
        (WithCountBonus(PPO()), two_states.TwoStates.spec),
        (ExploringA2C(ScheduledA2C(width=4)), two_states.TwoStates.spec),
        (ScheduledMirrorLearning(width=4), CONTINUOUS),
        (WithOptimizer(PPO(), OPEN(3, 4, step=0.1, exponent=0.1, noise=0.1)), CONTINUOUS),
        pytest.param(Disco103(5, 7, 3.0, width=4, memory_width=3), two_states.TwoStates.spec, marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_objective(objective, spec):
    check_objective(objective, spec)


def test_grid_world():
    check_environment(LEVELS.env, jax.jit(LEVELS.sample)(jax.random.key(0)))


def test_probe():
    check_environment(two_states.TwoStates(), two_states.task().level)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_shapes_of_gymnax(name):
    env = Gymnax(name)
    check_environment(env, env.default_level, run=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_gymnax(name):
    env = Gymnax(name)
    check_environment(env, env.default_level, num_steps=12)


@pytest.mark.parametrize(
    "curriculum",
    [
        DomainRandomization(Numbers()),
        FixedSet(DrawnTasks(Numbers(), num_levels=5)),
        REPLAY,
        ACCEL(replace(REPLAY, robust=True)),
        SelfEvolvingCurriculum(TaskMixture((Numbers(), Numbers()))),
        pytest.param(PROGRESS, marks=pytest.mark.slow),
        pytest.param(ACCEL(PrioritizedLevelReplay(TASKS, capacity=6)), marks=pytest.mark.slow),
        pytest.param(PAIRED(TASKS), marks=pytest.mark.slow),
    ],
    ids=lambda each: type(each).__name__,
)
def test_curriculum(curriculum):
    check_curriculum(curriculum)


@pytest.mark.parametrize(
    ("meta_optimizer", "num_steps", "improvement"),
    [
        (Evolution(**FAST), 150, 0.8),
        (LowRankEvolution(**FAST), 150, 0.8),
        (Averaged(Evolution(**FAST), rate=0.1), 150, 0.8),
        *(
            pytest.param(Evolution(strategy=strategy, **WIDE), 60, 0.5, marks=pytest.mark.slow)
            for strategy in ("SNES", "PGPE", "CMA_ES", "Sep_CMA_ES")
        ),
        (OnlineEvolution(sigma=Decay(0.1), learning_rate=Decay(0.05), guidance=GuidedES()), 100, 0.8),
        (MetaGradient(learning_rate=Decay(0.05)), 100, 0.95),
    ],
    ids=str,
)
def test_meta_optimizer(meta_optimizer, num_steps, improvement):
    check_meta_optimizer(meta_optimizer, num_steps=num_steps, improvement=improvement)


def test_the_example_of_the_documentation_runs_and_its_complaint_is_the_one_quoted(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]

    def run(source, name):
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # components are found by their module
        spec.loader.exec_module(module)

    run(example, "whole_hall")
    with pytest.raises(AssertionError) as raised:
        run(example.replace("jnp.where(is_over, level, 0.0)", "is_over.astype(jnp.int32)"), "broken_hall")
    assert f"AssertionError: {raised.value}\n" in page
