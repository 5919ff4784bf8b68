"""Antagonists: what else could have been had on a level, for the agent's return to be compared with.

One that learns has a life of its own, beside that of the agent: begun with it and one update for each of its updates,
so that it costs one more agent and not one more lifetime per meta-step. For the others the answer is known, or found,
when the life is over.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import jax
import jax.numpy as jnp

from metadisco.agents.networks import Constant, Table
from metadisco.core import trees
from metadisco.core.types import Key, Task
from metadisco.envs.gridworld import oracle
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.tuned import TABLE_A2C, TABLE_A2C_LEARNER
from metadisco.objectives.base import Objective


class Antagonist(Protocol):
    """Somebody to compare with."""

    def check(self, inner: InnerLoop) -> None:
        """Raise ValueError where it cannot live like these agents, and say what to use instead."""

    def antagonist(self, inner: InnerLoop) -> InnerLoop | None:
        """How it lives, on the levels and for the lifetimes of agents that live as `inner` says; None: it does not."""

    def expected_return(self, inner: InnerLoop, key: Key, task: Task, antagonist_return: jax.Array) -> jax.Array:
        """Undiscounted episode return of the antagonist on one task. [] float32.

        Args:
            inner: how the agent lived.
            key: of this task.
            task: what is played.
            antagonist_return: [] float32, mean return of the antagonist at the end of its life; 0 where there is none.
        """


@dataclass(frozen=True)
class LearningAntagonist:
    """An agent that learns by hand-written rules, from the same key and with the same budget (arXiv:2310.02782).

    Attributes:
        objective: its rule, without meta-parameters.
        learner: its optimizers.

    Example:
        >>> LearningAntagonist().objective.gamma
        0.99
    """

    objective: Objective = TABLE_A2C
    learner: Learner = TABLE_A2C_LEARNER

    def __post_init__(self) -> None:
        if jax.tree.leaves(jax.eval_shape(lambda: self.objective.init(jax.random.key(0)))):
            raise ValueError(
                f"LearningAntagonist.objective must be without meta-parameters, got {self.objective}; use A2C"
            )

    def check(self, inner: InnerLoop) -> None:
        """It must be able to act and observe; the default rates are for tables."""
        if self == LearningAntagonist() and not isinstance(inner.torso, Table):
            raise ValueError(
                f"the default LearningAntagonist is tuned for Table agents, got {inner.torso}; give an objective and "
                "a learner that suit these"
            )
        self.antagonist(inner)

    def antagonist(self, inner: InnerLoop) -> InnerLoop:
        """As the agents, but for the rule."""
        return replace(inner, objective=self.objective, learner=self.learner, critic=None)

    def expected_return(self, inner: InnerLoop, key: Key, task: Task, antagonist_return: jax.Array) -> jax.Array:
        """What the antagonist got. [] float32."""
        del inner, key, task
        return antagonist_return


@dataclass(frozen=True)
class RandomPolicy:
    """All actions are equally likely; its return is estimated by `num_test_workers` episodes.

    Example:
        >>> from metadisco.agents.networks import Table
        >>> from metadisco.envs.gridworld.dynamics import GridWorld
        >>> from metadisco.objectives.lpg import LPG
        >>> RandomPolicy().antagonist(InnerLoop(GridWorld(), Table(), LPG())) is None
        True
    """

    def check(self, inner: InnerLoop) -> None:
        """It can live anywhere."""
        del inner

    def antagonist(self, inner: InnerLoop) -> None:
        """It does not learn."""
        del inner

    def expected_return(self, inner: InnerLoop, key: Key, task: Task, antagonist_return: jax.Array) -> jax.Array:
        """Play. [] float32."""
        del antagonist_return
        ignorant = replace(inner, torso=Constant(), critic=None)
        lives = trees.stack([ignorant.begin(key, task)])
        return jnp.mean(ignorant.evaluate(lives, slots=1))


@dataclass(frozen=True)
class Expert:
    """The best policy, which may depend on time, by exact dynamic programming (`gridworld_oracle`).

    Example:
        >>> from metadisco.agents.networks import Table
        >>> from metadisco.envs.gridworld.dynamics import GridWorld
        >>> from metadisco.objectives.lpg import LPG
        >>> Expert().check(InnerLoop(GridWorld(), Table(), LPG()))
    """

    def check(self, inner: InnerLoop) -> None:
        """Raise ValueError where there is no exact solution."""
        try:
            oracle.tabular(inner.env)
        except ValueError as error:
            raise ValueError(f"an Expert needs an oracle: {error}; or use LearningAntagonist()") from error

    def antagonist(self, inner: InnerLoop) -> None:
        """It does not learn."""
        del inner

    def expected_return(self, inner: InnerLoop, key: Key, task: Task, antagonist_return: jax.Array) -> jax.Array:
        """Solve the level. [] float32."""
        del key, antagonist_return
        return oracle.optimal_return(oracle.tabular(inner.env), task.level)
