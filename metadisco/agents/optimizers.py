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


@own_defaults
@dataclass(frozen=True)
class DiscoAdam:
    """Adam whose steps are clipped entry by entry, as the agents of Disco103 have (doi:10.1038/s41586-025-09761-x).

    A meta-gradient passes through the running mean of gradients and not through that of their squares.

    Attributes:
        learning_rate: step size.
        max_step: largest step of an entry, in units of the step size.
    """

    learning_rate: float = 3e-4
    max_step: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate", "max_step")

    def transformation(self) -> optax.GradientTransformation:
        """Adam, then clip, then scale."""
        adam = optax.GradientTransformation(optax.scale_by_adam().init, _step_of_adam)
        return optax.chain(adam, optax.clip(self.max_step), optax.scale(-self.learning_rate))


def _step_of_adam(
    gradients: AgentParams, state: optax.ScaleByAdamState, params: Any = None
) -> tuple[AgentParams, optax.ScaleByAdamState]:
    """One step of Adam (arXiv:1412.6980) before it is scaled; its denominator is a constant of meta-gradients."""
    del params
    count = optax.safe_increment(state.count)
    mean = optax.tree.update_moment(gradients, state.mu, 0.9, 1)
    square = optax.tree.update_moment(gradients, state.nu, 0.999, 2)
    corrected = optax.tree.bias_correction(mean, 0.9, count), optax.tree.bias_correction(square, 0.999, count)
    step = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8), corrected[0], jax.lax.stop_gradient(corrected[1]))
    return step, optax.ScaleByAdamState(count, mean, square)


def _chain(optimizer: "SGD | Adam | RMSProp", descent: optax.GradientTransformation) -> optax.GradientTransformation:
    annealing = (scale_by_remaining_life(),) if optimizer.anneal else ()
    return optax.chain(clip_by_global_norm(optimizer.max_grad_norm), descent, *annealing)
