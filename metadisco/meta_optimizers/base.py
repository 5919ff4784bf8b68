"""What a meta-optimizer is: a rule that improves meta-parameters, given a function that spends lives with them.

Meta-optimizers know nothing of objectives, agents or environments: meta-parameters are a pytree, and a life is whatever
`life_fn` takes and returns.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from metadisco.core.types import Key, MetaParams, Metrics, Outcome, Population

MetaState = Any  # pytree of arrays
Lives = Any  # pytree with leading axis N or M
LifeFn = Callable[[Population, Lives], Outcome]
"""(population [M], lives [M]) -> outcomes [M]."""


class MetaOptimizer(Protocol):
    """A rule that improves meta-parameters."""

    @property
    def replicas(self) -> int:
        """R, lives per task."""

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> MetaState:
        """State that begins at `meta_params`."""

    def step(
        self, key: Key, state: MetaState, lives: Lives, life_fn: LifeFn, *, train_mask: jax.Array | None = None
    ) -> tuple[MetaState, Outcome, Metrics]:
        """One meta-step over N tasks.

        Args:
            key: of this meta-step.
            state: before.
            lives: leading axis N, one for each task; replicas start as copies.
            life_fn: spends lives.
            train_mask: [N] bool, the tasks from which the objective may learn; all by default.

        Returns:
            The new state, outcomes [R, N] and metrics.
        """

    def meta_params(self, state: MetaState) -> MetaParams:
        """The present meta-parameters."""


def mirror(tree: Any) -> Any:
    """Two copies, one after the other: leading axis N to 2N."""
    return jax.tree.map(lambda leaf: jax.numpy.concatenate([leaf, leaf]), tree)


def mean_where(mask: jax.Array, values: jax.Array) -> jax.Array:
    """Mean of the masked values; 0 where there are none."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
