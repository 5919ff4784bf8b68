"""A stretch of a life that can be differentiated: K updates, then a rollout that says what they were good for.

Truncated meta-gradients (arXiv:2310.02782): the loss of an agent after K updates depends on the objective through
these updates, and on what was before only as on a constant. Beside the agent lives a critic.
"""

import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from metadisco import trees
from metadisco.agents import distributions
from metadisco.critic import Critic, CriticState
from metadisco.life import VALIDATE, InnerLoop, Lesson, Life
from metadisco.meta import losses
from metadisco.objectives.base import Regularized
from metadisco.types import Key, MetaParams, Metrics, Task

_WEIGHTS = ("policy_entropy_weight", "prediction_entropy_weight", "pi_hat_weight", "y_hat_weight")
_REGULARIZERS = ("policy_entropy", "prediction_entropy", "squared_pi_hat", "squared_y_hat")


@struct.dataclass
class LifeWithCritic:
    """A life that lasts over several meta-steps, its critic, and when it is over."""

    life: Life
    critic: CriticState
    until: jax.Array  # [] int32, agent updates; the lifetime, or less for a life that is cut short

    @property
    def is_over(self) -> jax.Array:
        """Whether no update is left. [] bool."""
        return self.life.num_updates >= self.until


@dataclass(frozen=True)
class Unroll:
    """K updates, a validation rollout by the updated agent, and the outer loss.

    loss = -mean(log pi(a|s) A) - beta0 H(pi) - beta1 H(y) + beta2 mean pi_hat^2 + beta3 mean |y_hat|^2

    A is the critic's normalised advantage on the validation rollout, which begins where the workers are and is then
    forgotten: an agent lives as it would without meta-gradients. The regularisers are means over the updates: of their
    targets, and of the agent after each on the observations that it learned from. H(y), pi_hat and y_hat are asked of
    the objective (`Regularized`); one that does not have them is not held back by them.

    Attributes:
        num_updates: K. The last stretch of a life does those that are left.
        critic: lives beside the agent; it is fitted to a rollout after the agent has learned from it.
        policy_entropy_weight: beta0.
        prediction_entropy_weight: beta1.
        pi_hat_weight: beta2.
        y_hat_weight: beta3.
        remat: compute the insides of an update again when it is differentiated, instead of keeping them: memory for K
            agents and one update instead of K updates, for about one more forward pass.

    Example:
        >>> Unroll(num_updates=2).critic.gamma
        0.99
    """

    num_updates: int = 5
    critic: Critic = Critic()
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

    def begin(self, inner: InnerLoop, key: Key, task: Task) -> LifeWithCritic:
        """A new agent and a new critic."""
        life_key, critic_key = jax.random.split(key)
        critic = self.critic.init(critic_key, inner.env.spec)
        return LifeWithCritic(inner.begin(life_key, task), critic, task.lifetime)

    def advance(
        self, inner: InnerLoop, meta_params: MetaParams, pair: LifeWithCritic
    ) -> tuple[jax.Array, tuple[LifeWithCritic, Metrics]]:
        """Let one life go on for K updates, or as many as are left to it.

        Args:
            inner: how to live.
            meta_params: the loss is differentiable with respect to them, and to nothing else.
            pair: not over yet.

        Returns:
            The outer loss, [] float32, and what the life has become, with means of its metrics over the updates done.
        """
        pair = jax.lax.stop_gradient(pair)

        def update(pair: LifeWithCritic, _: None) -> tuple[LifeWithCritic, tuple[Metrics, jax.Array]]:
            after, terms = self._update(inner, meta_params, pair)
            # Masked, unlike whole lives under evolution: a backward pass needs a fixed number of updates.
            terms = {name: jnp.where(pair.is_over, 0.0, term) for name, term in terms.items()}
            return trees.where(pair.is_over, pair, after), (terms, ~pair.is_over)

        body = jax.checkpoint(update) if self.remat else update
        pair, (terms, counts) = jax.lax.scan(body, pair, None, length=self.num_updates)
        num_updates = jnp.maximum(jnp.sum(counts), 1)
        means = {name: jnp.sum(term) / num_updates for name, term in terms.items()}
        validation_loss, reward = self._validate(inner, pair)
        weights = tuple(getattr(self, name) for name in _WEIGHTS)
        loss = validation_loss + losses.regularization(*(means[name] for name in _REGULARIZERS), weights=weights)
        metrics = means | {"validation_loss": validation_loss, "validation_reward": reward}
        return loss, (jax.lax.stop_gradient(pair), metrics)

    def _update(
        self, inner: InnerLoop, meta_params: MetaParams, pair: LifeWithCritic
    ) -> tuple[LifeWithCritic, Metrics]:
        """One update of the agent and one of its critic; metrics and regularisers of it."""
        life, lesson, metrics = inner.learn(meta_params, pair.life)
        critic, value_loss = self.critic.update(inner.env.spec, pair.critic, lesson.trajectory)
        terms = metrics | _regularizers(inner, life, lesson) | {"value_loss": value_loss}
        return replace(pair, life=life, critic=critic), terms

    def _validate(self, inner: InnerLoop, pair: LifeWithCritic) -> tuple[jax.Array, jax.Array]:
        """Loss of an agent on a rollout of its own, and the mean reward of it."""
        trajectory, _, _ = inner.act(pair.life, VALIDATE)
        outputs = inner.agent.apply(pair.life.agent_params, trajectory.obs)
        log_prob = distributions.log_prob(outputs, trajectory.action)
        advantage = self.critic.advantages(inner.env.spec, pair.critic.params, trajectory)
        return losses.policy_gradient_loss(log_prob, advantage), jnp.mean(trajectory.reward)


def _regularizers(inner: InnerLoop, life: Life, lesson: Lesson) -> Metrics:
    """What the outer loss is regularised by, [] each; 0 for what the objective does not have."""
    outputs = inner.agent.apply(life.agent_params, lesson.trajectory.obs)
    terms = {name: jnp.zeros(()) for name in _REGULARIZERS}
    terms["policy_entropy"] = jnp.mean(distributions.entropy(outputs))
    if isinstance(inner.objective, Regularized):
        terms |= inner.objective.regularizers(lesson.targets, outputs)
    return terms
