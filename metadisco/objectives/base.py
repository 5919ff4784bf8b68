"""What an objective is: the rule that turns experience into a loss.

Hand-written algorithms are objectives without meta-parameters (`init` returns `()`), so baselines, antagonists and
discovered objectives run through the same code. What an objective remembers of an agent from update to update, such as
running moments, a target network or a recurrent state, is its state: part of the agent's life, saved and resumed with
it, and `()` for an objective that remembers nothing.
"""

from typing import Any, Protocol, runtime_checkable

import jax
from flax import struct

from metadisco.agents.agent import Agent
from metadisco.agents.networks import Heads
from metadisco.core.types import AgentParams, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec

Targets = Any  # pytree of arrays [T, B, ...], constant while the loss is differentiated
ObjectiveState = Any  # pytree of arrays, of one agent; () for an objective that remembers nothing


@struct.dataclass
class Predictions:
    """An agent's outputs along a trajectory, by the parameters that acted, and the agent itself.

    Outputs that are made up, as in a test, may come without an agent; an objective with a target network needs one.
    """

    now: Outputs  # [T, B, width] by head, at `obs`
    next: Outputs  # [T, B, width] by head, at `next_obs`
    agent_params: AgentParams = ()  # that acted
    agent: Agent | None = struct.field(pytree_node=False, default=None)


def predict(agent: Agent, agent_params: AgentParams, trajectory: Trajectory) -> Predictions:
    """An agent's outputs along a trajectory [T, B], by any parameters of it: also those of a target network."""
    now, after = agent.apply(agent_params, trajectory.obs), agent.apply(agent_params, trajectory.next_obs)
    return Predictions(now, after, agent_params, agent)


class Objective(Protocol):
    """A learning rule.

    Its state is computed once per update, beside the targets, and belongs to one agent: each life has its own. An
    objective with running moments and a target network, such as Disco103, would

    - begin in `init_state` with moments of 0, a recurrent state of 0 and `agent_params` as the target network;
    - ask in `targets` for `predict(predictions.agent, state.target_params, trajectory)`, update moments and recurrent
      state, and move the target network towards `predictions.agent_params`. These are the parameters that acted, before
      this update; what the update makes of them is there at the next one.

    By meta-gradients the state is differentiated like the rest of a life: within an unroll, and constant before it.
    What must not carry a gradient is stopped by the objective. An initial state that is learned is part of the
    meta-parameters, and selected in `targets` where `progress.num_updates` is 0.
    """

    def heads(self, spec: EnvSpec) -> Heads:
        """Outputs that the agent must have. Raises ValueError where the objective does not fit the spaces."""

    def init(self, key: Key) -> MetaParams:
        """Random meta-parameters; () where there are none."""

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> ObjectiveState:
        """What is remembered of a new agent; () for nothing. Lives of the same key, task and agent begin with the same.

        An agent whose state is no longer finite counts as diverged, so infinity cannot stand for "nothing yet".

        Args:
            key: of this life, for what is drawn.
            agent: with its spaces and heads.
            agent_params: with which the life begins.
            num_workers: B, for what is remembered of each worker.
        """

    def targets(
        self,
        meta_params: MetaParams,
        state: ObjectiveState,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[Targets, ObjectiveState]:
        """Whatever the loss needs that does not depend on the agent's present parameters, and the state afterwards.

        Computed once per rollout, on all of it. The state keeps its structure, shapes and dtypes.
        """

    def loss(
        self, meta_params: MetaParams, targets: Targets, outputs: Outputs, trajectory: Trajectory, progress: Progress
    ) -> tuple[jax.Array, Metrics]:
        """A scalar to descend, differentiated with respect to the agent's parameters through `outputs`, and metrics."""


@runtime_checkable
class Regularized(Protocol):
    """An objective that says how far its targets have gone, for an outer loss that holds them back. Optional."""

    def regularizers(self, targets: Targets, outputs: Outputs) -> dict[str, jax.Array]:
        """Any of `prediction_entropy` H(y), `squared_pi_hat` and `squared_y_hat`, means over [T, B]: [] float32.

        Args:
            targets: of one update.
            outputs: [T, B, width] by head, of the agent after that update, on the same observations.
        """


@runtime_checkable
class NamedInputs(Protocol):
    """An objective that is learned, and whose inputs have names. Optional."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
