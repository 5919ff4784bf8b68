"""Learning rules, hand-written and learned."""

from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.lpg import LPG

__all__ = ["A2C", "LPG"]
