"""Mirror learning whose coefficients follow a discovered schedule: PPO, DPO or a learned drift, and a tiny net.

With the output layer at zero, as it is initialized, it is the objective that it wraps. The net is to be used on
environments that it was not trained on, so nothing that it sees depends on the scale of rewards or on a constant added
to them, and everything that it says is within a factor of the usual: a first net, which saw the mean reward, had 0.6 on
Acrobot, where every reward is -1, and PPO 1.0.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.objectives import schedule
from metadisco.objectives.actor_critic import A2CTargets, estimate
from metadisco.objectives.base import Predictions
from metadisco.objectives.mirror_learning import PPO, MirrorLearning, mirror_loss
from metadisco.objectives.schedule import SHARED_OUTPUTS

INPUTS = ("fraction_of_lifetime", "log_lifetime", "entropy", "policy_change", "value_error", "reward_trend")
OUTPUTS = (*SHARED_OUTPUTS, "value_weight", "drift_weight")
LARGEST_FACTOR = {name: 4.0 if name in ("gae_lambda", "gamma") else 10.0 for name in OUTPUTS}  # of odds, those two
_TINY = 1e-12  # beside squares of rewards


@struct.dataclass
class LearningHistory:
    """What is remembered of one agent's learning. Rewards are means of rollouts, in units of the learner. [] each."""

    agent_params: AgentParams  # before the last update
    fast: jax.Array  # float32, running mean of rewards
    slow: jax.Array  # float32, likewise, over about eight updates
    spread: jax.Array  # float32, running mean of how far a reward is from `slow`
    num_updates: jax.Array  # int32


@struct.dataclass
class MirrorCoefficients:
    """What the net says for one update. [] float32 each."""

    policy_step: jax.Array  # factor of the updates that the learner's optimizer proposes for policy and torso
    prediction_step: jax.Array  # likewise for the value
    entropy_weight: jax.Array
    gae_lambda: jax.Array  # in (0, 1)
    gamma: jax.Array  # in (0, 1)
    value_weight: jax.Array
    drift_weight: jax.Array  # factor of the drift


def observe(state: LearningHistory, reward: jax.Array) -> LearningHistory:
    """The history with a rollout of rewards [T, B]. The first one sets both running means."""
    mean, is_first = jnp.mean(reward), state.num_updates == 0
    return LearningHistory(
        agent_params=state.agent_params,
        fast=schedule.follow(state.fast, mean, schedule.FAST, is_first),
        slow=schedule.follow(state.slow, mean, schedule.SLOW, is_first),
        spread=jnp.where(is_first, 0.0, state.spread + schedule.SLOW * (jnp.abs(mean - state.slow) - state.spread)),
        num_updates=state.num_updates + 1,
    )


def inputs(
    state: LearningHistory, predictions: Predictions, trajectory: Trajectory, progress: Progress, *, gamma: float
) -> jax.Array:
    """Inputs of the net, all of order 1.

    `policy_change` is the logarithm of the mean KL divergence of the present policy from that before the last update,
    on this rollout; `value_error` that of the deviation of one-step errors, as a share of the deviations of values and
    rewards; `reward_trend` the difference of two running means of rewards, in units of how far rewards go.

    Args:
        state: with this rollout.
        predictions: with the head `value`, and the agent.
        trajectory: [T, B].
        progress: before the update.
        gamma: discount of the value errors.

    Returns:
        [6] float32, in the order of `INPUTS`.
    """
    if predictions.agent is None:
        raise ValueError("ScheduledMirrorLearning compares policies before and after an update: Predictions.agent")
    before = jax.lax.stop_gradient(predictions.agent.apply(state.agent_params, trajectory.obs))
    change = jnp.mean(distributions.of_outputs(predictions.now).kl(predictions.now, before))
    value, after = (each["value"][..., 0] for each in (predictions.now, predictions.next))
    error = trajectory.reward + gamma * jnp.where(trajectory.terminated, 0.0, after) - value
    size = jnp.var(value) + jnp.var(trajectory.reward)
    trend = (state.fast - state.slow) / jnp.where(state.spread > 0.0, state.spread, 1.0)
    columns = {
        "fraction_of_lifetime": 2.0 * progress.fraction - 1.0,
        "log_lifetime": progress.log_lifetime - schedule.TYPICAL_LOG_LIFETIME,
        "entropy": schedule.entropy_share(predictions.now),
        "policy_change": jnp.log(1e-5 + jnp.maximum(change, 0.0)) / 3.0 + 2.0,
        "value_error": jnp.clip(0.25 * jnp.log((jnp.var(error) + _TINY) / (size + _TINY)), -2.0, 2.0),
        "reward_trend": jnp.tanh(trend),
    }
    return jnp.stack([columns[name] for name in INPUTS])


def bounded(output: jax.Array, largest: float) -> jax.Array:
    """A factor between 1 / largest and largest: about exp(2 output) near 0."""
    limit = math.log(largest)
    return jnp.exp(limit * jnp.tanh(2.0 * output / limit))


@struct.dataclass
class ScheduledMirrorTargets:
    """Constants of the loss; coefficients are the same at all steps."""

    estimated: A2CTargets
    coefficients: MirrorCoefficients  # [T, B] float32 each


