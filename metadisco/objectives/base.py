"""Protocol of objectives: learning rules that turn experience into a loss.

Hand-written algorithms are objectives without meta-parameters (`init` returns `()`), so baselines, antagonists and
discovered objectives run through the same code. An objective may have a state per agent, such as running moments, a
target network or a recurrent state. It is part of the agent's life and checkpointed with it; `()` if there is none.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
from flax import struct

from metadisco.agents.agent import Agent
from metadisco.agents.learned_optimizer import LearnedOptimizer
from metadisco.agents.networks import Heads
from metadisco.core.types import AgentParams, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec

Targets = Any  # pytree of arrays [T, B, ...], constant while the loss is differentiated
ObjectiveState = Any  # pytree of arrays, of one agent; () for a stateless objective


@struct.dataclass
class Predictions:
    """An agent's outputs along a trajectory, by the parameters to be updated, and the agent itself.

    These are the parameters that acted, unless the trajectory comes from a replay buffer: `behavior` has the outputs
    that it was acted with then.

    Synthetic outputs, as in a test, may come without an agent; an objective with a target network needs one.
    """

    now: Outputs  # [T, B, width] by head, at `obs`
    next: Outputs  # [T, B, width] by head, at `next_obs`
    agent_params: AgentParams = ()  # before the update
    agent: Agent | None = struct.field(pytree_node=False, default=None)
    behavior: Outputs | None = None  # [T, B, width] by head, of the policy that acted; None where that is `now`


def predict(agent: Agent, agent_params: AgentParams, trajectory: Trajectory) -> Predictions:
    """An agent's outputs along a trajectory [T, B], by any parameters, such as those of a target network."""
    now, after = agent.apply(agent_params, trajectory.obs), agent.apply(agent_params, trajectory.next_obs)
    return Predictions(now, after, agent_params, agent)


class Objective(Protocol):
    """A learning rule.

    Its state is computed once per update, beside the targets, and belongs to one agent: each life has its own. An
    objective with running moments, a recurrent state and a target network, such as `Disco103`,

    - begins in `init_state` with moments of 0, a recurrent state of 0 and `agent_params` as the target network;
    - asks in `targets` for `predict(predictions.agent, state.target_params, trajectory)`, updates moments and recurrent
      state, and moves the target network towards `predictions.agent_params`. These are the parameters before this
      update; the updated parameters are passed to the next one.

    Meta-gradients differentiate the state like the rest of a life: within an unroll, and constant before it. Use
    `jax.lax.stop_gradient` where the state should carry no gradient. A learned initial state belongs to the
    meta-parameters; `targets` selects it where `progress.num_updates` is 0.
    """

    def heads(self, spec: EnvSpec) -> Heads:
        """Outputs that the agent must have. Raises ValueError where the objective does not fit the spaces."""

    def init(self, key: Key) -> MetaParams:
        """Random meta-parameters; () where there are none."""

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> ObjectiveState:
        """Initial state for a new agent; () for a stateless objective. Equal for equal arguments.

        An agent with a non-finite state counts as diverged, so infinity cannot be a placeholder.

        Args:
            key: of this life.
            agent: with its spaces and heads.
            agent_params: initial parameters of the agent.
            num_workers: B, for state per worker.
        """

    def targets(
        self,
        meta_params: MetaParams,
        state: ObjectiveState,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[Targets, ObjectiveState]:
        """Constants of the loss, and the new state.

        Computed once per rollout, on all of it. The state keeps its structure, shapes and dtypes.
        """

    def loss(
        self, meta_params: MetaParams, targets: Targets, outputs: Outputs, trajectory: Trajectory, progress: Progress
    ) -> tuple[jax.Array, Metrics]:
        """Scalar loss, differentiated with respect to the agent's parameters through `outputs`, and metrics."""


@runtime_checkable
class Regularized(Protocol):
    """An objective with regularisers for the outer loss. Optional."""

    def regularizers(self, targets: Targets, outputs: Outputs) -> dict[str, jax.Array]:
        """Any of `prediction_entropy` H(y), `squared_pi_hat` and `squared_y_hat`, means over [T, B]: [] float32.

        Args:
            targets: of one update.
            outputs: [T, B, width] by head, of the agent after that update, on the same observations.
        """


@runtime_checkable
class ScalesSteps(Protocol):
    """An objective that also says how large the agent's steps are. Optional.

    Weights in a loss cannot do that: an optimizer may clip or normalize gradients, as Adam does.
    """

    def step_factors(self, targets: Targets) -> dict[str, jax.Array]:
        """Factors of the updates that the optimizers propose, for all gradient steps of one agent update.

        Returns:
            [] float32 by group of parameters, `policy` or `prediction` (`metadisco.lives.learner.Learner`); a group
            that is left out is not changed.
        """


def step_factors(objective: Objective, targets: Targets) -> dict[str, jax.Array]:
    """`ScalesSteps.step_factors`; {} of an objective that does not say."""
    return objective.step_factors(targets) if isinstance(objective, ScalesSteps) else {}


@runtime_checkable
class Surrogate(Protocol):
    """An objective whose loss has the importance ratio r = pi / pi_old, as PPO's. Optional.

    It corrects for what the policy has changed since the rollout, so several gradient steps on one rollout are allowed.
    Reference agents (`metadisco.evaluation.environments`) take one step for objectives that do not declare it.
    """

    uses_importance_ratio: ClassVar[bool]


def is_surrogate(objective: Objective) -> bool:
    """`Surrogate.uses_importance_ratio`; False of an objective that does not say."""
    return isinstance(objective, Surrogate) and objective.uses_importance_ratio


@runtime_checkable
class HasOptimizer(Protocol):
    """An objective whose agents are moved by a learned optimizer: `WithOptimizer`. Optional."""

    @property
    def optimizer(self) -> LearnedOptimizer:
        """The optimizer."""

    def optimizer_params(self, meta_params: MetaParams) -> MetaParams:
        """The optimizer's part of the objective's meta-parameters."""


def learned_optimizer(objective: Objective) -> LearnedOptimizer | None:
    """`HasOptimizer.optimizer`; None where agents are moved by the learner's own optimizers alone."""
    return objective.optimizer if isinstance(objective, HasOptimizer) else None


@runtime_checkable
class NamedInputs(Protocol):
    """A learned objective with names for its inputs. Optional."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
