"""The mean of the last meta-parameters in place of the last: most of what a noisy search moves about, averages out."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, MetaParams, Metrics, Population
from metadisco.meta_optimizers.base import MetaOptimizer, MetaState


@struct.dataclass
class AveragedState:
    """State of the meta-optimizer, and the running mean of its meta-parameters."""

    search: Any
    mean: MetaParams
    num_generations: jax.Array  # [] int32


@own_defaults
@dataclass(frozen=True)
class Averaged:
    """Another meta-optimizer whose result is a running mean (Polyak and Juditsky, 1992); the search is as it was.

    After n generations the newest meta-parameters have the weight max(rate, 1 / n), so that the mean is that of all at
    first, and forgets after about 1 / rate generations. Where fitness is noisy, the last meta-parameters are one draw
    from a cloud about the optimum; their mean is nearer to it, and larger learning rates do less harm.

    Attributes:
        meta_optimizer: what searches.
        rate: of the running mean, in (0, 1]; 1 is the meta-optimizer as it is.

    Example:
        >>> from metadisco.meta_optimizers.evolution import Evolution
        >>> Averaged(Evolution(), rate=0.1).replicas
        2
    """

    meta_optimizer: MetaOptimizer
    rate: float = 0.03

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"Averaged.rate must be in (0, 1], got {self.rate}")

    @property
    def replicas(self) -> int:
        """Of what searches."""
        return self.meta_optimizer.replicas

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> AveragedState:
        """Begin at `meta_params`, which are no part of the mean."""
        search = self.meta_optimizer.init(key, meta_params, num_tasks)
        return AveragedState(search, self.meta_optimizer.meta_params(search), jnp.zeros((), jnp.int32))

    def ask(self, key: Key, state: AveragedState, num_tasks: int) -> tuple[Population, MetaState]:
        """See `MetaOptimizer.ask`: candidates about the last meta-parameters, not about their mean."""
        population, asked = self.meta_optimizer.ask(key, state.search, num_tasks)
        return population, state.replace(search=asked)  # type: ignore[attr-defined]

    def tell(
        self,
        key: Key,
        state: AveragedState,
        population: Population,
        fitness: jax.Array,
        *,
        train_mask: jax.Array | None = None,
    ) -> tuple[AveragedState, Metrics]:
        """See `MetaOptimizer.tell`."""
        search, metrics = self.meta_optimizer.tell(key, state.search, population, fitness, train_mask=train_mask)
        num_generations = state.num_generations + 1
        weight = jnp.maximum(self.rate, 1.0 / num_generations.astype(jnp.float32))
        last = self.meta_optimizer.meta_params(search)
        mean = jax.tree.map(lambda old, new: old + weight * (new - old), state.mean, last)
        return AveragedState(search, mean, num_generations), metrics

    def meta_params(self, state: AveragedState) -> MetaParams:
        """The running mean."""
        return state.mean
