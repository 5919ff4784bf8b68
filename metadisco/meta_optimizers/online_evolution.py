"""Online evolution strategies: candidates whose lives are told piece by piece, an unroll in each generation.

Whole lives are long, and a gradient per unroll comes earlier. An estimator says which noise perturbs a candidate in its
next unroll, and which noise is credited with the outcome: that of the unroll alone (truncated ES), the sum of a life's
(persistent ES, arXiv:2112.13835), or the one of the whole life (noise-reuse ES, arXiv:2304.12180). Guided ES
(arXiv:1806.10230) stretches the noise along meta-gradients.

A lane is a pair of lives, one after the other; lane i has candidates i and N + i.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from metadisco.core import trees
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, MetaParams, Metrics, Population
from metadisco.meta_optimizers.evolution import check_learnable, generation_metrics, is_informative, utilities
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import PairwiseDifference, Shaping

SMALLEST_SHARE = 1e-5  # of the largest eigenvalue: a direction with less is taken for a sum of others


@struct.dataclass
class Perturbation:
    """Noise of the first candidate of each of N lanes; the second has its negative. P meta-parameters."""

    noise: jax.Array  # [N, P] float32, added to the meta-parameters
    credit: jax.Array  # [N, P] float32, noise over its variance, summed over what the outcome is credited to


class Estimator(Protocol):
    """How unrolls of a life become a gradient."""

    @property
    def rejoins(self) -> bool:
        """Whether a pair begins each unroll at the same agent, and not its first one alone."""

    def perturb(self, kept: Perturbation, fresh: Perturbation, goes_on: jax.Array) -> Perturbation:
        """Perturbation of the next unroll.

        Args:
            kept: that of the last unroll.
            fresh: a new draw, with its own credit.
            goes_on: [N] bool, lanes whose lives go on; the others begin anew.
        """


@own_defaults
@dataclass(frozen=True)
class TruncatedES:
    """Each unroll has noise of its own and is a problem of its own. Biased: an unroll has no effect on later ones.

    Both candidates of a pair begin each unroll at the agent of the first one.

    Example:
        >>> TruncatedES().rejoins
        True
    """

    rejoins: ClassVar[bool] = True

    def perturb(self, kept: Perturbation, fresh: Perturbation, goes_on: jax.Array) -> Perturbation:
        """See `Estimator.perturb`."""
        del kept, goes_on
        return fresh


@own_defaults
@dataclass(frozen=True)
class PersistentES:
    """Each unroll has noise of its own; its outcome is credited to all noise of the life so far (arXiv:2112.13835).

    Unbiased for constant meta-parameters; the variance grows with the number of unrolls of a life.

    Example:
        >>> PersistentES().rejoins
        False
    """

    rejoins: ClassVar[bool] = False

    def perturb(self, kept: Perturbation, fresh: Perturbation, goes_on: jax.Array) -> Perturbation:
        """See `Estimator.perturb`."""
        return Perturbation(fresh.noise, trees.where(goes_on, kept.credit + fresh.credit, fresh.credit))


@own_defaults
@dataclass(frozen=True)
class NoiseReuseES:
    """One noise for the whole life, which each of its unrolls has and is credited to (arXiv:2304.12180).

    Unbiased for constant meta-parameters, with less variance than `PersistentES`.

    Example:
        >>> NoiseReuseES().rejoins
        False
    """

    rejoins: ClassVar[bool] = False

    def perturb(self, kept: Perturbation, fresh: Perturbation, goes_on: jax.Array) -> Perturbation:
        """See `Estimator.perturb`."""
        return trees.where(goes_on, kept, fresh)


@own_defaults
@dataclass(frozen=True)
class GuidedES:
    """Noise that is stretched along the span of the last surrogate gradients (arXiv:1806.10230).

    e = sqrt(alpha) z + sqrt((1 - alpha) P / r) U z', with standard normal z in the P dimensions of the meta-parameters
    and z' in the r of the span, whose orthonormal basis is U. The covariance has trace P whatever alpha is, so sigma
    means the same as without guidance.

    Attributes:
        alpha: in [0, 1]; 1 ignores the span, 0 never leaves it.
        num_directions: surrogate gradients that are kept, the last ones.

    Example:
        >>> GuidedES(alpha=1.0).num_directions
        8
    """

    alpha: float = 0.5
    num_directions: int = 8

    def __post_init__(self) -> None:
        check_counts(self, "num_directions")
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"GuidedES.alpha must be in [0, 1], got {self.alpha}")

    def stretch(self, key: Key, noise: jax.Array, directions: jax.Array) -> jax.Array:
        """Standard normal noise [N, P] to e, given the surrogate gradients [num_directions, P]; those of 0 are none."""
        basis, is_used = orthonormal_basis(directions)
        rank = jnp.sum(is_used)
        within = jax.random.normal(key, (noise.shape[0], basis.shape[0])) @ basis
        scale = jnp.sqrt((1.0 - self.alpha) * noise.shape[1] / jnp.maximum(rank, 1))
        return jnp.where(rank > 0, jnp.sqrt(self.alpha) * noise + scale * within, noise)


def orthonormal_basis(directions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Basis of the span of k vectors, by the eigenvectors of their Gram matrix.

    Args:
        directions: [k, P] float32, of any length; vectors may be 0 or depend on each other.

    Returns:
        [k, P] float32, whose rows are orthonormal or 0, and which rows are not 0, [k] bool.
    """
    length = jnp.linalg.norm(directions, axis=1, keepdims=True)
    units = directions / jnp.where(length > 0.0, length, 1.0)
    values, vectors = jnp.linalg.eigh(units @ units.T)
    is_used = values > SMALLEST_SHARE * jnp.maximum(values[-1], 1.0)
    scale = jnp.where(is_used, jax.lax.rsqrt(jnp.where(is_used, values, 1.0)), 0.0)
    return scale[:, None] * (vectors.T @ units), is_used


