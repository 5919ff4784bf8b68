"""Mirror learning (arXiv:2201.02373): PPO, DPO and LPO are one objective that differs in its drift.

Use several epochs or minibatches (`Learner.num_epochs`, `Learner.num_minibatches`): on the first minibatch of an update
the ratio is 1 everywhere, where a drift has no gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.core import returns
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.objectives.actor_critic import A2CTargets, check_actor_critic, estimate
from metadisco.objectives.base import Predictions
from metadisco.objectives.drift import LARGEST_LOG_RATIO, Drift, PPODrift


@own_defaults
@dataclass(frozen=True)
class MirrorLearning:
    """Policy optimization with a drift, generalised advantages and a value baseline; with the default drift, PPO.

    loss = mean_t[ -(r_t A_t - D(r_t, A_t)) + value_weight (V(s_t) - G_t)^2 / 2 - entropy_weight H(pi(.|s_t)) ]

    r = pi(a|s) / pi_old(a|s), pi_old the policy that acted; A is normalised over the samples that the loss is given,
    so per minibatch; D sees the normalised A. A, G and pi_old are constants.

    Attributes:
        drift: D.
        gamma: discount in [0, 1].
        gae_lambda: lambda of the advantages and of the returns G, in [0, 1].
        value_weight: weight of the squared value error.
        entropy_weight: weight of the entropy bonus.

    Note:
        The value loss is not clipped as in some public code of PPO: arXiv:2006.05990 found no use in it.

    Example:
        >>> from metadisco.envs.gridworld.dynamics import GridWorld
        >>> from metadisco.objectives.drift import DPODrift
        >>> MirrorLearning(DPODrift(), entropy_weight=0.0).heads(GridWorld().spec)
        {'logits': 5, 'value': 1}
    """

    uses_importance_ratio: ClassVar[bool] = True

    drift: Drift = PPODrift()
    gamma: float = 0.99
    gae_lambda: float = 0.95
    value_weight: float = 1.0
    entropy_weight: float = 0.01

    def __post_init__(self) -> None:
        check_actor_critic(self)

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the drift, in order; () where it is not learned."""
        return self.drift.features

    def heads(self, spec: EnvSpec) -> Heads:
        """A policy and a value."""
        return {**distributions.of_space(spec.action).heads(), "value": 1}

    def init(self, key: Key) -> MetaParams:
        """Those of the drift."""
        return self.drift.init(key)

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> tuple[()]:
        """Nothing is remembered."""
        del key, agent, agent_params, num_workers
        return ()

    def targets(
        self,
        meta_params: MetaParams,
        state: tuple[()],
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[A2CTargets, tuple[()]]:
        """Advantages, not yet normalised, and lambda-returns, over time for each worker."""
        del meta_params, progress
        return estimate(predictions, trajectory, gamma=self.gamma, gae_lambda=self.gae_lambda), state

    def loss(
        self,
        meta_params: MetaParams,
        targets: A2CTargets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """The equation above, averaged over steps and workers. `kl` is the estimate mean[r - 1 - log r]."""

        def penalty(log_ratio: jax.Array, advantage: jax.Array) -> jax.Array:
            return self.drift.penalty(meta_params, log_ratio, advantage, progress.fraction)

        return mirror_loss(
            penalty,
            targets,
            outputs,
            trajectory,
            value_weight=self.value_weight,
            entropy_weight=self.entropy_weight,
        )


def mirror_loss(
    penalty: Callable[[jax.Array, jax.Array], jax.Array],
    targets: A2CTargets,
    outputs: Outputs,
    trajectory: Trajectory,
    *,
    value_weight: float | jax.Array,
    entropy_weight: float | jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The loss of `MirrorLearning` with any D(log r, A) and any weights, and its metrics."""
    log_ratio = distributions.log_prob(outputs, trajectory.action) - trajectory.log_prob
    log_ratio = jnp.minimum(log_ratio, LARGEST_LOG_RATIO)
    advantage = returns.normalize(targets.advantage)
    drift = jnp.mean(penalty(log_ratio, advantage))
    policy_loss = drift - jnp.mean(jnp.exp(log_ratio) * advantage)
    value_loss = 0.5 * jnp.mean(jnp.square(outputs["value"][..., 0] - targets.value))
    entropy = jnp.mean(distributions.entropy(outputs))
    loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
    kl = jnp.mean(jnp.expm1(log_ratio) - log_ratio)
    return loss, {"entropy": entropy, "value_loss": value_loss, "drift": drift, "kl": kl}


def PPO(  # noqa: N802 - a constructor of MirrorLearning
    *,
    clip: float = 0.2,
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
    value_weight: float = 1.0,
    entropy_weight: float = 0.01,
) -> MirrorLearning:
    """Proximal policy optimization (arXiv:1707.06347): mirror learning with its drift.

    Args:
        clip: eps of the ratio.
        gamma: see `MirrorLearning`.
        gae_lambda: see `MirrorLearning`.
        value_weight: see `MirrorLearning`.
        entropy_weight: see `MirrorLearning`.

    Example:
        >>> PPO(clip=0.1).drift
        PPODrift(clip=0.1)
    """
    return MirrorLearning(PPODrift(clip), gamma, gae_lambda, value_weight, entropy_weight)
