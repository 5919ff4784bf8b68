"""How informative a level is, from the whole lives that were spent on it.

A curriculum keeps and replays the levels with the highest scores. Under evolution a life begins and ends within one
meta-step, and so does that of an antagonist.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import jax
import jax.numpy as jnp

from metadisco.baselines import TABLE_A2C, TABLE_A2C_LEARNER
from metadisco.learner import Learner
from metadisco.life import Birth, InnerLoop
from metadisco.meta.base import Population
from metadisco.objectives.base import Objective
from metadisco.types import Outcome

Spend = Callable[[InnerLoop, Population, Birth], Outcome]
"""(how to live, meta-parameters [N], births [N]) -> outcomes [N]."""


class LevelScore(Protocol):
    """How worth playing a level is."""

    def score(
        self, inner: InnerLoop, births: Birth, best_return: jax.Array, spend: Spend
    ) -> tuple[jax.Array, jax.Array]:
        """Score the levels of N tasks.

        Args:
            inner: how the agents lived.
            births: leading axis N.
            best_return: [N] float32, of the best agent on each task; -inf where none is finite.
            spend: spends further lives.

        Returns:
            [N] float32, where not finite the level is kept out; and the agent updates spent on it, [] int32.
        """


@dataclass(frozen=True)
class BestReturn:
    """The return of the best agent: levels on which much can be had. It costs nothing."""

    def score(
        self, inner: InnerLoop, births: Birth, best_return: jax.Array, spend: Spend
    ) -> tuple[jax.Array, jax.Array]:
        """See the class."""
        del inner, births, spend
        return best_return, jnp.zeros((), jnp.int32)


@dataclass(frozen=True)
class AlgorithmicRegret:
    """Return of an antagonist that learns by hand-written rules, less that of the best agent (arXiv:2310.02782).

    The antagonist has the same level, lifetime, first agent and random numbers. Under evolution the better life of
    each pair is the one that it is compared with.

    Attributes:
        antagonist: its objective, without meta-parameters.
        learner: its optimizers.

    Example:
        >>> AlgorithmicRegret().antagonist.gamma
        0.99
    """

    antagonist: Objective = TABLE_A2C
    learner: Learner = TABLE_A2C_LEARNER

    def __post_init__(self) -> None:
        if jax.tree.leaves(jax.eval_shape(self.antagonist.init, jax.random.key(0))):
            raise ValueError(
                f"AlgorithmicRegret.antagonist must be without meta-parameters, got {self.antagonist}; use A2C"
            )

    def score(
        self, inner: InnerLoop, births: Birth, best_return: jax.Array, spend: Spend
    ) -> tuple[jax.Array, jax.Array]:
        """See the class. A level on which the antagonist diverged has no finite score."""
        outcomes = spend(replace(inner, objective=self.antagonist, learner=self.learner), (), births)
        return outcomes.fitness - best_return, jnp.sum(outcomes.num_updates)
