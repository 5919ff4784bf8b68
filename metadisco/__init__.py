"""Discover reinforcement-learning algorithms: meta-train an objective, test it on what it never saw, ship it."""

from metadisco.agents.networks import CNN, MLP, Table
from metadisco.antagonists import Expert, LearningAntagonist, RandomPolicy
from metadisco.battery import Battery, Generated, GridSuite
from metadisco.checkpoint import Discovered, load, save
from metadisco.cli import prepare_jax
from metadisco.comparison import meta_test
from metadisco.config import ConfigError
from metadisco.critic import Critic
from metadisco.curricula.accel import ACCEL
from metadisco.curricula.fixed import FixedSet
from metadisco.curricula.handover import load_levels, save_levels
from metadisco.curricula.paired import PAIRED
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.discovery import discover, inner_loop
from metadisco.envs.base import Box, Discrete, EnvSpec, Step
from metadisco.envs.gridworld import GridWorld
from metadisco.envs.gridworld_levels import GridLevels
from metadisco.gradient_trainer import GradientTrainer
from metadisco.learner import SGD, Adam, Learner
from metadisco.life import InnerLoop
from metadisco.meta.evolution import Evolution
from metadisco.meta.gradient import MetaGradient
from metadisco.meta.lowrank_evolution import LowRankEvolution
from metadisco.meta.schedules import Decay
from metadisco.meta.shaping import PairwiseRoot
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import Predictions
from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.presets import Preset, preset
from metadisco.scores import (
    L1ValueLoss,
    Learnability,
    MaxMC,
    PositiveValueLoss,
    Regret,
    Return,
    Uniform,
)
from metadisco.tasks import FixedLifetime, LogUniformLifetime, Tasks
from metadisco.trainer import MetaTrainer
from metadisco.types import Progress, Task, Trajectory
from metadisco.unroll import Unroll

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
    "Battery",
    "Box",
    "ConfigError",
    "Critic",
    "DPODrift",
    "Decay",
    "Discovered",
    "Discrete",
    "DomainRandomization",
    "EnvSpec",
    "Evolution",
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
    "Step",
    "Table",
    "Task",
    "Tasks",
    "Trajectory",
    "Uniform",
    "Unroll",
    "discover",
    "inner_loop",
    "load",
    "load_levels",
    "meta_test",
    "prepare_jax",
    "preset",
    "save",
    "save_levels",
]
