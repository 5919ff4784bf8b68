"""Mirror learning whose coefficients follow a discovered schedule: PPO, DPO or a learned drift, and a tiny net.

With the output layer at zero, as it is initialized, it is the objective that it wraps. `metadisco.objectives.schedule`
says what the net sees.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents.agent import Agent
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.objectives import schedule
from metadisco.objectives.actor_critic import A2CTargets, estimate
from metadisco.objectives.base import Predictions
from metadisco.objectives.mirror_learning import PPO, MirrorLearning, mirror_loss
from metadisco.objectives.schedule import INPUTS, SHARED_OUTPUTS, RewardHistory

OUTPUTS = (*SHARED_OUTPUTS, "value_weight", "drift_weight")


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
    `prediction_step`. With o the net's outputs: steps and `drift_weight` are exp(2 o), `value_weight` is that of `base`
    times exp(2 o), o / 50 is added to its entropy weight, its gamma and lambda are moved by 2 o in log-odds. Rewards
    are learned from as they are, so at o = 0 it is `base`; the net sees them without their scale.

    Attributes:
        base: what it is at o = 0. Its gamma and lambda must be in (0, 1).
        width: hidden units.

    Example:
        >>> import jax
        >>> meta_params = ScheduledMirrorLearning().init(jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(meta_params))
        143
    """

    base: MirrorLearning = PPO()
    width: int = 8

    def __post_init__(self) -> None:
        check_counts(self, "width")
        schedule.check_base("ScheduledMirrorLearning.base", gamma=self.base.gamma, gae_lambda=self.base.gae_lambda)

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the net, in order."""
        return INPUTS

    def heads(self, spec: EnvSpec) -> Heads:
        """Those of `base`."""
        return self.base.heads(spec)

    def init(self, key: Key) -> MetaParams:
        """Of the net, whose outputs are 0, and of the drift."""
        net_key, drift_key = jax.random.split(key)
        return {"schedule": schedule.init(net_key, self.width, len(OUTPUTS)), "drift": self.base.init(drift_key)}

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
    ) -> tuple[ScheduledMirrorTargets, RewardHistory]:
        """Coefficients of this update, and advantages and returns by them, over time for each worker."""
        predictions = jax.lax.stop_gradient(predictions)
        state = schedule.observe(state, trajectory.reward)
        told = schedule.inputs(state, predictions, trajectory, progress, gamma=self.base.gamma, value_unit=1.0)
        said = self.coefficients(meta_params, told)
        estimated = estimate(predictions, trajectory, gamma=said.gamma, gae_lambda=said.gae_lambda)
        return ScheduledMirrorTargets(estimated, schedule.at_all_steps(said, trajectory)), state

    def coefficients(self, meta_params: MetaParams, inputs: jax.Array) -> MirrorCoefficients:
        """What the net makes of its inputs, in the order of `features`. [9] float32."""
        said, base = schedule.outputs(meta_params["schedule"], inputs, OUTPUTS), self.base
        return MirrorCoefficients(
            **schedule.actor_critic(
                said, gamma=base.gamma, gae_lambda=base.gae_lambda, entropy_weight=base.entropy_weight
            ),
            value_weight=base.value_weight * schedule.factor(said["value_weight"]),
            drift_weight=schedule.factor(said["drift_weight"]),
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
