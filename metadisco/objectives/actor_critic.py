"""Advantage actor-critic (arXiv:1602.01783), synchronous: the hand-written baseline and antagonist."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from metadisco import returns
from metadisco.agents import distributions
from metadisco.agents.networks import Heads
from metadisco.envs.base import EnvSpec
from metadisco.objectives.base import Predictions
from metadisco.types import Key, Metrics, Outputs, Progress, Trajectory


@struct.dataclass
class A2CTargets:
    """Constants of the A2C loss."""

    advantage: jax.Array  # [T, B] float32
    value: jax.Array  # [T, B] float32, lambda-returns


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
        >>> from metadisco.envs.gridworld import GridWorld
        >>> A2C(entropy_weight=0.0).heads(GridWorld().spec)
        {'logits': 5, 'value': 1}
    """

    gamma: float = 0.99
    gae_lambda: float = 0.95
    value_weight: float = 1.0
    entropy_weight: float = 0.01

    def __post_init__(self) -> None:
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"A2C.{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("value_weight", "entropy_weight"):
            value = getattr(self, name)
            if not (value >= 0.0 and math.isfinite(value)):
                raise ValueError(f"A2C.{name} must not be negative and must be finite, got {value}")

    def heads(self, spec: EnvSpec) -> Heads:
        """A policy and a value."""
        return {"logits": spec.num_actions, "value": 1}

    def init(self, key: Key) -> tuple[()]:
        """Nothing is learned."""
        del key
        return ()

    def targets(
        self, meta_params: tuple[()], predictions: Predictions, trajectory: Trajectory, progress: Progress
    ) -> A2CTargets:
        """Advantages and lambda-returns, over time for each worker."""
        del meta_params, progress
        value, next_value = predictions.now["value"][..., 0], predictions.next["value"][..., 0]
        estimate = partial(returns.generalized_advantages, gamma=self.gamma, gae_lambda=self.gae_lambda)
        advantage = jax.vmap(estimate, in_axes=1, out_axes=1)(
            trajectory.reward, trajectory.terminated, trajectory.truncated, value, next_value
        )
        return A2CTargets(advantage, value + advantage)

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
        log_prob = distributions.log_prob_categorical(outputs["logits"], trajectory.action)
        policy_loss = -jnp.mean(log_prob * targets.advantage)
        value_loss = 0.5 * jnp.mean(jnp.square(outputs["value"][..., 0] - targets.value))
        entropy = jnp.mean(distributions.entropy_categorical(outputs["logits"]))
        loss = policy_loss + self.value_weight * value_loss - self.entropy_weight * entropy
        return loss, {"entropy": entropy, "value_loss": value_loss}
