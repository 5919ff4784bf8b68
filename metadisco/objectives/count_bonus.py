"""A bonus for what an agent has rarely met, beside any objective: exploration by hand, as a baseline.

An observation that has been met n times is worth bonus * n**-power more, in units of the largest |reward| that the
agent has had: the bonus of MBIE-EB (Strehl and Littman, 2008) and of arXiv:1606.01868, with counts of a table. What is
discovered about such a bonus is `metadisco.objectives.exploring_a2c`.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents.agent import Agent
from metadisco.core.config import check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import (
    Objective,
    ObjectiveState,
    Predictions,
    Targets,
    is_surrogate,
    learned_optimizer,
    step_factors,
)


def never_met(spec: EnvSpec) -> jax.Array:
    """Counts of observations before the first. [S] float32."""
    return jnp.zeros(check_countable(spec).num, jnp.float32)


def check_countable(spec: EnvSpec) -> Discrete:
    """The observations, S of them. Raises ValueError where they are not an index."""
    if not isinstance(spec.observation, Discrete):
        raise ValueError(
            f"a bonus of counts needs observations that are an index, got {spec.observation}; use an environment with "
            "such observations (GridWorld with planes=False), or the objective without the bonus"
        )
    return spec.observation


def count(visits: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Count a rollout.

    Args:
        visits: [S] float32, how often each observation was met before.
        obs: [T, B] int32.

    Returns:
        The visits with this rollout, and of them those of each step, [T, B] float32, at least 1.
    """
    visits = visits.at[obs].add(1.0)
    return visits, visits[obs]


@struct.dataclass
class BonusState:
    """What one agent has met."""

    objective: ObjectiveState
    largest: jax.Array  # [] float32, |reward| of the life so far
    visits: jax.Array  # [S] float32, of each observation


@own_defaults
@dataclass(frozen=True)
class WithCountBonus:
    """An objective that is told r_t / r_max + bonus n(s_t)**-power in place of r_t.

    r_max is the largest |reward| of the life so far, 1 before any was seen, and n counts this rollout, too, so the
    objective is told rewards of one scale.

    Attributes:
        objective: the learning rule. Meta-parameters are its own.
        bonus: of an observation that was met once, not negative.
        power: how fast the bonus falls, positive. 1/2 is how the error of a mean falls, and was found to be too
            slow on grid worlds.

    Example:
        >>> WithCountBonus(A2C(), bonus=0.1).init(jax.random.key(0))
        ()
    """

    objective: Objective = A2C()
    bonus: float = 0.1
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.bonus < float("inf"):
            raise ValueError(f"WithCountBonus.bonus must not be negative and must be finite, got {self.bonus}")
        check_positive(self, "power")
        if learned_optimizer(self.objective) is not None:
            raise ValueError(
                "WithCountBonus.objective must not bring an optimizer of its own; put the bonus inside: "
                "WithOptimizer(WithCountBonus(objective), optimizer)"
            )

    @property
    def uses_importance_ratio(self) -> bool:
        """That of the objective, see `metadisco.objectives.base.Surrogate`."""
        return is_surrogate(self.objective)

    def heads(self, spec: EnvSpec) -> Heads:
        """Those of the objective. Raises ValueError where observations cannot be counted."""
        check_countable(spec)
        return self.objective.heads(spec)

    def init(self, key: Key) -> MetaParams:
        """That of the objective."""
        return self.objective.init(key)

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> BonusState:
        """Nothing was met."""
        state = self.objective.init_state(key, agent, agent_params, num_workers)
        return BonusState(state, jnp.zeros((), jnp.float32), never_met(agent.spec))

    def targets(
        self,
        meta_params: MetaParams,
        state: BonusState,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[Targets, BonusState]:
        """Those of the objective with the rewards above."""
        largest = jnp.maximum(state.largest, jnp.max(jnp.abs(trajectory.reward)))
        visits, met = count(state.visits, trajectory.obs)
        reward = trajectory.reward / jnp.where(largest > 0.0, largest, 1.0) + self.bonus * met**-self.power
        trajectory = replace(trajectory, reward=reward)
        found, of_objective = self.objective.targets(meta_params, state.objective, predictions, trajectory, progress)
        return found, BonusState(of_objective, largest, visits)

    def loss(
        self, meta_params: MetaParams, targets: Targets, outputs: Outputs, trajectory: Trajectory, progress: Progress
    ) -> tuple[jax.Array, Metrics]:
        """That of the objective."""
        return self.objective.loss(meta_params, targets, outputs, trajectory, progress)

    def step_factors(self, targets: Targets) -> dict[str, jax.Array]:
        """See `metadisco.objectives.base.ScalesSteps`; {} where the objective does not scale steps."""
        return step_factors(self.objective, targets)
