"""One agent update: targets, loss, gradients, optimizers."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from metadisco.agents.agent import Agent
from metadisco.objectives.base import Objective, Predictions, Targets
from metadisco.types import AgentParams, MetaParams, Metrics, Progress, Trajectory

OptState = Any

POLICY_GROUP = frozenset({"logits", "torso"})


def check_positive(component: Any, *names: str) -> None:
    """Raise ValueError unless the named settings are positive and finite."""
    for name in names:
        value = getattr(component, name)
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{type(component).__name__}.{name} must be positive and finite, got {value}")


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """The transformation of that name in optax, with a derivative also at a zero gradient: that of the identity."""

    def update(updates: AgentParams, state: optax.EmptyState, params: Any = None) -> tuple:
        del params
        square = optax.tree.norm(updates, squared=True)
        # The root has no derivative at 0, and a derivative passes through the branch that is not selected, too.
        norm = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
        is_within = (square == 0.0) | (norm < max_norm)
        clipped = jax.tree.map(lambda leaf: jnp.where(is_within, leaf, leaf / norm * max_norm), updates)
        return clipped, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class Optimizer(Protocol):
    """A named choice of optax transformation."""

    def transformation(self) -> optax.GradientTransformation:
        """Gradients to updates."""


@dataclass(frozen=True)
class SGD:
    """Gradient descent on gradients clipped to a global norm.

    Attributes:
        learning_rate: step size; the update's norm is at most `learning_rate * max_grad_norm`.
        max_grad_norm: largest global norm of the gradient of this group of parameters.
    """

    learning_rate: float = 40.0
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "max_grad_norm")

    def transformation(self) -> optax.GradientTransformation:
        """Clip, then scale."""
        return optax.chain(clip_by_global_norm(self.max_grad_norm), optax.sgd(self.learning_rate))


@dataclass(frozen=True)
class Adam:
    """Adam (arXiv:1412.6980) on gradients clipped to a global norm.

    Attributes:
        learning_rate: step size.
        max_grad_norm: largest global norm of the gradient of this group of parameters.
    """

    learning_rate: float = 1e-3
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "max_grad_norm")

    def transformation(self) -> optax.GradientTransformation:
        """Clip, then Adam."""
        # eps_root > 0: the derivative of Adam at a zero gradient is otherwise not a number, which meta-gradients need.
        return optax.chain(
            clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate, eps=1e-5, eps_root=1e-8)
        )


@dataclass(frozen=True)
class Learner:
    """How an agent follows the gradient of its objective.

    Attributes:
        policy: for the head `logits` and a network's `torso`.
        prediction: for all other heads.
    """

    policy: Optimizer = SGD()
    prediction: Optimizer = SGD(learning_rate=4.0)

    def init(self, agent_params: AgentParams) -> OptState:
        """State of both optimizers."""
        return {name: optimizer.init(group) for name, (optimizer, group) in self._groups(agent_params).items()}

    def update(
        self,
        agent: Agent,
        objective: Objective,
        meta_params: MetaParams,
        agent_params: AgentParams,
        opt_state: OptState,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[AgentParams, OptState, Targets, Metrics]:
        """Take one gradient step on the objective's loss over a rollout.

        Args:
            agent: whose parameters are updated.
            objective: the learning rule.
            meta_params: of the objective.
            agent_params: before the update.
            opt_state: of both groups.
            trajectory: [T, B], acted by `agent_params`.
            progress: before the update.

        Returns:
            Parameters, optimizer state, and the objective's targets and metrics.
        """
        predictions = Predictions(
            agent.apply(agent_params, trajectory.obs), agent.apply(agent_params, trajectory.next_obs)
        )
        targets = objective.targets(meta_params, predictions, trajectory, progress)

        def loss_fn(agent_params: AgentParams) -> tuple[jax.Array, Metrics]:
            outputs = agent.apply(agent_params, trajectory.obs)
            return objective.loss(meta_params, targets, outputs, trajectory, progress)

        (loss, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(agent_params)
        gradient_groups = self._groups(gradients)
        new_params: AgentParams = {}
        new_state: OptState = {}
        for name, (optimizer, group) in self._groups(agent_params).items():
            updates, new_state[name] = optimizer.update(gradient_groups[name][1], opt_state[name], group)
            new_params |= optax.apply_updates(group, updates)
        return new_params, new_state, targets, {"loss": loss, **metrics}

    def _groups(self, tree: AgentParams) -> dict[str, tuple[optax.GradientTransformation, AgentParams]]:
        policy = {name: leaf for name, leaf in tree.items() if name in POLICY_GROUP}
        prediction = {name: leaf for name, leaf in tree.items() if name not in POLICY_GROUP}
        groups = {"policy": (self.policy.transformation(), policy)}
        if prediction:
            groups["prediction"] = (self.prediction.transformation(), prediction)
        return groups