@own_defaults
@dataclass(frozen=True)
class ScheduledMirrorLearning:
    """Mirror learning with coefficients from a net of one hidden layer.

    loss = mean_t[ -(r_t A_t - drift_weight D(r_t, A_t)) + value_weight (V - G)^2 / 2 - entropy_weight H ]

    as in `MirrorLearning`, and the updates that the optimizers propose are multiplied by `policy_step` and
    `prediction_step`. With o the net's outputs: steps and `drift_weight` are factors f(o) = exp(c tanh(2 o / c)), at
    most e^c = 10; `value_weight` and `entropy_weight` are those of `base` times f(o); the odds of its gamma and lambda,
    p / (1 - p), are multiplied by f(o) with e^c = 4. Rewards are learned from as they are, so at o = 0 it is `base`.

    Attributes:
        base: what it is at o = 0. Its gamma and lambda must be in (0, 1).
        width: hidden units.
        formulas: in place of the net, a formula of the inputs for each of `OUTPUTS`; see `metadisco.core.formulas`.

    Example:
        >>> import jax
        >>> meta_params = ScheduledMirrorLearning().init(jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(meta_params))
        119
    """

    uses_importance_ratio: ClassVar[bool] = True

    base: MirrorLearning = PPO()
    width: int = 8
    formulas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_counts(self, "width")
        schedule.check_base("ScheduledMirrorLearning.base", gamma=self.base.gamma, gae_lambda=self.base.gae_lambda)
        self.rule.check("ScheduledMirrorLearning")

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the net, in order."""
        return INPUTS

    @property
    def rule(self) -> schedule.Rule:
        """The net, or the formulas."""
        return schedule.Rule(INPUTS, OUTPUTS, self.width, self.formulas)

    def heads(self, spec: EnvSpec) -> Heads:
        """Those of `base`."""
        return self.base.heads(spec)

    def init(self, key: Key) -> MetaParams:
        """Of the net, whose outputs are 0, and of the drift."""
        net_key, drift_key = jax.random.split(key)
        return {"schedule": self.rule.init(net_key), "drift": self.base.init(drift_key)}

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> LearningHistory:
        """No update was made, and no reward has been seen."""
        del key, agent, num_workers
        zero = jnp.zeros((), jnp.float32)
        return LearningHistory(agent_params, zero, zero, zero, jnp.zeros((), jnp.int32))

    def targets(
        self,
        meta_params: MetaParams,
        state: LearningHistory,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[ScheduledMirrorTargets, LearningHistory]:
        """Coefficients of this update, and advantages and returns by them, over time for each worker."""
        predictions = jax.lax.stop_gradient(predictions)
        state = observe(state, trajectory.reward)
        told = inputs(state, predictions, trajectory, progress, gamma=self.base.gamma)
        said = self.coefficients(meta_params, told)
        state = replace(state, agent_params=predictions.agent_params)
        estimated = estimate(predictions, trajectory, gamma=said.gamma, gae_lambda=said.gae_lambda)
        return ScheduledMirrorTargets(estimated, schedule.at_all_steps(said, trajectory)), state

    def told(
        self, state: LearningHistory, predictions: Predictions, trajectory: Trajectory, progress: Progress
    ) -> jax.Array:
        """See `metadisco.objectives.schedule.Scheduled`."""
        state = observe(state, trajectory.reward)
        return inputs(state, predictions, trajectory, progress, gamma=self.base.gamma)

    def coefficients(self, meta_params: MetaParams, inputs: jax.Array) -> MirrorCoefficients:
        """What the net makes of its inputs, in the order of `features`. [6] float32."""
        said, base = self.rule.say(meta_params["schedule"], inputs), self.base
        factors = {name: bounded(output, LARGEST_FACTOR[name]) for name, output in said.items()}
        return MirrorCoefficients(
            policy_step=factors["policy_step"],
            prediction_step=factors["prediction_step"],
            entropy_weight=base.entropy_weight * factors["entropy_weight"],
            gae_lambda=_with_odds(base.gae_lambda, factors["gae_lambda"]),
            gamma=_with_odds(base.gamma, factors["gamma"]),
            value_weight=base.value_weight * factors["value_weight"],
            drift_weight=factors["drift_weight"],
        )

    def loss(
        self,
        meta_params: MetaParams,
        targets: ScheduledMirrorTargets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """The equation above, averaged over steps and workers."""
        said = jax.tree.map(jnp.mean, targets.coefficients)  # of equal entries; a minibatch has some of them

        def penalty(log_ratio: jax.Array, advantage: jax.Array) -> jax.Array:
            drift = self.base.drift.penalty(meta_params["drift"], log_ratio, advantage, progress.fraction)
            return said.drift_weight * drift

        loss, metrics = mirror_loss(
            penalty,
            targets.estimated,
            outputs,
            trajectory,
            value_weight=said.value_weight,
            entropy_weight=said.entropy_weight,
        )
        return loss, metrics | {name: getattr(said, name) for name in OUTPUTS}

    def step_factors(self, targets: ScheduledMirrorTargets) -> dict[str, jax.Array]:
        """See `metadisco.objectives.base.ScalesSteps`."""
        return schedule.step_factors(targets.coefficients)


def _with_odds(share: float, factor: jax.Array) -> jax.Array:
    """A share in (0, 1) whose odds are multiplied."""
    odds = share / (1.0 - share) * factor
    return odds / (1.0 + odds)
