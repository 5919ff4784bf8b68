"""Advantage actor-critic (arXiv:1602.01783), synchronous: the hand-written baseline and antagonist."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.core import returns
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.objectives.base import Predictions


@struct.dataclass
class A2CTargets:
    """Constants of the A2C loss."""

    advantage: jax.Array  # [T, B] float32
    value: jax.Array  # [T, B] float32, lambda-returns


def estimate(
    predictions: Predictions, trajectory: Trajectory, *, gamma: float | jax.Array, gae_lambda: float | jax.Array
) -> A2CTargets:
    """Generalised advantages and lambda-returns by the head `value`, over time for each worker."""
    value, next_value = predictions.now["value"][..., 0], predictions.next["value"][..., 0]
    of_worker = partial(returns.generalized_advantages, gamma=gamma, gae_lambda=gae_lambda)
    advantage = jax.vmap(of_worker, in_axes=1, out_axes=1)(
        trajectory.reward, trajectory.terminated, trajectory.truncated, value, next_value
    )
    return A2CTargets(advantage, value + advantage)


def check_actor_critic(objective: Any) -> None:
    """Raise ValueError unless the settings that actor-critic objectives share are within their ranges."""
    kind = type(objective).__name__
    for name in ("gamma", "gae_lambda"):
        if not 0.0 <= getattr(objective, name) <= 1.0:
            raise ValueError(f"{kind}.{name} must be in [0, 1], got {getattr(objective, name)}")
    for name in ("value_weight", "entropy_weight"):
        value = getattr(objective, name)
        if not (value >= 0.0 and math.isfinite(value)):
            raise ValueError(f"{kind}.{name} must not be negative and must be finite, got {value}")


@own_defaults
@dataclass(frozen=True)
class A2C:
    """Policy gradient with generalised advantages and a value baseline.

    loss = mean_t[ -log pi(a_t|s_t) A_t + value_weight (V(s_t) - G_t)^2 / 2 - entropy_weight H(pi(.|s_t)) ]

    Attributes:
        gamma: discount in [0, 1].
        gae_lambda: lambda of the advantages and of the returns G, in [0, 1].
        value_weight: weight of the squared value error.
        entropy_weight: weight of the entropy bonus.

    Example:
        >>> from metadisco.envs.gridworld.dynamics import GridWorld
        >>> A2C(entropy_weight=0.0).heads(GridWorld().spec)
        {'logits': 5, 'value': 1}
    """

    gamma: float = 0.99
    gae_lambda: float = 0.95
    value_weight: float = 1.0
    entropy_weight: float = 0.01

    def __post_init__(self) -> None:
        check_actor_critic(self)

    def heads(self, spec: EnvSpec) -> Heads:
        """A policy and a value."""
        return {**distributions.of_space(spec.action).heads(), "value": 1}

    def init(self, key: Key) -> tuple[()]:
        """Nothing is learned."""
        del key
        return ()

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> tuple[()]:
        """Nothing is remembered."""
        del key, agent, agent_params, num_workers
        return ()

    def targets(
        self,
        meta_params: tuple[()],
        state: tuple[()],
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[A2CTargets, tuple[()]]:
        """Advantages and lambda-returns, over time for each worker."""
        del meta_params, progress
        return estimate(predictions, trajectory, gamma=self.gamma, gae_lambda=self.gae_lambda), state

    def loss(
        self,
        meta_params: tuple[()],
        targets: A2CTargets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """The equation above, averaged over steps and workers."""
        del meta_params, progress
        log_prob = distributions.log_prob(outputs, trajectory.action)
        policy_loss = -jnp.mean(log_prob * targets.advantage)
        value_loss = 0.5 * jnp.mean(jnp.square(outputs["value"][..., 0] - targets.value))
        entropy = jnp.mean(distributions.entropy(outputs))
        loss = policy_loss + self.value_weight * value_loss - self.entropy_weight * entropy
        return loss, {"entropy": entropy, "value_loss": value_loss}
