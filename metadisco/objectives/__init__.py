"""Learning rules, hand-written and learned."""

from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.count_bonus import WithCountBonus
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.exploring_a2c import ExploringA2C
from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.objectives.with_optimizer import WithOptimizer

__all__ = [
    "A2C",
    "LPG",
    "Disco103",
    "ExploringA2C",
    "FormulaPolicyGradient",
    "MirrorLearning",
    "ScheduledA2C",
    "ScheduledMirrorLearning",
    "WithCountBonus",
    "WithOptimizer",
]
