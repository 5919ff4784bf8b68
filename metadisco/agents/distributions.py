"""Action distributions, parameterized by an agent's outputs.

Each equation is a function of arrays. `Categorical` and `Gaussian` give them one interface, so that an objective need
not know the action space: `log_prob(outputs, action)` and `entropy(outputs)` go by the heads that are there.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Heads, Key, Outputs
from metadisco.envs.base import Box, Discrete

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def sample_categorical(uniform: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw an action by inverting the distribution function: one uniform number for any number of actions.

    Args:
        uniform: [...] float32 in [0, 1).
        logits: [..., A] float32.

    Returns:
        action [...] int32 and its log probability [...] float32.
    """
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)
    action = jnp.zeros(uniform.shape, jnp.int32)
    total = jnp.zeros_like(uniform)
    # Unrolled: a cumulative sum over a handful of actions is slower than adding them up.
    for a in range(logits.shape[-1] - 1):
        total = total + probs[..., a]
        action = action + (uniform >= total)
    return action, log_prob_categorical(logits, action)


def log_prob_categorical(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Log probability of `action`. [...] float32."""
    log_probs = jax.nn.log_softmax(logits)
    chosen = jax.nn.one_hot(action, logits.shape[-1], dtype=log_probs.dtype)
    return jnp.sum(log_probs * chosen, axis=-1)


def entropy_categorical(logits: jax.Array) -> jax.Array:
    """Entropy in nats. [...] float32."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def kl_categorical(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """KL(p || q) from normalised log probabilities [..., A], in nats. [...] float32."""
    return jnp.sum(jnp.exp(log_probs) * (log_probs - reference_log_probs), axis=-1)


def sample_gaussian(normal: jax.Array, mean: jax.Array, log_std: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw an action from a Gaussian of diagonal covariance.

    Args:
        normal: [..., D] float32, standard normal.
        mean: [..., D] float32.
        log_std: [..., D] float32.

    Returns:
        action [..., D] float32 and its log density [...] float32.
    """
    action = mean + jnp.exp(log_std) * normal
    return action, log_prob_gaussian(mean, log_std, action)


def log_prob_gaussian(mean: jax.Array, log_std: jax.Array, action: jax.Array) -> jax.Array:
    """Log density of `action` [..., D], summed over D. [...] float32."""
    deviation = (action - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(deviation) + log_std + _HALF_LOG_TWO_PI, axis=-1)


def entropy_gaussian(log_std: jax.Array) -> jax.Array:
    """Differential entropy in nats, summed over D; negative for narrow ones. [...] float32."""
    return jnp.sum(log_std + _HALF_LOG_TWO_PI + 0.5, axis=-1)


def kl_gaussian(mean: jax.Array, log_std: jax.Array, other_mean: jax.Array, other_log_std: jax.Array) -> jax.Array:
    """KL(p || q) of two Gaussians of diagonal covariance, p first, in nats. [...] float32."""
    square = jnp.exp(2.0 * (log_std - other_log_std)) + jnp.square((mean - other_mean) * jnp.exp(-other_log_std))
    return jnp.sum(other_log_std - log_std + 0.5 * (square - 1.0), axis=-1)


class Distribution(Protocol):
    """A family of action distributions whose parameters are outputs of an agent."""

    def heads(self) -> Heads:
        """The outputs that are its parameters."""

    def noise(self, key: Key, shape: tuple[int, ...]) -> jax.Array:
        """All randomness for `shape` actions; begins with the axes `shape`."""

    def sample(self, noise: jax.Array, outputs: Outputs) -> tuple[jax.Array, jax.Array]:
        """Action and its log probability, [...] float32. `noise` is for one action per row."""

    def log_prob(self, outputs: Outputs, action: jax.Array) -> jax.Array:
        """Log probability, or density, of an action. [...] float32."""

    def entropy(self, outputs: Outputs) -> jax.Array:
        """In nats. [...] float32."""

    def kl(self, outputs: Outputs, reference: Outputs) -> jax.Array:
        """KL(outputs || reference) in nats. [...] float32."""


@own_defaults
@dataclass(frozen=True)
class Categorical:
    """A choice among `num` actions, by the head `logits`.

    Example:
        >>> Categorical(3).heads()
        {'logits': 3}
    """

    num: int

    def heads(self) -> Heads:
        """One logit for each action."""
        return {"logits": self.num}

    def noise(self, key: Key, shape: tuple[int, ...]) -> jax.Array:
        """One uniform number for each action to draw."""
        return jax.random.uniform(key, shape)

    def sample(self, noise: jax.Array, outputs: Outputs) -> tuple[jax.Array, jax.Array]:
        """See `sample_categorical`."""
        return sample_categorical(noise, outputs["logits"])

    def log_prob(self, outputs: Outputs, action: jax.Array) -> jax.Array:
        """See `log_prob_categorical`."""
        return log_prob_categorical(outputs["logits"], action)

    def entropy(self, outputs: Outputs) -> jax.Array:
        """See `entropy_categorical`."""
        return entropy_categorical(outputs["logits"])

    def kl(self, outputs: Outputs, reference: Outputs) -> jax.Array:
        """See `kl_categorical`."""
        return kl_categorical(jax.nn.log_softmax(outputs["logits"]), jax.nn.log_softmax(reference["logits"]))


@own_defaults
@dataclass(frozen=True)
class Gaussian:
    """`num` real numbers, independent and normal, by the heads `mean` and `log_std`.

    Actions are not squashed: whoever acts clips them to the bounds of the space, and their density is that before.

    Example:
        >>> Gaussian(2).heads()
        {'mean': 2, 'log_std': 2}
    """

    num: int

    def heads(self) -> Heads:
        """Mean and logarithm of the standard deviation of each number."""
        return {"mean": self.num, "log_std": self.num}

    def noise(self, key: Key, shape: tuple[int, ...]) -> jax.Array:
        """One standard normal number for each of an action. [*shape, num]."""
        return jax.random.normal(key, (*shape, self.num))

    def sample(self, noise: jax.Array, outputs: Outputs) -> tuple[jax.Array, jax.Array]:
        """See `sample_gaussian`."""
        return sample_gaussian(noise, outputs["mean"], outputs["log_std"])

    def log_prob(self, outputs: Outputs, action: jax.Array) -> jax.Array:
        """See `log_prob_gaussian`."""
        return log_prob_gaussian(outputs["mean"], outputs["log_std"], action)

    def entropy(self, outputs: Outputs) -> jax.Array:
        """See `entropy_gaussian`."""
        return entropy_gaussian(outputs["log_std"])

    def kl(self, outputs: Outputs, reference: Outputs) -> jax.Array:
        """See `kl_gaussian`."""
        return kl_gaussian(outputs["mean"], outputs["log_std"], reference["mean"], reference["log_std"])


def of_space(action: Discrete | Box) -> Distribution:
    """The family that suits an action space. Raises ValueError where there is none."""
    if isinstance(action, Discrete):
        return Categorical(action.num)
    if len(action.shape) != 1:
        raise ValueError(f"continuous actions must be vectors, Box((D,)), got {action}; flatten them")
    return Gaussian(action.shape[0])


def of_outputs(outputs: Outputs) -> Distribution:
    """The family whose parameters an agent's outputs hold."""
    if "logits" in outputs:
        return Categorical(outputs["logits"].shape[-1])
    return Gaussian(outputs["mean"].shape[-1])


def log_prob(outputs: Outputs, action: jax.Array) -> jax.Array:
    """Log probability, or density, of an action, whichever family the outputs are of. [...] float32."""
    return of_outputs(outputs).log_prob(outputs, action)


def entropy(outputs: Outputs) -> jax.Array:
    """Entropy in nats, whichever family the outputs are of. [...] float32."""
    return of_outputs(outputs).entropy(outputs)
