"""Meta-gradients: descend an outer loss by differentiating through the agents' updates (arXiv:2310.02782).

A life is whatever `loss_fn` takes and returns; it is differentiated one life at a time. `spread` distributes lives over
devices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct

from metadisco.core import trees
from metadisco.core.config import check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, MetaParams, Metrics
from metadisco.meta_optimizers.base import mean_where
from metadisco.meta_optimizers.evolution import check_learnable
from metadisco.meta_optimizers.schedules import Decay

Lives = Any  # pytree with leading axis N
LossFn = Callable[[MetaParams, Any], tuple[jax.Array, tuple[Any, Metrics]]]
"""(meta_params, one life) -> (outer loss, (the life afterwards, its metrics)), differentiable in the first argument."""


class Spread(Protocol):
    """Applies a function to every life."""

    def __call__(self, run: Callable[[Any, Any], tuple[Any, Any]], shared: Any, lives: Lives) -> tuple[Any, Any]:
        """Sum over lives of the first result of `run(shared, life)`, and the second result with leading axis N."""


def side_by_side(run: Callable[[Any, Any], tuple[Any, Any]], shared: Any, lives: Lives) -> tuple[Any, Any]:
    """All lives at once on one device: the simplest `Spread`."""
    summands, results = jax.vmap(run, in_axes=(None, 0))(shared, lives)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), summands), results


def mean_gradient(
    meta_params: MetaParams,
    lives: Lives,
    loss_fn: LossFn,
    *,
    train_mask: jax.Array | None = None,
    spread: Spread = side_by_side,
) -> tuple[MetaParams, jax.Array, Lives, Metrics]:
    """Mean gradient of the outer loss over lives, without those whose loss or gradient is not finite.

    Args:
        meta_params: where it is taken.
        lives: leading axis N.
        loss_fn: advances one life and returns its outer loss.
        train_mask: [N] bool, lives that the mean is over; all by default.
        spread: distributes lives over devices.

    Returns:
        The gradient, 0 where no life counts; how many do, [] int32; the advanced lives; and metrics, means over lives
        with finite gradients, masked or not.
    """
    train_mask = jnp.ones(jax.tree.leaves(lives)[0].shape[0], bool) if train_mask is None else train_mask

    def learn(meta_params: MetaParams, item: tuple[Any, jax.Array]) -> tuple[Any, Any]:
        life, counts = item
        (loss, (life, metrics)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(meta_params, life)
        leaves = [loss, *jax.tree.leaves(gradient)]
        is_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
        # Selected, not multiplied: 0 * NaN is NaN.
        gradient = trees.where(is_finite & counts, gradient, jax.tree.map(jnp.zeros_like, gradient))
        return gradient, (life, is_finite, {"meta_loss": loss, **metrics})

    total, (lives, is_finite, metrics) = spread(learn, meta_params, (lives, train_mask))
    num_counted = jnp.sum(is_finite & train_mask)
    gradient = jax.tree.map(lambda leaf: leaf / jnp.maximum(num_counted, 1), total)
    metrics = {name: mean_where(is_finite & jnp.isfinite(value), value) for name, value in metrics.items()}
    return gradient, num_counted, lives, metrics | {"finite_fraction": jnp.mean(is_finite.astype(jnp.float32))}


class OuterOptimizer(Protocol):
    """Updates meta-parameters by the gradient of an outer loss. `MetaGradient` is one."""

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> Any:
        """State that begins at `meta_params`. Raises ValueError where there is nothing to learn."""

    def descend(
        self,
        state: Any,
        lives: Lives,
        loss_fn: LossFn,
        *,
        train_mask: jax.Array | None = None,
        spread: Spread = side_by_side,
    ) -> tuple[Any, Lives, Metrics]:
        """One meta-step; see `MetaGradient.descend`."""

    def meta_params(self, state: Any) -> MetaParams:
        """The present meta-parameters."""


@struct.dataclass
class GradientState:
    """The meta-parameters and Adam's state."""

    meta_params: MetaParams
    opt_state: optax.OptState


@own_defaults
@dataclass(frozen=True)
class MetaGradient:
    """Adam on the mean gradient of the outer loss over lives.

    A life whose loss or gradient is not finite is left out of the mean and counted in the metrics.

    Attributes:
        learning_rate: of Adam.
        max_grad_norm: largest global norm of the mean gradient.

    Example:
        >>> MetaGradient(learning_rate=Decay(1e-3)).max_grad_norm
        0.5
    """

    learning_rate: Decay = Decay(1e-4)
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self, "max_grad_norm")

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> GradientState:
        """Begin at `meta_params`.

        Raises:
            ValueError: where there is nothing to learn.
        """
        del key, num_tasks
        check_learnable(meta_params)
        return GradientState(meta_params, self._optimizer.init(meta_params))

    def descend(
        self,
        state: GradientState,
        lives: Lives,
        loss_fn: LossFn,
        *,
        train_mask: jax.Array | None = None,
        spread: Spread = side_by_side,
    ) -> tuple[GradientState, Lives, Metrics]:
        """One meta-step.

        Args:
            state: before.
            lives: leading axis N.
            loss_fn: advances one life and returns its outer loss.
            train_mask: [N] bool, lives that the update uses; all by default.
            spread: distributes lives over devices.

        Returns:
            The new state, the advanced lives and metrics: means over lives with finite gradients, masked or not.
        """
        gradient, num_counted, lives, metrics = mean_gradient(
            state.meta_params, lives, loss_fn, train_mask=train_mask, spread=spread
        )
        updates, opt_state = self._optimizer.update(gradient, state.opt_state, state.meta_params)
        moved = GradientState(optax.apply_updates(state.meta_params, updates), opt_state)
        # A meta-step without finite gradients changes nothing; the host loop stops the run.
        moved = trees.where(num_counted > 0, moved, state)
        step = jax.tree.map(jnp.subtract, moved.meta_params, state.meta_params)
        metrics |= {
            "meta_gradient_norm": optax.tree.norm(gradient),
            "update_norm": optax.tree.norm(step),
            "meta_params_norm": optax.tree.norm(moved.meta_params),
        }
        return moved, lives, metrics

    def meta_params(self, state: GradientState) -> MetaParams:
        """The present meta-parameters."""
        return state.meta_params

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate))
