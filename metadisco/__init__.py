"""Discover reinforcement-learning algorithms: meta-train an objective, test it on what it never saw, ship it.

A name is imported when it is first used: JAX and what is built on it take seconds, and `metadisco --help` needs none.
Even `typing` takes a while at the start of a process, in which a Ctrl-C would print a traceback (`metadisco.__main__`).
"""

TYPE_CHECKING = False  # as that of `typing` is when a program runs

if TYPE_CHECKING:  # for type checkers and editors; `_HOMES` says the same
    from typing import Any

    from metadisco.agents.learned_optimizer import OPEN, ResidualOPEN
    from metadisco.agents.networks import CNN, MLP, Table
    from metadisco.agents.optimizers import SGD, Adam, RMSProp
    from metadisco.checkpoints.checkpoint import Discovered, load, save, zoo_names
    from metadisco.checkpoints.disco103 import load_disco103
    from metadisco.commands.discovery import discover, inner_loop
    from metadisco.core.config import ConfigError
    from metadisco.core.devices import prepare_jax
    from metadisco.core.types import Progress, Task, Trajectory
    from metadisco.curricula.accel import ACCEL
    from metadisco.curricula.alp_gmm import ALPGMM
    from metadisco.curricula.fixed import FixedSet
    from metadisco.curricula.level_files import load_levels, save_levels
    from metadisco.curricula.paired import PAIRED
    from metadisco.curricula.plr import PrioritizedLevelReplay
    from metadisco.curricula.randomization import DomainRandomization
    from metadisco.curricula.self_evolving import SelfEvolvingCurriculum
    from metadisco.curricula.task_features import GridFeatures, LevelNumbers
    from metadisco.curricula.tasks import FixedLifetime, LogUniformLifetime, TaskMixture, Tasks
    from metadisco.envs.base import Box, Discrete, EnvSpec, Step
    from metadisco.envs.gridworld.dynamics import GridWorld
    from metadisco.envs.gridworld.levels import EmbeddedLevels, GridLevels
    from metadisco.envs.gridworld.rendering import render_image
    from metadisco.evaluation.agents_under_test import AgentUnderTest, tuned_a2c, tuned_a2c_count, tuned_dpo, tuned_ppo
    from metadisco.evaluation.evaluation import compare
    from metadisco.evaluation.meta_test import meta_test
    from metadisco.evaluation.results import Evaluation, Results
    from metadisco.evaluation.test_sets import Generated, GridSuite, TestSet
    from metadisco.evaluation.trained_agent import TrainedAgent, train_agent
    from metadisco.lives.critic import Critic
    from metadisco.lives.learner import Learner
    from metadisco.lives.life import InnerLoop
    from metadisco.lives.rule import Rule
    from metadisco.lives.wrapped_optimizer import wrap_optimizer
    from metadisco.meta_optimizers.averaging import Averaged
    from metadisco.meta_optimizers.evolution import Evolution
    from metadisco.meta_optimizers.gradient import MetaGradient
    from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
    from metadisco.meta_optimizers.online_evolution import (
        GuidedES,
        NoiseReuseES,
        OnlineEvolution,
        PersistentES,
        TruncatedES,
    )
    from metadisco.meta_optimizers.schedules import Decay
    from metadisco.meta_optimizers.shaping import PairwiseDifference, PairwiseRoot
    from metadisco.meta_training.antagonists import Expert, LearningAntagonist, RandomPolicy
    from metadisco.meta_training.domain import Domain
    from metadisco.meta_training.evolution_trainer import EvolutionTrainer, MetaTrainer
    from metadisco.meta_training.gradient_trainer import GradientTrainer
    from metadisco.meta_training.level_scores import (
        L1ValueLoss,
        Learnability,
        MaxMC,
        NormalizedScore,
        PositiveValueLoss,
        Regret,
        Return,
        Uniform,
    )
    from metadisco.meta_training.online_trainer import OnlineEvolutionTrainer
    from metadisco.meta_training.truncation import Unroll
    from metadisco.objectives.actor_critic import A2C
    from metadisco.objectives.base import Predictions
    from metadisco.objectives.count_bonus import WithCountBonus
    from metadisco.objectives.disco103 import Disco103
    from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
    from metadisco.objectives.exploring_a2c import ExploringA2C
    from metadisco.objectives.formula_drift import FormulaDrift
    from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
    from metadisco.objectives.lpg import LPG
    from metadisco.objectives.mirror_learning import PPO, MirrorLearning
    from metadisco.objectives.scheduled_a2c import ScheduledA2C
    from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
    from metadisco.objectives.with_optimizer import WithOptimizer
    from metadisco.presets.base import Preset
    from metadisco.presets.registry import preset

