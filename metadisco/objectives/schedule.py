"""Schedules that are discovered: a tiny net that sees how an agent's learning goes and says coefficients.

It knows n/N and log N, as temporally-aware objectives do (arXiv:2402.05828), and statistics of the agent, so that a
schedule can react. Rewards enter in units of the largest |reward| of the life so far, so their scale does not matter.
With the output layer at zero, as it is initialized, it says 0 for everything.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.core.lowrank import project
from metadisco.core.types import Key, MetaParams, Outputs, Progress, Trajectory
from metadisco.objectives.base import Predictions

SHARED_OUTPUTS = ("policy_step", "prediction_step", "entropy_weight", "gae_lambda", "gamma")  # of `actor_critic`
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
TYPICAL_LOG_LIFETIME = 3.7  # of 40 updates, the middle of the grid worlds' lifetimes
_MAX_LOG_FACTOR = 5.0  # factors are at most e^5
_FAST, _SLOW = 0.5, 0.125  # rates of the two running means of rewards


@struct.dataclass
class RewardHistory:
    """Statistics of the rewards that one agent has had, in units of the environment. [] each."""

    largest: jax.Array  # float32, |reward|
    fast: jax.Array  # float32, running mean over updates of the rollouts' mean reward
    slow: jax.Array  # float32, likewise, over about eight updates
    best: jax.Array  # float32, highest mean reward of a rollout
    num_updates: jax.Array  # int32

    @property
    def unit(self) -> jax.Array:
        """What rewards are divided by: 1 where none has been seen."""
        return jnp.where(self.largest > 0.0, self.largest, 1.0)


def no_rewards() -> RewardHistory:
    """The history of a new agent."""
    zero = jnp.zeros((), jnp.float32)
    return RewardHistory(zero, zero, zero, zero, jnp.zeros((), jnp.int32))


def observe(state: RewardHistory, reward: jax.Array) -> RewardHistory:
    """The history after a rollout of rewards [T, B]. The first rollout sets both running means."""
    mean, is_first = jnp.mean(reward), state.num_updates == 0
    return RewardHistory(
        largest=jnp.maximum(state.largest, jnp.max(jnp.abs(reward))),
        fast=jnp.where(is_first, mean, state.fast + _FAST * (mean - state.fast)),
        slow=jnp.where(is_first, mean, state.slow + _SLOW * (mean - state.slow)),
        best=jnp.where(is_first, mean, jnp.maximum(state.best, mean)),
        num_updates=state.num_updates + 1,
    )


def inputs(
    state: RewardHistory,
    predictions: Predictions,
    trajectory: Trajectory,
    progress: Progress,
    *,
    gamma: float,
    value_unit: jax.Array | float,
) -> jax.Array:
    """Inputs of the net, all of order 1. Means of rewards are small numbers per step, so they are stretched.

    Args:
        state: with this rollout.
        predictions: with the head `value`.
        trajectory: [T, B], rewards in units of the environment.
        progress: before the update.
        gamma: discount of the value errors.
        value_unit: of the head `value`, in rewards of the environment: `state.unit` where it predicts scaled rewards
            times this, 1 where it predicts rewards as they are.

    Returns:
        [9] float32, in the order of `INPUTS`.
    """
    unit = state.unit
    value, after = (each["value"][..., 0] * (value_unit / unit) for each in (predictions.now, predictions.next))
    error = trajectory.reward / unit + gamma * jnp.where(trajectory.terminated, 0.0, after) - value
    columns = {
        "fraction_of_lifetime": 2.0 * progress.fraction - 1.0,
        "log_lifetime": progress.log_lifetime - TYPICAL_LOG_LIFETIME,
        "mean_reward": jnp.tanh(10.0 * state.fast / unit),
        "reward_trend": jnp.tanh(30.0 * (state.fast - state.slow) / unit),
        "best_mean_reward": jnp.tanh(10.0 * state.best / unit),
        "reward_density": jnp.tanh(10.0 * jnp.mean((trajectory.reward != 0.0).astype(jnp.float32))),
        "reward_seen": (state.largest > 0.0).astype(jnp.float32),
        "entropy": entropy_share(predictions.now),
        "value_error": jnp.log(1e-3 + jnp.sqrt(jnp.mean(jnp.square(error)))) / 3.0 + 1.0,
    }
    return jnp.stack([columns[name] for name in INPUTS])


def init(key: Key, width: int, num_outputs: int, *, num_inputs: int = len(INPUTS)) -> MetaParams:
    """Random hidden units, and outputs of zero."""
    hidden = jax.nn.initializers.lecun_normal()(key, (num_inputs, width), jnp.float32)
    return {
        "hidden": hidden,
        "hidden_bias": jnp.zeros(width),
        "out": jnp.zeros((width, num_outputs)),
        "out_bias": jnp.zeros(num_outputs),
    }


def outputs(meta_params: MetaParams, told: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """What the net makes of its inputs, by the names of its outputs. [] float32 each."""
    hidden = jnp.tanh(project(meta_params["hidden"], told) + meta_params["hidden_bias"])
    return dict(zip(names, project(meta_params["out"], hidden) + meta_params["out_bias"], strict=True))


def check_base(name: str, *, gamma: float, gae_lambda: float) -> None:
    """Raise ValueError unless what a schedule begins at can be moved in log-odds; `name` is where the settings are."""
    for setting, value in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name}.{setting} must be in (0, 1), since it is moved in log-odds, got {value}")


def actor_critic(
    said: dict[str, jax.Array], *, gamma: float, gae_lambda: float, entropy_weight: float
) -> dict[str, jax.Array]:
    """The coefficients that all actor-critic objectives have, by name, from what the net says and from the usual ones.

    Steps are exp(2 o), gamma and lambda are moved in log-odds, and o / 50 is added to the weight of the entropy bonus.
    """
    return {
        "policy_step": factor(said["policy_step"]),
        "prediction_step": factor(said["prediction_step"]),
        "entropy_weight": entropy_weight + said["entropy_weight"] / 50.0,
        "gae_lambda": moved(gae_lambda, said["gae_lambda"]),
        "gamma": moved(gamma, said["gamma"]),
    }


def at_all_steps(coefficients: Any, trajectory: Trajectory) -> Any:
    """Coefficients [] as constants of the loss, which are split into minibatches: [T, B] each, of equal entries."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, trajectory.reward.shape), coefficients)


def step_factors(coefficients: Any) -> dict[str, jax.Array]:
    """Both steps, from what `at_all_steps` made; see `metadisco.objectives.base.ScalesSteps`."""
    return {"policy": coefficients.policy_step[0, 0], "prediction": coefficients.prediction_step[0, 0]}


def factor(output: jax.Array) -> jax.Array:
    """A positive factor, 1 of an output of 0."""
    return jnp.exp(jnp.clip(2.0 * output, -_MAX_LOG_FACTOR, _MAX_LOG_FACTOR))


def moved(usual: float, output: jax.Array) -> jax.Array:
    """A share in (0, 1), moved in log-odds; an output of 0 leaves it as it is."""
    return jax.nn.sigmoid(math.log(usual / (1.0 - usual)) + 2.0 * output)


def entropy_share(now: Outputs) -> jax.Array:
    """Mean entropy of the policy, -1 to 1: as a share of a uniform one's, or of a Gaussian's dimensions squashed."""
    entropy = jnp.mean(distributions.entropy(now))
    if "logits" in now:
        return 2.0 * entropy / math.log(max(now["logits"].shape[-1], 2)) - 1.0
    return jnp.tanh(entropy / now["mean"].shape[-1])
