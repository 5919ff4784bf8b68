"""A2C by a discovered schedule that also says how much a rare observation is worth: exploration that is discovered.

Where rewards are dense, a bonus for what is new costs more than it brings; where nothing has been seen for many steps,
it decides whether an agent learns at all. So its size is one more thing that a tiny net says, update by update, from
how rewards come and how new is what the agent meets. The bonus by hand is `metadisco.objectives.count_bonus`.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents.agent import Agent
from metadisco.core.config import check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.objectives import count_bonus, schedule
from metadisco.objectives.base import Predictions
from metadisco.objectives.scheduled_a2c import (
    RewardHistory,
    ScheduledA2C,
    ScheduledTargets,
    factor,
    observe,
)

NOVELTY = "novelty"
OUTPUTS = ("bonus", "bonus_power")


@struct.dataclass
class Memory:
    """What one agent has met."""

    rewards: RewardHistory
    visits: jax.Array  # [S] float32, of each observation


@struct.dataclass
class ExploringTargets(ScheduledTargets):
    """Constants of the loss, and what the bonus was: [T, B] float32 each, the same at all steps."""

    bonus: jax.Array
    bonus_power: jax.Array


@own_defaults
@dataclass(frozen=True)
class ExploringA2C:
    """`ScheduledA2C` on rewards r_t / r_max + bonus n(s_t)**-power, whose bonus and power follow a schedule, too.

    n counts how often the observation was met, this rollout included, and r_max is the largest |reward| so far. The net
    of the bonus sees what that of the coefficients sees, and `novelty`, the mean of n(s_t)**-1/2 over the rollout. With
    o its outputs, the bonus is bonus exp(2 o) and the power power exp(2 o). At o = 0 it is a bonus by hand.

    Attributes:
        a2c: the coefficients of A2C.
        width: hidden units of the net of the bonus.
        bonus: of an observation that was met once, at o = 0; positive.
        power: how fast it falls with visits, at o = 0; positive.
        formulas: in place of the net of the bonus, a formula for each of `OUTPUTS`; see `metadisco.core.formulas`.

    Example:
        >>> import jax
        >>> sorted(ExploringA2C().init(jax.random.key(0)))
        ['a2c', 'bonus']
    """

    a2c: ScheduledA2C = ScheduledA2C()
    width: int = 4
    bonus: float = 0.1
    power: float = 1.0
    formulas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"ExploringA2C.width must be at least 1, got {self.width}")
        check_positive(self, "bonus", "power")
        self.rule.check("ExploringA2C")

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the net of the bonus, in order; that of the coefficients sees all but the last."""
        return (*self.a2c.features, NOVELTY)

    @property
    def rule(self) -> schedule.Rule:
        """The net of the bonus, or its formulas."""
        return schedule.Rule(self.features, OUTPUTS, self.width, self.formulas)

    def heads(self, spec: EnvSpec) -> Heads:
        """Those of A2C. Raises ValueError where actions are continuous or observations cannot be counted."""
        count_bonus.check_countable(spec)
        return self.a2c.heads(spec)

    def init(self, key: Key) -> MetaParams:
        """Random hidden units, and outputs of zero: A2C, and the bonus by hand."""
        a2c_key, bonus_key = jax.random.split(key)
        return {"a2c": self.a2c.init(a2c_key), "bonus": self.rule.init(bonus_key)}

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> Memory:
        """No reward and no observation was met."""
        rewards = self.a2c.init_state(key, agent, agent_params, num_workers)
        return Memory(rewards, count_bonus.never_met(agent.spec))

    def targets(
        self,
        meta_params: MetaParams,
        state: Memory,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[ExploringTargets, Memory]:
        """Coefficients of this update, and advantages and returns by them, over time for each worker."""
        predictions = jax.lax.stop_gradient(predictions)
        rewards = observe(state.rewards, trajectory)
        visits, met = count_bonus.count(state.visits, trajectory.obs)
        told = self.a2c.see(rewards, predictions, trajectory, progress)
        bonus, power = self.bonus_of(meta_params, with_novelty(told, met))
        reward = trajectory.reward / rewards.unit + bonus * met**-power
        said = self.a2c.coefficients(meta_params["a2c"], told)
        found = self.a2c.by(said, predictions, replace(trajectory, reward=reward))
        bonus, power = schedule.at_all_steps((bonus, power), trajectory)
        targets = ExploringTargets(found.advantage, found.value, found.coefficients, bonus, power)
        return targets, Memory(rewards, visits)

    def told(self, state: Memory, predictions: Predictions, trajectory: Trajectory, progress: Progress) -> jax.Array:
        """See `metadisco.objectives.schedule.Scheduled`."""
        met = count_bonus.count(state.visits, trajectory.obs)[1]
        return with_novelty(self.a2c.told(state.rewards, predictions, trajectory, progress), met)

    def bonus_of(self, meta_params: MetaParams, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Bonus and power, [] float32, by inputs in the order of `features`, [I] float32."""
        said = self.rule.say(meta_params["bonus"], inputs)
        return self.bonus * factor(said["bonus"]), self.power * factor(said["bonus_power"])

    def loss(
        self,
        meta_params: MetaParams,
        targets: ExploringTargets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """That of `ScheduledA2C`."""
        loss, metrics = self.a2c.loss(meta_params["a2c"], targets, outputs, trajectory, progress)
        return loss, {**metrics, **{name: jnp.mean(getattr(targets, name)) for name in OUTPUTS}}

    def step_factors(self, targets: ExploringTargets) -> dict[str, jax.Array]:
        """See `metadisco.objectives.base.ScalesSteps`."""
        return self.a2c.step_factors(targets)


def with_novelty(told: jax.Array, met: jax.Array) -> jax.Array:
    """The inputs of A2C's net, and how new the observations are that were met so many times [T, B]."""
    return jnp.append(told, 2.0 * jnp.mean(met**-0.5) - 1.0)