__version__ = "0.2.0"

__all__ = [
    "A2C",
    "ACCEL",
    "ALPGMM",
    "CNN",
    "LPG",
    "MLP",
    "OPEN",
    "PAIRED",
    "PPO",
    "SGD",
    "Adam",
    "AgentUnderTest",
    "Averaged",
    "Box",
    "ConfigError",
    "Critic",
    "DPODrift",
    "Decay",
    "Disco103",
    "Discovered",
    "Discrete",
    "Domain",
    "DomainRandomization",
    "EmbeddedLevels",
    "EnvSpec",
    "Evaluation",
    "Evolution",
    "EvolutionTrainer",
    "Expert",
    "ExploringA2C",
    "FixedLifetime",
    "FixedSet",
    "FormulaDrift",
    "FormulaPolicyGradient",
    "Generated",
    "GradientTrainer",
    "GridFeatures",
    "GridLevels",
    "GridSuite",
    "GridWorld",
    "GuidedES",
    "InnerLoop",
    "L1ValueLoss",
    "LPODrift",
    "Learnability",
    "Learner",
    "LearningAntagonist",
    "LevelNumbers",
    "LogUniformLifetime",
    "LowRankEvolution",
    "MaxMC",
    "MetaGradient",
    "MetaTrainer",
    "MirrorLearning",
    "NoiseReuseES",
    "NormalizedScore",
    "OnlineEvolution",
    "OnlineEvolutionTrainer",
    "PPODrift",
    "PairwiseDifference",
    "PairwiseRoot",
    "PersistentES",
    "PositiveValueLoss",
    "Predictions",
    "Preset",
    "PrioritizedLevelReplay",
    "Progress",
    "RMSProp",
    "RandomPolicy",
    "Regret",
    "ResidualOPEN",
    "Results",
    "Return",
    "Rule",
    "ScheduledA2C",
    "ScheduledMirrorLearning",
    "SelfEvolvingCurriculum",
    "Step",
    "Table",
    "Task",
    "TaskMixture",
    "Tasks",
    "TestSet",
    "TrainedAgent",
    "Trajectory",
    "TruncatedES",
    "Uniform",
    "Unroll",
    "WithCountBonus",
    "WithOptimizer",
    "compare",
    "discover",
    "inner_loop",
    "load",
    "load_disco103",
    "load_levels",
    "meta_test",
    "prepare_jax",
    "preset",
    "render_image",
    "save",
    "save_levels",
    "train_agent",
    "tuned_a2c",
    "tuned_a2c_count",
    "tuned_dpo",
    "tuned_ppo",
    "wrap_optimizer",
    "zoo_names",
]

