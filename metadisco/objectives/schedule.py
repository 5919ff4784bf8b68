"""Schedules that are discovered: a tiny net that sees how an agent's learning goes and says coefficients.

It knows n/N and log N, as temporally-aware objectives do (arXiv:2402.05828), and statistics of the agent, so that a
schedule can react. What else it sees, and what is made of its outputs, belongs to the objective. With the output layer
at zero, as it is initialized, it says 0 for everything.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from metadisco.agents import distributions
from metadisco.core.config import ConfigError
from metadisco.core.formulas import Expression, constants_in, evaluate, initial, parse
from metadisco.core.lowrank import project
from metadisco.core.types import Key, MetaParams, Outputs, Progress, Trajectory
from metadisco.objectives.base import ObjectiveState, Predictions

SHARED_OUTPUTS = ("policy_step", "prediction_step", "entropy_weight", "gae_lambda", "gamma")  # of every actor-critic
TYPICAL_LOG_LIFETIME = 3.7  # of 40 updates, the middle of the grid worlds' lifetimes
FAST, SLOW = 0.5, 0.125  # rates of the two running means of rewards: two updates, and about eight


@dataclass(frozen=True)
class Rule:
    """What a schedule is: a net of one hidden layer, or a formula for each of its outputs.

    Attributes:
        inputs: their names, in order.
        outputs: their names, in order.
        width: hidden units of the net.
        formulas: of the inputs, one for each output in order (`metadisco.core.formulas`); () for the net.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    width: int
    formulas: tuple[str, ...] = ()

    def check(self, name: str) -> None:
        """Raise ConfigError unless the formulas are some; `name` is where they are set."""
        if self.formulas and len(self.formulas) != len(self.outputs):
            raise ConfigError(
                f"{name}.formulas has {len(self.formulas)}: write one for each of {', '.join(self.outputs)}, or none"
            )
        _ = self.expressions

    @property
    def expressions(self) -> dict[str, Expression]:
        """The formulas by output; {} for a net."""
        return {name: parse(text, self.inputs) for name, text in zip(self.outputs, self.formulas)}

    def init(self, key: Key) -> MetaParams:
        """Random hidden units and outputs of zero, or constants near those that are written in the formulas."""
        if self.formulas:
            return initial(key, self.expressions)
        return {
            "hidden": jax.nn.initializers.lecun_normal()(key, (len(self.inputs), self.width), jnp.float32),
            "hidden_bias": jnp.zeros(self.width),
            "out": jnp.zeros((self.width, len(self.outputs))),
            "out_bias": jnp.zeros(len(self.outputs)),
        }

    def say(self, meta_params: MetaParams, told: jax.Array) -> dict[str, jax.Array]:
        """What is made of the inputs [I], by the names of the outputs. [] float32 each."""
        if not self.formulas:
            hidden = jnp.tanh(project(meta_params["hidden"], told) + meta_params["hidden_bias"])
            return dict(zip(self.outputs, project(meta_params["out"], hidden) + meta_params["out_bias"], strict=True))
        by_name = {name: told[place] for place, name in enumerate(self.inputs)}
        return {
            name: evaluate(each, by_name, constants_in(meta_params, name)) for name, each in self.expressions.items()
        }


@runtime_checkable
class Scheduled(Protocol):
    """An objective whose coefficients follow a schedule. Optional."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""

    def told(
        self, state: ObjectiveState, predictions: Predictions, trajectory: Trajectory, progress: Progress
    ) -> jax.Array:
        """The inputs at one update, as `targets` computes them from the same. [I] float32."""


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
