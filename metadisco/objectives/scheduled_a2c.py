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
from metadisco.objectives import episodes, schedule
from metadisco.objectives.actor_critic import estimate
from metadisco.objectives.base import Predictions
from metadisco.objectives.schedule import SHARED_OUTPUTS

INPUTS = (
    "fraction_of_lifetime",
    "log_lifetime",
    "mean_reward",
    "reward_trend",
    "best_mean_reward",
    "reward_density",
    "reward_seen",
    "entropy",
    "value_error",
)
ALL_INPUTS = (*INPUTS, *episodes.INPUTS)
OUTPUTS = (*SHARED_OUTPUTS, "loss_scale", "advantage_offset")
_MAX_LOG_FACTOR = 5.0  # factors are at most e^5


@struct.dataclass
class RewardHistory:
    """Statistics of the rewards that one agent has had, in units of the environment. [] each."""

    largest: jax.Array  # float32, |reward|
    fast: jax.Array  # float32, running mean over updates of the rollouts' mean reward
    slow: jax.Array  # float32, likewise, over about eight updates
    best: jax.Array  # float32, highest mean reward of a rollout
    num_updates: jax.Array  # int32
    episodes: episodes.EpisodeHistory

    @property
    def unit(self) -> jax.Array:
        """What rewards are divided by: 1 where none has been seen."""
        return jnp.where(self.largest > 0.0, self.largest, 1.0)


def observe(state: RewardHistory, trajectory: Trajectory) -> RewardHistory:
    """The history after a rollout. The first rollout sets both running means."""
    reward = trajectory.reward
    mean, is_first = jnp.mean(reward), state.num_updates == 0
    return RewardHistory(
        largest=jnp.maximum(state.largest, jnp.max(jnp.abs(reward))),
        fast=schedule.follow(state.fast, mean, schedule.FAST, is_first),
        slow=schedule.follow(state.slow, mean, schedule.SLOW, is_first),
        best=jnp.where(is_first, mean, jnp.maximum(state.best, mean)),
        num_updates=state.num_updates + 1,
        episodes=episodes.observe(state.episodes, trajectory.finished),
    )