@struct.dataclass
class OnlineEvolutionState:
    """Mean, Adam's state, and what the lanes remember."""

    meta_params: MetaParams
    opt_state: optax.OptState
    generation: jax.Array  # [] int32
    perturbation: Perturbation
    goes_on: jax.Array  # [N] bool, lanes whose lives go on in the next generation; none unless `go_on` says so
    directions: jax.Array | None  # [num_directions, P] float32, surrogate gradients, newest first; None if not guided


@own_defaults
@dataclass(frozen=True)
class OnlineEvolution:
    """OpenES with Adam and antithetic task pairs, for lives that last for several generations.

    A `MetaOptimizer` with two more verbs, both before `ask`: `go_on` says which lives go on, `guide` gives a surrogate
    gradient. Where no life goes on, each has one unroll, and all estimators are `Evolution`.

    Attributes:
        estimator: how unrolls of a life become a gradient.
        sigma: standard deviation of the perturbations.
        learning_rate: of Adam on the estimated gradient.
        shaping: from the outcome of an unroll to utility. Outcomes of a life are added up, so a shaping that is not
            linear, as all but `PairwiseDifference`, changes what is estimated.
        guidance: stretches noise along surrogate gradients; None for noise that is the same in all directions.

    Example:
        >>> OnlineEvolution(NoiseReuseES()).replicas
        2
    """

    estimator: Estimator = PersistentES()
    sigma: Decay = Decay(0.1)
    learning_rate: Decay = Decay(0.01, rate=0.999, floor=1e-5)
    shaping: Shaping = PairwiseDifference()
    guidance: GuidedES | None = None

    @property
    def replicas(self) -> int:
        """A pair."""
        return 2

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> OnlineEvolutionState:
        """Begin at `meta_params`, with N lanes whose lives are all new.

        Raises:
            ValueError: where there is nothing to learn.
        """
        del key
        check_learnable(meta_params)
        size = ravel_pytree(meta_params)[0].size
        return OnlineEvolutionState(
            meta_params,
            self._optimizer.init(meta_params),
            generation=jnp.zeros((), jnp.int32),
            perturbation=Perturbation(jnp.zeros((num_tasks, size)), jnp.zeros((num_tasks, size))),
            goes_on=jnp.zeros(num_tasks, bool),
            directions=None if self.guidance is None else jnp.zeros((self.guidance.num_directions, size)),
        )

    def go_on(self, state: OnlineEvolutionState, goes_on: jax.Array) -> OnlineEvolutionState:
        """Say, before `ask`, which lanes' lives go on, [N] bool; the others begin anew."""
        return state.replace(goes_on=goes_on)  # type: ignore[attr-defined]

    def guide(self, state: OnlineEvolutionState, gradient: MetaParams) -> OnlineEvolutionState:
        """Give, before `ask`, a surrogate gradient of any sign and length; one of 0 is not kept."""
        if state.directions is None:
            raise ValueError("OnlineEvolution.guidance is None, so there is no use for a gradient; use GuidedES()")
        newest = ravel_pytree(gradient)[0]
        moved = jnp.concatenate([newest[None], state.directions[:-1]])
        return state.replace(  # type: ignore[attr-defined]
            directions=jnp.where(jnp.any(newest != 0.0), moved, state.directions)
        )

    def ask(self, key: Key, state: OnlineEvolutionState, num_tasks: int) -> tuple[Population, OnlineEvolutionState]:
        """See `MetaOptimizer.ask`. The noise is that of `Evolution` with the strategy Open_ES and the same key."""
        noise_key, guide_key = jax.random.split(key)
        mean, unravel = ravel_pytree(state.meta_params)
        noise = jax.random.normal(noise_key, (num_tasks, mean.size))
        if self.guidance is not None and state.directions is not None:
            noise = self.guidance.stretch(guide_key, noise, state.directions)
        sigma = self.sigma(state.generation)
        fresh = Perturbation(sigma * noise, noise / sigma)
        perturbation = self.estimator.perturb(state.perturbation, fresh, state.goes_on)
        # Stacked, so that lanes stay on their devices: [2, N, P].
        members = jnp.stack([mean + perturbation.noise, mean - perturbation.noise])
        population = jax.vmap(unravel)(members.reshape(-1, mean.size))
        asked = state.replace(perturbation=perturbation, goes_on=jnp.zeros(num_tasks, bool))  # type: ignore[attr-defined]
        return population, asked

    def tell(
        self,
        key: Key,
        state: OnlineEvolutionState,
        population: Population,
        fitness: jax.Array,
        *,
        train_mask: jax.Array | None = None,
    ) -> tuple[OnlineEvolutionState, Metrics]:
        """See `MetaOptimizer.tell`; the fitness is what came of the unroll alone."""
        del key, population
        utility = utilities(self.shaping, fitness, train_mask)
        # Mean over lanes of (u+ - u-) / 2 times what the outcome is credited to.
        weight = (utility[0] - utility[1]) / (2.0 * fitness.shape[1])
        _, unravel = ravel_pytree(state.meta_params)
        gradient = unravel(weight @ state.perturbation.credit)
        descent = jax.tree.map(jnp.negative, gradient)
        updates, opt_state = self._optimizer.update(descent, state.opt_state, state.meta_params)
        before = state.meta_params, state.opt_state, state.generation
        after: Any = optax.apply_updates(state.meta_params, updates), opt_state, state.generation + 1
        meta_params, opt_state, generation = trees.where(is_informative(fitness, train_mask), after, before)
        metrics = generation_metrics(fitness, state.meta_params, meta_params)
        metrics |= {"sigma": self.sigma(state.generation), "meta_gradient_norm": optax.tree.norm(gradient)}
        moved = state.replace(meta_params=meta_params, opt_state=opt_state, generation=generation)  # type: ignore[attr-defined]
        return moved, metrics

    def meta_params(self, state: OnlineEvolutionState) -> MetaParams:
        """The mean of the search distribution."""
        return state.meta_params

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)
