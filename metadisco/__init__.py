"""Discover reinforcement-learning algorithms: meta-train an objective, test it on what it never saw, ship it."""

from metadisco.agents.networks import CNN, MLP, Table
from metadisco.agents.optimizers import SGD, Adam
from metadisco.checkpoints.checkpoint import Discovered, load, save
from metadisco.checkpoints.disco103 import load_disco103
from metadisco.commands.discovery import discover, inner_loop
from metadisco.core.config import ConfigError
from metadisco.core.devices import prepare_jax
from metadisco.core.types import Progress, Task, Trajectory
from metadisco.curricula.accel import ACCEL
from metadisco.curricula.fixed import FixedSet
from metadisco.curricula.level_files import load_levels, save_levels
from metadisco.curricula.paired import PAIRED
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import FixedLifetime, LogUniformLifetime, Tasks
from metadisco.envs.base import Box, Discrete, EnvSpec, Step
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.evaluation.meta_test import meta_test
from metadisco.evaluation.test_sets import Generated, GridSuite, TestSet
from metadisco.lives.critic import Critic
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.gradient import MetaGradient
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import PairwiseRoot
from metadisco.meta_training.antagonists import Expert, LearningAntagonist, RandomPolicy
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer, MetaTrainer
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.meta_training.level_scores import (
    L1ValueLoss,
    Learnability,
    MaxMC,
    PositiveValueLoss,
    Regret,
    Return,
    Uniform,
)
from metadisco.meta_training.truncation import Unroll
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import Predictions
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.presets.base import Preset
from metadisco.presets.registry import preset

Battery = TestSet  # its name in version 0.1

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "ACCEL",
    "CNN",
    "LPG",
    "MLP",
    "PAIRED",
    "PPO",
    "SGD",
    "Adam",
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
    "EnvSpec",
    "Evolution",
    "EvolutionTrainer",
    "Expert",
    "FixedLifetime",
    "FixedSet",
    "Generated",
    "GradientTrainer",
    "GridLevels",
    "GridSuite",
    "GridWorld",
    "InnerLoop",
    "L1ValueLoss",
    "LPODrift",
    "Learnability",
    "Learner",
    "LearningAntagonist",
    "LogUniformLifetime",
    "LowRankEvolution",
    "MaxMC",
    "MetaGradient",
    "MetaTrainer",
    "MirrorLearning",
    "PPODrift",
    "PairwiseRoot",
    "PositiveValueLoss",
    "Predictions",
    "Preset",
    "PrioritizedLevelReplay",
    "Progress",
    "RandomPolicy",
    "Regret",
    "Return",
    "ScheduledA2C",
    "Step",
    "Table",
    "Task",
    "Tasks",
    "TestSet",
    "Trajectory",
    "Uniform",
    "Unroll",
    "discover",
    "inner_loop",
    "load",
    "load_disco103",
    "load_levels",
    "meta_test",
    "prepare_jax",
    "preset",
    "save",
    "save_levels",
]
