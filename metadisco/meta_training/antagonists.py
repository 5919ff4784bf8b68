"""Antagonists: reference returns on a level, with which the agent's return is compared.

A trained antagonist has a life beside the agent's: it starts at the same time and does one update per agent update, so
it costs one more agent and not one more lifetime per meta-step. The return of a solved antagonist is computed when the
life is over.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from metadisco.agents.networks import Constant, Table
from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Task
from metadisco.envs.gridworld import oracle
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.tuned import ANTAGONIST_A2C, ANTAGONIST_LEARNER, TABLE_A2C, TABLE_A2C_LEARNER
from metadisco.objectives.base import Objective


class Antagonist(Protocol):
    """A reference agent: trained beside the agent, or solved when a life is over."""

    def check(self, inner: InnerLoop) -> None:
        """Raise ValueError where it does not fit these agents, and say what to use instead."""


@runtime_checkable
class TrainedAntagonist(Antagonist, Protocol):
    """An antagonist that is trained on the agents' tasks."""

    def inner_loop(self, inner: InnerLoop) -> InnerLoop:
        """Its inner loop, given that of the agents."""


@runtime_checkable
class SolvedAntagonist(Antagonist, Protocol):
    """An antagonist whose return is computed when the agent's life is over."""

    def expected_return(self, inner: InnerLoop, key: Key, task: Task) -> jax.Array:
        """Undiscounted episode return on one task. [] float32.

        Args:
            inner: inner loop of the agents.
            key: of this task.
            task: the task.
        """


@own_defaults
@dataclass(frozen=True)
class LearningAntagonist:
    """An agent with a hand-written objective, the same key and the same budget (arXiv:2310.02782).

    The default is the A2C of release 0.1, by gradient descent: presets and stored runs have it. `TUNED_A2C` is the
    strongest A2C for tables that there is, over lifetimes of 16 to 256 updates.

    Attributes:
        objective: without meta-parameters.
        learner: its optimizers.

    Example:
        >>> LearningAntagonist().objective.gamma
        0.99
    """

    objective: Objective = ANTAGONIST_A2C
    learner: Learner = ANTAGONIST_LEARNER

    def __post_init__(self) -> None:
        if jax.tree.leaves(jax.eval_shape(lambda: self.objective.init(jax.random.key(0)))):
            raise ValueError(
                f"LearningAntagonist.objective must be without meta-parameters, got {self.objective}; use A2C"
            )

    def check(self, inner: InnerLoop) -> None:
        """Raise ValueError where it does not fit the agents; the default and tuned rates are for tables."""
        if self in (LearningAntagonist(), TUNED_A2C) and not isinstance(inner.torso, Table):
            raise ValueError(
                f"this LearningAntagonist is tuned for Table agents, got {inner.torso}; give an objective and "
                "a learner that suit these"
            )
        self.inner_loop(inner)

    def inner_loop(self, inner: InnerLoop) -> InnerLoop:
        """The agents' inner loop with its objective and learner."""
        return replace(inner, objective=self.objective, learner=self.learner, critic=None)


TUNED_A2C = LearningAntagonist(TABLE_A2C, TABLE_A2C_LEARNER)


@own_defaults
@dataclass(frozen=True)
class RandomPolicy:
    """The uniform policy; its return is estimated from `num_test_workers` episodes.

    Example:
        >>> from metadisco.agents.networks import Table
        >>> from metadisco.envs.gridworld.dynamics import GridWorld
        >>> from metadisco.objectives.lpg import LPG
        >>> RandomPolicy().check(InnerLoop(GridWorld(), Table(), LPG()))
    """

    def check(self, inner: InnerLoop) -> None:
        """It fits all agents."""
        del inner

    def expected_return(self, inner: InnerLoop, key: Key, task: Task) -> jax.Array:
        """Mean return of the episodes. [] float32."""
        ignorant = replace(inner, torso=Constant(), critic=None)
        lives = trees.stack([ignorant.begin(key, task)])
        return jnp.mean(ignorant.evaluate(lives, slots=1))


@own_defaults
@dataclass(frozen=True)
class Expert:
    """The best policy, which may depend on time, by exact dynamic programming (`envs.gridworld.oracle`).

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

    def expected_return(self, inner: InnerLoop, key: Key, task: Task) -> jax.Array:
        """Solve the level. [] float32."""
        del key
        return oracle.optimal_return(oracle.tabular(inner.env), task.level)
