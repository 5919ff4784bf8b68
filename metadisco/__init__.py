"""Discover reinforcement-learning algorithms: meta-train an objective, test it on what it never saw, ship it."""

from metadisco.checkpoint import Discovered, load, save
from metadisco.config import ConfigError
from metadisco.discovery import discover, meta_test
from metadisco.gradient_trainer import GradientTrainer
from metadisco.life import InnerLoop
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.presets import preset
from metadisco.trainer import MetaTrainer

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "LPG",
    "PPO",
    "ConfigError",
    "Discovered",
    "GradientTrainer",
    "InnerLoop",
    "MetaTrainer",
    "MirrorLearning",
    "discover",
    "load",
    "meta_test",
    "preset",
    "save",
]
