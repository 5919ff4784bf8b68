"""A2C whose coefficients follow a discovered schedule: a tiny net that sees how an agent's learning goes.

What is searched is not an update rule from nothing but how the strongest hand-written one should change over a life:
some hundred meta-parameters instead of thousands. With the output layer at zero, as it is initialized, it is A2C on
scaled rewards, so a search begins there. It knows n/N and log N, as temporally-aware objectives do (arXiv:2402.05828),
and statistics of the agent, so that a schedule can react. Step sizes are its own (`ScalesSteps`), since a factor in the
loss would not pass an optimizer that clips or normalizes gradients.

It does not depend on the scale of rewards: they are divided by the largest |reward| of the life so far.
"""

import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.agents.networks import Heads
from metadisco.core.config import check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives import schedule
from metadisco.objectives.actor_critic import estimate
from metadisco.objectives.base import Predictions
from metadisco.objectives.schedule import INPUTS, SHARED_OUTPUTS, RewardHistory

OUTPUTS = (*SHARED_OUTPUTS, "loss_scale", "advantage_offset")


@struct.dataclass
class Coefficients:
    """What the net says for one update. [] float32 each."""

    policy_step: jax.Array  # factor of the updates that the learner's optimizer proposes for the policy
    prediction_step: jax.Array  # likewise for the value
    entropy_weight: jax.Array
    gae_lambda: jax.Array  # in (0, 1)
    gamma: jax.Array  # in (0, 1)
    loss_scale: jax.Array  # factor of the policy's loss, beside the optimizer's epsilon and its limit of the gradient
    advantage_offset: jax.Array  # share of the mean advantage that is subtracted


@struct.dataclass
class ScheduledTargets:
    """Constants of the loss; coefficients are the same at all steps."""

    advantage: jax.Array  # [T, B] float32, less the offset
    value: jax.Array  # [T, B] float32, lambda-returns of scaled rewards
    coefficients: Coefficients  # [T, B] float32 each


@own_defaults
@dataclass(frozen=True)
class ScheduledA2C:
    """A2C with coefficients from a net of one hidden layer.

    loss = mean_t[ -scale (log pi(a_t|s_t) A_t + entropy_weight H(pi(.|s_t))) + (V(s_t) - G_t)^2 / 2 ]

    A_t and G_t are generalised advantages and lambda-returns of rewards divided by the largest |reward| so far, this
    rollout included; A_t less `advantage_offset` times its mean. The updates that the agent's optimizers propose are
    multiplied by `policy_step` and `prediction_step`. With o the net's outputs, tanh in between: steps are exp(2 o),
    scale is loss_scale exp(2 o), o / 50 is added to entropy_weight, gamma and gae_lambda are moved by 2 o in log-odds.
    At o = 0 it is A2C with the settings below.

    Attributes:
        width: hidden units.
        gamma: discount at o = 0, in (0, 1).
        gae_lambda: lambda at o = 0, in (0, 1).
        entropy_weight: at o = 0.
        loss_scale: of the policy's loss at o = 0, positive.

    Example:
        >>> import jax
        >>> meta_params = ScheduledA2C().init(jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(meta_params))
        143
    """

    width: int = 8
    gamma: float = 0.99
    gae_lambda: float = 0.95
    entropy_weight: float = 0.0
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"ScheduledA2C.width must be at least 1, got {self.width}")
        schedule.check_base("ScheduledA2C", gamma=self.gamma, gae_lambda=self.gae_lambda)
        if not (self.entropy_weight >= 0.0 and math.isfinite(self.entropy_weight)):
            raise ValueError(
                f"ScheduledA2C.entropy_weight must not be negative and must be finite, got {self.entropy_weight}"
            )
        check_positive(self, "loss_scale")

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the net, in order."""
        return INPUTS

    def heads(self, spec: EnvSpec) -> Heads:
        """A policy and a value. Raises ValueError where actions are continuous."""
        if not isinstance(spec.action, Discrete):
            raise ValueError(
                f"ScheduledA2C reads the entropy of a policy over finitely many actions, got {spec.action}; use A2C or "
                "MirrorLearning"
            )
        return {"logits": spec.num_actions, "value": 1}

    def init(self, key: Key) -> MetaParams:
        """Random hidden units, and outputs of zero: A2C."""
        return schedule.init(key, self.width, len(OUTPUTS))

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> RewardHistory:
        """No reward has been seen."""
        del key, agent, agent_params, num_workers
        return schedule.no_rewards()

    def targets(
        self,
        meta_params: MetaParams,
        state: RewardHistory,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[ScheduledTargets, RewardHistory]:
        """Coefficients of this update, and advantages and returns by them, over time for each worker."""
        predictions = jax.lax.stop_gradient(predictions)
        state = schedule.observe(state, trajectory.reward)
        reward = trajectory.reward / state.unit
        told = schedule.inputs(state, predictions, trajectory, progress, gamma=self.gamma, value_unit=state.unit)
        said = self.coefficients(meta_params, told)
        estimated = estimate(
            predictions, replace(trajectory, reward=reward), gamma=said.gamma, gae_lambda=said.gae_lambda
        )
        advantage = estimated.advantage - said.advantage_offset * jnp.mean(estimated.advantage)
        return ScheduledTargets(advantage, estimated.value, schedule.at_all_steps(said, trajectory)), state

    def coefficients(self, meta_params: MetaParams, inputs: jax.Array) -> Coefficients:
        """What the net makes of its inputs, in the order of `features`. [9] float32."""
        said = schedule.outputs(meta_params, inputs, OUTPUTS)
        return Coefficients(
            **schedule.actor_critic(
                said, gamma=self.gamma, gae_lambda=self.gae_lambda, entropy_weight=self.entropy_weight
            ),
            loss_scale=self.loss_scale * schedule.factor(said["loss_scale"]),
            advantage_offset=said["advantage_offset"],
        )

    def loss(
        self,
        meta_params: MetaParams,
        targets: ScheduledTargets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """The equation above, averaged over steps and workers."""
        del meta_params, progress
        log_prob = distributions.log_prob(outputs, trajectory.action)
        entropy, said = distributions.entropy(outputs), targets.coefficients
        gain = jnp.mean(said.loss_scale * (log_prob * targets.advantage + said.entropy_weight * entropy))
        value_loss = 0.5 * jnp.mean(jnp.square(outputs["value"][..., 0] - targets.value))
        coefficients = {name: jnp.mean(getattr(said, name)) for name in OUTPUTS}
        return value_loss - gain, {"entropy": jnp.mean(entropy), "value_loss": value_loss, **coefficients}

    def step_factors(self, targets: ScheduledTargets) -> dict[str, jax.Array]:
        """See `metadisco.objectives.base.ScalesSteps`."""
        return schedule.step_factors(targets.coefficients)
