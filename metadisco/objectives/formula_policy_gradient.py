"""A policy gradient whose advantage is replaced by a formula: what symbolic regression makes of LPG's pi_hat.

LPG (arXiv:2007.08794) reads a rollout with a recurrent net and a prediction vector of its own. Here a formula is told
what a person would look at: reward, advantage and value by a value baseline, probability of the action, progress.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.core import formulas
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives.actor_critic import A2CTargets, check_actor_critic, estimate
from metadisco.objectives.base import Predictions

INPUTS = ("advantage", "td_error", "reward", "value", "finished", "prob", "t", "log_lifetime")
_PART = "pi_hat"


def statistics(
    now: Outputs, following: Outputs, trajectory: Trajectory, progress: Progress, *, gamma: float, gae_lambda: float
) -> dict[str, jax.Array]:
    """What a formula is told of each step, by the names in `INPUTS`. [T, B] float32 each.

    Args:
        now: outputs at `trajectory.obs`, with the head `value`.
        following: likewise at `trajectory.next_obs`.
        trajectory: [T, B].
        progress: before the update.
        gamma: discount of advantages and of the one-step error.
        gae_lambda: lambda of the advantages.
    """
    value, after = now["value"][..., 0], following["value"][..., 0]
    estimated = estimate(Predictions(now, following), trajectory, gamma=gamma, gae_lambda=gae_lambda)
    return {
        "advantage": estimated.advantage,
        "td_error": trajectory.reward + gamma * jnp.where(trajectory.terminated, 0.0, after) - value,
        "reward": trajectory.reward,
        "value": value,
        "finished": trajectory.finished.astype(jnp.float32),
        "prob": jnp.exp(distributions.log_prob(now, trajectory.action)),
        "t": jnp.broadcast_to(progress.fraction, value.shape),
        "log_lifetime": jnp.broadcast_to(progress.log_lifetime, value.shape),
    }


@own_defaults
@dataclass(frozen=True)
class FormulaPolicyGradient:
    """A policy gradient with pi_hat from a formula, and a value baseline for what the formula is told.

    loss = mean_t[ -log pi(a_t|s_t) pi_hat_t + value_weight (V(s_t) - G_t)^2 / 2 - entropy_weight H(pi(.|s_t)) ]

    pi_hat is a constant. With the formula `advantage` it is A2C. The constants of the formula are the meta-parameters.

    Attributes:
        formula: of `INPUTS`: advantage, one-step error, reward, value, whether an episode ended, probability of the
            action, t = n/N and log N; see `metadisco.core.formulas`.
        gamma: discount in [0, 1].
        gae_lambda: lambda of the advantages and of the returns G, in [0, 1].
        value_weight: weight of the squared value error.
        entropy_weight: weight of the entropy bonus.

    Example:
        >>> FormulaPolicyGradient("2.0 * advantage * (1 - prob)").features
        ('advantage', 'prob')
    """

    formula: str
    gamma: float = 0.99
    gae_lambda: float = 0.95
    value_weight: float = 1.0
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        check_actor_critic(self)
        _ = self.expressions

    @property
    def expressions(self) -> Mapping[str, formulas.Expression]:
        """The formula as it is written, by what it says."""
        return {_PART: formulas.parse(self.formula, INPUTS)}

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs that stand in the formula."""
        used = formulas.inputs_of(self.expressions[_PART])
        return tuple(name for name in INPUTS if name in used)

    @property
    def written(self) -> MetaParams:
        """Meta-parameters: the constants as they are written."""
        return formulas.written(self.expressions)

    def heads(self, spec: EnvSpec) -> Heads:
        """A policy and a value. Raises ValueError where the formula reads a probability and actions are continuous."""
        if "prob" in self.features and not isinstance(spec.action, Discrete):
            raise ValueError(f"the formula {self.formula!r} reads the probability of an action, got {spec.action}")
        return {**distributions.of_space(spec.action).heads(), "value": 1}

    def init(self, key: Key) -> MetaParams:
        """Constants near those that are written, for a search that begins there."""
        return formulas.initial(key, self.expressions)

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
        """The formula's pi_hat in place of the advantage, and lambda-returns."""
        estimator = {"gamma": self.gamma, "gae_lambda": self.gae_lambda}
        told = statistics(predictions.now, predictions.next, trajectory, progress, **estimator)
        told = {name: jax.lax.stop_gradient(each) for name, each in told.items()}
        pi_hat = formulas.evaluate(self.expressions[_PART], told, formulas.constants_in(meta_params, _PART))
        pi_hat = jnp.broadcast_to(pi_hat, trajectory.reward.shape)
        return A2CTargets(pi_hat, told["value"] + told["advantage"]), state

    def loss(
        self,
        meta_params: MetaParams,
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
        metrics = {"entropy": entropy, "value_loss": value_loss, "pi_hat": jnp.mean(targets.advantage)}
        return loss, metrics | {"pi_hat_scale": jnp.sqrt(jnp.mean(jnp.square(targets.advantage)))}
