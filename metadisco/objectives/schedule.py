"""Schedules that are discovered: a tiny net that sees how an agent's learning goes and says coefficients.

It knows n/N and log N, as temporally-aware objectives do (arXiv:2402.05828), and statistics of the agent, so that a
schedule can react. What else it sees, and what is made of its outputs, belongs to the objective. With the output layer
at zero, as it is initialized, it says 0 for everything.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from metadisco.agents import distributions
from metadisco.core.lowrank import project
from metadisco.core.types import Key, MetaParams, Outputs, Trajectory

SHARED_OUTPUTS = ("policy_step", "prediction_step", "entropy_weight", "gae_lambda", "gamma")  # of every actor-critic
TYPICAL_LOG_LIFETIME = 3.7  # of 40 updates, the middle of the grid worlds' lifetimes
FAST, SLOW = 0.5, 0.125  # rates of the two running means of rewards: two updates, and about eight


def init(key: Key, width: int, *, num_inputs: int, num_outputs: int) -> MetaParams:
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


def follow(mean: jax.Array, value: jax.Array, rate: float, is_first: jax.Array) -> jax.Array:
    """A running mean with one more value, which it begins at."""
    return jnp.where(is_first, value, mean + rate * (value - mean))


def check_base(name: str, *, gamma: float, gae_lambda: float) -> None:
    """Raise ValueError unless what a schedule begins at can be moved in log-odds; `name` is where the settings are."""
    for setting, value in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name}.{setting} must be in (0, 1), since it is moved in log-odds, got {value}")


def at_all_steps(coefficients: Any, trajectory: Trajectory) -> Any:
    """Coefficients [] as constants of the loss, which are split into minibatches: [T, B] each, of equal entries."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, trajectory.reward.shape), coefficients)


def step_factors(coefficients: Any) -> dict[str, jax.Array]:
    """Both steps, from what `at_all_steps` made; see `metadisco.objectives.base.ScalesSteps`."""
    return {"policy": coefficients.policy_step[0, 0], "prediction": coefficients.prediction_step[0, 0]}


def entropy_share(now: Outputs) -> jax.Array:
    """Mean entropy of the policy, -1 to 1: as a share of a uniform one's, or of a Gaussian's dimensions squashed."""
    entropy = jnp.mean(distributions.entropy(now))
    if "logits" in now:
        return 2.0 * entropy / math.log(max(now["logits"].shape[-1], 2)) - 1.0
    return jnp.tanh(entropy / now["mean"].shape[-1])
