"""Low-rank evolution strategies, whose candidates share large matrix products (arXiv:2511.16652).

Each matrix W of the meta-parameters is perturbed by sigma a b^T / sqrt(rank) with Gaussian a and b. A candidate's
product is x W + sigma (x a) b^T / sqrt(rank), so one large product by W serves the whole population. The update
averages many rank-one directions and has full rank.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.lowrank import LowRank
from metadisco.core.types import Key, MetaParams, Metrics, Population
from metadisco.meta_optimizers.base import repeat
from metadisco.meta_optimizers.evolution import check_learnable, generation_metrics, is_informative, utilities
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import PairwiseSign, Shaping


@struct.dataclass
class LowRankState:
    """Mean, Adam's state and the number of generations."""

    meta_params: MetaParams
    opt_state: optax.OptState
    generation: jax.Array  # [] int32


@struct.dataclass
class _Thin:
    """Directions of one matrix for N pairs."""

    left: jax.Array  # [N, inputs, rank]
    right: jax.Array  # [N, outputs, rank]


@own_defaults
@dataclass(frozen=True)
class LowRankEvolution:
    """OpenES with Adam, antithetic task pairs and low-rank perturbations of every matrix.

    Vectors and matrices with a side no longer than `rank` get full-rank noise.

    Attributes:
        rank: of each perturbation.
        sigma: standard deviation of every entry of a perturbation.
        learning_rate: of Adam.
        shaping: from fitness to utility.

    Example:
        >>> LowRankEvolution(rank=1).replicas
        2
    """

    rank: int = 1
    sigma: Decay = Decay(0.1)
    learning_rate: Decay = Decay(0.01, rate=0.999, floor=1e-5)
    shaping: Shaping = PairwiseSign()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LowRankEvolution.rank must be at least 1, got {self.rank}")

    @property
    def replicas(self) -> int:
        """A pair."""
        return 2

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> LowRankState:
        """Begin at `meta_params`."""
        del key, num_tasks
        check_learnable(meta_params)
        return LowRankState(meta_params, self._optimizer.init(meta_params), jnp.zeros((), jnp.int32))

    def ask(self, key: Key, state: LowRankState, num_tasks: int) -> tuple[Population, LowRankState]:
        """See `MetaOptimizer.ask`."""
        noise = self._draw(key, state.meta_params, num_tasks)
        return self._population(state.meta_params, noise, self.sigma(state.generation)), state

    def tell(
        self,
        key: Key,
        state: LowRankState,
        population: Population,
        fitness: jax.Array,
        *,
        train_mask: jax.Array | None = None,
    ) -> tuple[LowRankState, Metrics]:
        """See `MetaOptimizer.tell`. The noise is drawn again, from the same key."""
        del population
        num_tasks, sigma = fitness.shape[1], self.sigma(state.generation)
        noise = self._draw(key, state.meta_params, num_tasks)
        utility = utilities(self.shaping, fitness, train_mask)
        # d/d eta of E[utility]: mean over pairs of (u+ - u-) e / (2 sigma).
        weight = (utility[0] - utility[1]) / (2.0 * sigma * num_tasks)
        descent = jax.tree.map(lambda e: -self._contract(weight, e), noise, is_leaf=_is_thin)
        updates, opt_state = self._optimizer.update(descent, state.opt_state, state.meta_params)
        moved = LowRankState(optax.apply_updates(state.meta_params, updates), opt_state, state.generation + 1)
        moved = trees.where(is_informative(fitness, train_mask), moved, state)
        metrics = generation_metrics(fitness, state.meta_params, moved.meta_params)
        return moved, metrics | {"sigma": sigma}

    def meta_params(self, state: LowRankState) -> MetaParams:
        """The mean of the search distribution."""
        return state.meta_params

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def _is_matrix(self, leaf: jax.Array) -> bool:
        return leaf.ndim == 2 and min(leaf.shape) > self.rank

    def _draw(self, key: Key, meta_params: MetaParams, num_tasks: int) -> Any:
        leaves, structure = jax.tree.flatten(meta_params)
        drawn: list[jax.Array | _Thin] = []
        for leaf_key, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True):
            if self._is_matrix(leaf):
                left_key, right_key = jax.random.split(leaf_key)
                left = jax.random.normal(left_key, (num_tasks, leaf.shape[0], self.rank))
                drawn.append(_Thin(left, jax.random.normal(right_key, (num_tasks, leaf.shape[1], self.rank))))
            else:
                drawn.append(jax.random.normal(leaf_key, (num_tasks, *leaf.shape)))
        return jax.tree.unflatten(structure, drawn)

    def _population(self, meta_params: MetaParams, noise: Any, sigma: jax.Array) -> Any:
        def perturb(direction: Any, leaf: jax.Array) -> Any:
            if isinstance(direction, _Thin):
                num_tasks = direction.left.shape[0]
                scale = jnp.full(num_tasks, sigma * self.rank**-0.5)
                return LowRank(
                    leaf, repeat(direction.left, 2), repeat(direction.right, 2), jnp.concatenate([scale, -scale])
                )
            return jnp.concatenate([leaf + sigma * direction, leaf - sigma * direction])

        return jax.tree.map(perturb, noise, meta_params, is_leaf=_is_thin)

    def _contract(self, weight: jax.Array, direction: Any) -> jax.Array:
        """Sum over pairs of weight times direction."""
        if isinstance(direction, _Thin):
            return jnp.einsum("n,nir,nor->io", weight, direction.left, direction.right) * self.rank**-0.5
        return jnp.tensordot(weight, direction, axes=1)


def _is_thin(leaf: Any) -> bool:
    return isinstance(leaf, _Thin)
