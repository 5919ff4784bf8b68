"""Truncated unrolls for meta-gradients (arXiv:2310.02782): K agent updates, a validation rollout, an outer loss.

The outer loss is differentiated through the K updates; everything before them is constant. The critic beside the agent
estimates the advantages of the validation rollout.
"""

import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import KeyPurpose
from metadisco.core.types import Key, MetaParams, Metrics, Task
from metadisco.lives.critic import CriticOutput
from metadisco.lives.life import InnerLoop, Life, UpdateBatch
from metadisco.meta_training import outer_losses
from metadisco.objectives.base import Regularized

_WEIGHTS = ("policy_entropy_weight", "prediction_entropy_weight", "pi_hat_weight", "y_hat_weight")
_REGULARIZERS = ("policy_entropy", "prediction_entropy", "squared_pi_hat", "squared_y_hat")


@struct.dataclass
class UnrollState:
    """State of an unroll: a life that lasts for several meta-steps, and the update at which it ends."""

    life: Life
    until: jax.Array  # [] int32, agent updates; the lifetime, or less for a truncated life

    @property
    def is_over(self) -> jax.Array:
        """Whether no update is left. [] bool."""
        return self.life.num_updates >= self.until


@own_defaults
@dataclass(frozen=True)
class Unroll:
    """K updates, a validation rollout by the updated agent, and the outer loss.

    loss = -mean(log pi(a|s) A) - beta0 H(pi) - beta1 H(y) + beta2 mean pi_hat^2 + beta3 mean |y_hat|^2

    A is the critic's normalised advantage on the validation rollout. That rollout begins at the present states of the
    workers and is then discarded, so training goes on as without meta-gradients. The regularisers are means over the
    updates: of their targets, and of the updated agent's outputs on the observations of the update. H(y), pi_hat and
    y_hat come from the objective (`Regularized`); their terms are 0 for an objective without them.

    Attributes:
        num_updates: K. The last unroll of a life has the updates that are left.
        policy_entropy_weight: beta0.
        prediction_entropy_weight: beta1.
        pi_hat_weight: beta2.
        y_hat_weight: beta3.
        remat: rematerialise updates in the backward pass: memory for K agents and one update instead of K updates, at
            the cost of about one more forward pass.

    Example:
        >>> Unroll(num_updates=2).policy_entropy_weight
        0.05
    """

    num_updates: int = 5
    policy_entropy_weight: float = 0.05
    prediction_entropy_weight: float = 0.001
    pi_hat_weight: float = 0.005
    y_hat_weight: float = 0.001
    remat: bool = False

    def __post_init__(self) -> None:
        if self.num_updates < 1:
            raise ValueError(f"Unroll.num_updates must be at least 1, got {self.num_updates}")
        for name in _WEIGHTS:
            value = getattr(self, name)
            if not (value >= 0.0 and math.isfinite(value)):
                raise ValueError(f"Unroll.{name} must not be negative and must be finite, got {value}")

    def check(self, inner: InnerLoop) -> None:
        """Raise ValueError where there is no critic for the validation rollout."""
        if inner.critic is None:
            raise ValueError(
                "meta-gradients need InnerLoop.critic for the advantages of the validation rollout; use Critic()"
            )

    def begin(self, inner: InnerLoop, key: Key, task: Task) -> UnrollState:
        """Unroll state of a new agent."""
        return UnrollState(inner.begin(key, task), task.lifetime)

    def advance(
        self, inner: InnerLoop, meta_params: MetaParams, unroll_state: UnrollState
    ) -> tuple[jax.Array, tuple[tuple[UnrollState, CriticOutput], Metrics]]:
        """Advance one life by K updates, or by those that are left.

        Args:
            inner: the inner loop.
            meta_params: the loss is differentiable with respect to them, and to nothing else.
            unroll_state: not over yet.

        Returns:
            The outer loss, [] float32; the new unroll state, the critic output of the validation rollout, and means of
            the metrics over the updates done.
        """
        unroll_state = jax.lax.stop_gradient(unroll_state)

        def update(unroll_state: UnrollState, _: None) -> tuple[UnrollState, tuple[Metrics, jax.Array]]:
            life, update_batch, metrics = inner.learn(meta_params, unroll_state.life)
            terms = metrics | _regularizers(inner, life, update_batch)
            # Masked, unlike whole lives under evolution: a backward pass needs a fixed number of updates.
            terms = {name: jnp.where(unroll_state.is_over, 0.0, term) for name, term in terms.items()}
            return trees.where(unroll_state.is_over, unroll_state, replace(unroll_state, life=life)), (
                terms,
                ~unroll_state.is_over,
            )

        body = jax.checkpoint(update) if self.remat else update
        unroll_state, (terms, counts) = jax.lax.scan(body, unroll_state, None, length=self.num_updates)
        num_updates = jnp.maximum(jnp.sum(counts), 1)
        means = {name: jnp.sum(term) / num_updates for name, term in terms.items()}
        validation_loss, critic_output, reward = self._validate(inner, unroll_state.life)
        weights = tuple(getattr(self, name) for name in _WEIGHTS)
        loss = validation_loss + outer_losses.regularization(*(means[name] for name in _REGULARIZERS), weights=weights)
        metrics = means | {"validation_loss": validation_loss, "validation_reward": reward}
        return loss, (jax.lax.stop_gradient((unroll_state, critic_output)), metrics)

    def _validate(self, inner: InnerLoop, life: Life) -> tuple[jax.Array, CriticOutput, jax.Array]:
        """Validation loss, critic output and mean reward of a new rollout."""
        experience, _, _ = inner.act(life, KeyPurpose.VALIDATE)
        trajectory = inner.perceive(life, experience)
        outputs = inner.agent.apply(life.agent_params, trajectory.obs)
        log_prob = distributions.log_prob(outputs, trajectory.action)
        critic_output = inner.assess(life, trajectory)
        return (
            outer_losses.policy_gradient_loss(log_prob, critic_output.advantage),
            critic_output,
            jnp.mean(experience.reward),
        )


def _regularizers(inner: InnerLoop, life: Life, update_batch: UpdateBatch) -> Metrics:
    """Regularisers of the outer loss, [] each; 0 for those that the objective does not have."""
    outputs = inner.agent.apply(life.agent_params, update_batch.trajectory.obs)
    terms = {name: jnp.zeros(()) for name in _REGULARIZERS}
    terms["policy_entropy"] = jnp.mean(distributions.entropy(outputs))
    if isinstance(inner.objective, Regularized):
        terms |= inner.objective.regularizers(update_batch.targets, outputs)
    return terms