_HOMES = {
    "agents.learned_optimizer": "OPEN ResidualOPEN",
    "agents.networks": "CNN MLP Table",
    "agents.optimizers": "SGD Adam RMSProp",
    "checkpoints.checkpoint": "Discovered load save zoo_names",
    "checkpoints.disco103": "load_disco103",
    "commands.discovery": "discover inner_loop",
    "core.config": "ConfigError",
    "core.devices": "prepare_jax",
    "core.types": "Progress Task Trajectory",
    "curricula.accel": "ACCEL",
    "curricula.alp_gmm": "ALPGMM",
    "curricula.fixed": "FixedSet",
    "curricula.level_files": "load_levels save_levels",
    "curricula.paired": "PAIRED",
    "curricula.plr": "PrioritizedLevelReplay",
    "curricula.randomization": "DomainRandomization",
    "curricula.self_evolving": "SelfEvolvingCurriculum",
    "curricula.task_features": "GridFeatures LevelNumbers",
    "curricula.tasks": "FixedLifetime LogUniformLifetime TaskMixture Tasks",
    "envs.base": "Box Discrete EnvSpec Step",
    "envs.gridworld.dynamics": "GridWorld",
    "envs.gridworld.levels": "EmbeddedLevels GridLevels",
    "envs.gridworld.rendering": "render_image",
    "evaluation.agents_under_test": "AgentUnderTest tuned_a2c tuned_a2c_count tuned_dpo tuned_ppo",
    "evaluation.evaluation": "compare",
    "evaluation.meta_test": "meta_test",
    "evaluation.results": "Evaluation Results",
    "evaluation.test_sets": "Generated GridSuite TestSet",
    "evaluation.trained_agent": "TrainedAgent train_agent",
    "lives.critic": "Critic",
    "lives.learner": "Learner",
    "lives.life": "InnerLoop",
    "lives.rule": "Rule",
    "lives.wrapped_optimizer": "wrap_optimizer",
    "meta_optimizers.averaging": "Averaged",
    "meta_optimizers.evolution": "Evolution",
    "meta_optimizers.gradient": "MetaGradient",
    "meta_optimizers.lowrank_evolution": "LowRankEvolution",
    "meta_optimizers.online_evolution": "GuidedES NoiseReuseES OnlineEvolution PersistentES TruncatedES",
    "meta_optimizers.schedules": "Decay",
    "meta_optimizers.shaping": "PairwiseDifference PairwiseRoot",
    "meta_training.antagonists": "Expert LearningAntagonist RandomPolicy",
    "meta_training.domain": "Domain",
    "meta_training.evolution_trainer": "EvolutionTrainer MetaTrainer",
    "meta_training.gradient_trainer": "GradientTrainer",
    "meta_training.level_scores": (
        "L1ValueLoss Learnability MaxMC NormalizedScore PositiveValueLoss Regret Return Uniform"
    ),
    "meta_training.online_trainer": "OnlineEvolutionTrainer",
    "meta_training.truncation": "Unroll",
    "objectives.actor_critic": "A2C",
    "objectives.base": "Predictions",
    "objectives.disco103": "Disco103",
    "objectives.count_bonus": "WithCountBonus",
    "objectives.drift": "DPODrift LPODrift PPODrift",
    "objectives.exploring_a2c": "ExploringA2C",
    "objectives.formula_drift": "FormulaDrift",
    "objectives.formula_policy_gradient": "FormulaPolicyGradient",
    "objectives.lpg": "LPG",
    "objectives.mirror_learning": "PPO MirrorLearning",
    "objectives.scheduled_a2c": "ScheduledA2C",
    "objectives.scheduled_mirror_learning": "ScheduledMirrorLearning",
    "objectives.with_optimizer": "WithOptimizer",
    "presets.base": "Preset",
    "presets.registry": "preset",
}
_HOME_OF = {name: f"metadisco.{home}" for home, names in _HOMES.items() for name in names.split()}
_ROOMS = {"reports", "runs", "testing"} | {home.partition(".")[0] for home in _HOMES}


def __getattr__(name: str) -> "Any":
    """A public name, or a room of the package, imported now."""
    import importlib

    if name == "Battery":  # what TestSet was called in version 0.1
        name = "TestSet"
    if name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"metadisco.{name}")
    raise AttributeError(f"module 'metadisco' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