def inputs(
    state: RewardHistory,
    predictions: Predictions,
    trajectory: Trajectory,
    progress: Progress,
    *,
    gamma: float,
    names: tuple[str, ...] = INPUTS,
) -> jax.Array:
    """Inputs of the net, all of order 1. Means of rewards are small numbers per step, so they are stretched.

    Args:
        state: with this rollout.
        predictions: with the head `value`, of scaled rewards.
        trajectory: [T, B], rewards in units of the environment.
        progress: before the update.
        gamma: discount of the value errors.
        names: of the inputs, among `ALL_INPUTS`.

    Returns:
        One number for each name, float32, in their order.
    """
    unit = state.unit
    value, after = (each["value"][..., 0] for each in (predictions.now, predictions.next))
    error = trajectory.reward / unit + gamma * jnp.where(trajectory.terminated, 0.0, after) - value
    columns = {
        "fraction_of_lifetime": 2.0 * progress.fraction - 1.0,
        "log_lifetime": progress.log_lifetime - schedule.TYPICAL_LOG_LIFETIME,
        "mean_reward": jnp.tanh(10.0 * state.fast / unit),
        "reward_trend": jnp.tanh(30.0 * (state.fast - state.slow) / unit),
        "best_mean_reward": jnp.tanh(10.0 * state.best / unit),
        "reward_density": jnp.tanh(10.0 * jnp.mean((trajectory.reward != 0.0).astype(jnp.float32))),
        "reward_seen": (state.largest > 0.0).astype(jnp.float32),
        "entropy": schedule.entropy_share(predictions.now),
        "value_error": jnp.log(1e-3 + jnp.sqrt(jnp.mean(jnp.square(error)))) / 3.0 + 1.0,
        **episodes.inputs(state.episodes),
    }
    return jnp.stack([columns[name] for name in names])


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
        inputs: what the net sees, in order; some or all of `ALL_INPUTS`.
        formulas: in place of the net, a formula of the inputs for each of `OUTPUTS`; see `metadisco.core.formulas`.

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
    inputs: tuple[str, ...] = INPUTS
    formulas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"ScheduledA2C.width must be at least 1, got {self.width}")
        schedule.check_base("ScheduledA2C", gamma=self.gamma, gae_lambda=self.gae_lambda)
        if not (self.entropy_weight >= 0.0 and math.isfinite(self.entropy_weight)):
            raise ValueError(
                f"ScheduledA2C.entropy_weight must not be negative and must be finite, got {self.entropy_weight}"
            )
        check_positive(self, "loss_scale")
        if not self.inputs or len(set(self.inputs)) < len(self.inputs) or not set(self.inputs) <= set(ALL_INPUTS):
            raise ValueError(
                f"ScheduledA2C.inputs must be different names among {', '.join(ALL_INPUTS)}, got {self.inputs}"
            )
        self.rule.check("ScheduledA2C")

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the net, in order."""
        return self.inputs

    @property
    def rule(self) -> schedule.Rule:
        """The net, or the formulas."""
        return schedule.Rule(self.inputs, OUTPUTS, self.width, self.formulas)

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
        return self.rule.init(key)

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> RewardHistory:
        """No reward has been seen."""
        del key, agent, agent_params
        zero = jnp.zeros((), jnp.float32)
        return RewardHistory(zero, zero, zero, zero, jnp.zeros((), jnp.int32), episodes.none(num_workers))

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
        state = observe(state, trajectory)
        reward = trajectory.reward / state.unit
        told = self.see(state, predictions, trajectory, progress)
        said = self.coefficients(meta_params, told)
        return self.by(said, predictions, replace(trajectory, reward=reward)), state

    def told(
        self, state: RewardHistory, predictions: Predictions, trajectory: Trajectory, progress: Progress
    ) -> jax.Array:
        """See `metadisco.objectives.schedule.Scheduled`."""
        return self.see(observe(state, trajectory), predictions, trajectory, progress)

    def see(
        self, state: RewardHistory, predictions: Predictions, trajectory: Trajectory, progress: Progress
    ) -> jax.Array:
        """What the net is told, in the order of `features`; see `inputs`."""
        return inputs(state, predictions, trajectory, progress, gamma=self.gamma, names=self.inputs)

    def by(self, said: Coefficients, predictions: Predictions, trajectory: Trajectory) -> ScheduledTargets:
        """Advantages and returns by given coefficients, of a trajectory whose rewards are scaled."""
        estimated = estimate(predictions, trajectory, gamma=said.gamma, gae_lambda=said.gae_lambda)
        advantage = estimated.advantage - said.advantage_offset * jnp.mean(estimated.advantage)
        return ScheduledTargets(advantage, estimated.value, schedule.at_all_steps(said, trajectory))

    def coefficients(self, meta_params: MetaParams, inputs: jax.Array) -> Coefficients:
        """What the net makes of its inputs, in the order of `features`. [I] float32."""
        said = self.rule.say(meta_params, inputs)
        return Coefficients(
            policy_step=factor(said["policy_step"]),
            prediction_step=factor(said["prediction_step"]),
            entropy_weight=self.entropy_weight + said["entropy_weight"] / 50.0,
            gae_lambda=moved(self.gae_lambda, said["gae_lambda"]),
            gamma=moved(self.gamma, said["gamma"]),
            loss_scale=self.loss_scale * factor(said["loss_scale"]),
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


def factor(output: jax.Array) -> jax.Array:
    """A positive factor, 1 of an output of 0."""
    return jnp.exp(jnp.clip(2.0 * output, -_MAX_LOG_FACTOR, _MAX_LOG_FACTOR))


def moved(usual: float, output: jax.Array) -> jax.Array:
    """A share in (0, 1), moved in log-odds; an output of 0 leaves it as it is."""
    return jax.nn.sigmoid(math.log(usual / (1.0 - usual)) + 2.0 * output)
