"""Protocol of meta-optimizers: update meta-parameters by `ask` for candidates and `tell` their fitness.

Meta-optimizers know nothing of objectives, agents or environments: meta-parameters are a pytree, and a life is only its
fitness. Meta-gradients differentiate lives and have another protocol (`metadisco.meta_optimizers.gradient`).
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from metadisco.core.types import Key, MetaParams, Metrics, Population

MetaState = Any  # pytree of arrays


@runtime_checkable
class MetaOptimizer(Protocol):
    """Updates meta-parameters from the fitness of candidates.

    A generation has M = R N candidates: R replicas for each of N tasks, candidate r N + i on task i.
    """

    @property
    def replicas(self) -> int:
        """R, candidates per task."""

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> MetaState:
        """State that begins at `meta_params`. Raises ValueError where there is nothing to learn."""

    def ask(self, key: Key, state: MetaState, num_tasks: int) -> tuple[Population, MetaState]:
        """Candidates of the next generation.

        Args:
            key: of this generation.
            state: before it.
            num_tasks: N.

        Returns:
            Meta-parameters with leading axis M, and the state for `tell`.
        """

    def tell(
        self,
        key: Key,
        state: MetaState,
        population: Population,
        fitness: jax.Array,
        *,
        train_mask: jax.Array | None = None,
    ) -> tuple[MetaState, Metrics]:
        """Update from the fitness of the candidates.

        Args:
            key: the key of `ask`.
            state: returned by `ask`.
            population: returned by `ask`.
            fitness: [R, N] float32, higher is better; NaN for diverged agents, which counts as the worst.
            train_mask: [N] bool, tasks that the update uses; all by default.

        Returns:
            The new state, of the same types, and metrics.
        """

    def meta_params(self, state: MetaState) -> MetaParams:
        """The present meta-parameters."""


def repeat(tree: Any, replicas: int) -> Any:
    """R copies, one after the other: leading axis N to R N."""
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf] * replicas), tree)


def mean_where(mask: jax.Array, values: jax.Array) -> jax.Array:
    """Mean of the masked values; 0 where there are none."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
