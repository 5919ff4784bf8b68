"""Optimizers of agents: a named choice of optax transformation, with clipping and annealing.

A meta-gradient passes through them, so each has a derivative wherever a gradient can be, also at zero.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from metadisco.core.config import check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Progress

OptState = Any


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """The transformation of that name in optax, with a derivative also at a zero gradient: that of the identity."""

    def update(updates: AgentParams, state: optax.EmptyState, params: Any = None) -> tuple:
        del params
        square = optax.tree.norm(updates, squared=True)
        # The root has no derivative at 0, and a derivative passes through the branch that is not selected, too.
        norm = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
        is_within = (square == 0.0) | (norm < max_norm)
        clipped = jax.tree.map(lambda leaf: jnp.where(is_within, leaf, leaf / norm * max_norm), updates)
        return clipped, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scale_by_remaining_life() -> optax.GradientTransformationExtraArgs:
    """Multiply updates by 1 - n/N, which is 1 in the first update and 1/N in the last one: linear annealing."""

    def update(
        updates: AgentParams, state: optax.EmptyState, params: Any = None, *, progress: Progress | None = None, **_: Any
    ) -> tuple:
        del params
        if progress is None:
            raise ValueError("anneal=True is for the learner of a life, which has an end; set anneal=False here")
        return jax.tree.map(lambda leaf: (1.0 - progress.fraction) * leaf, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class Optimizer(Protocol):
    """A named choice of optax transformation."""

    def transformation(self) -> optax.GradientTransformation:
        """Gradients to updates. Its `update` may take `progress`, which a learner gives to all that do."""


@own_defaults
@dataclass(frozen=True)
class SGD:
    """Gradient descent on gradients clipped to a global norm.

    Attributes:
        learning_rate: step size; the update's norm is at most `learning_rate * max_grad_norm`.
        max_grad_norm: largest global norm of the gradient of this group of parameters.
        anneal: multiply the updates by 1 - n/N.
    """

    learning_rate: float = 40.0
    max_grad_norm: float = 0.5
    anneal: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "max_grad_norm")

    def transformation(self) -> optax.GradientTransformation:
        """Clip, then scale."""
        return _chain(self, optax.sgd(self.learning_rate))


@own_defaults
@dataclass(frozen=True)
class Adam:
    """Adam (arXiv:1412.6980) on gradients clipped to a global norm.

    Attributes:
        learning_rate: step size.
        max_grad_norm: largest global norm of the gradient of this group of parameters.
        anneal: multiply the updates by 1 - n/N.
    """

    learning_rate: float = 1e-3
    max_grad_norm: float = 0.5
    anneal: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "max_grad_norm")

    def transformation(self) -> optax.GradientTransformation:
        """Clip, then Adam."""
        # eps_root > 0: the derivative of Adam at a zero gradient is otherwise NaN, which meta-gradients need.
        return _chain(self, optax.adam(self.learning_rate, eps=1e-5, eps_root=1e-8))


@own_defaults
@dataclass(frozen=True)
class RMSProp:
    """Gradients over the root of the running mean of their squares, clipped to a global norm before; without momentum.

    The choice of A3C (arXiv:1602.01783). In a table it takes equal steps for rare and frequent observations, which
    gradient descent does not, and forgets sooner than Adam what gradients were like early in a life.

    Attributes:
        learning_rate: step size.
        max_grad_norm: largest global norm of the gradient of this group of parameters.
        anneal: multiply the updates by 1 - n/N.
        decay: of the running mean, in [0, 1). It is corrected for its beginning at 0.
        eps: added to the mean square.
    """

    learning_rate: float = 0.3
    max_grad_norm: float = 0.5
    anneal: bool = False
    decay: float = 0.9
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "max_grad_norm", "eps")
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"RMSProp.decay must be in [0, 1), got {self.decay}")

    def transformation(self) -> optax.GradientTransformation:
        """Clip, then RMSProp."""
        descent = optax.rmsprop(self.learning_rate, decay=self.decay, eps=self.eps, bias_correction=True)
        return _chain(self, descent)


def _chain(optimizer: "SGD | Adam | RMSProp", descent: optax.GradientTransformation) -> optax.GradientTransformation:
    annealing = (scale_by_remaining_life(),) if optimizer.anneal else ()
    return optax.chain(clip_by_global_norm(optimizer.max_grad_norm), descent, *annealing)
