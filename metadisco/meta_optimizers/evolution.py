"""Evolution strategies over whole lives, on antithetic task pairs (arXiv:2402.05828).

Candidates eta + sigma e and eta - sigma e share task, initial agent and random numbers. Their fitness is shaped within
the pair or over the population (`metadisco.meta_optimizers.shaping`), and a strategy of evosax computes the update.
"""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, MetaParams, Metrics, Population
from metadisco.meta_optimizers.base import mean_where
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_optimizers.shaping import PairwiseSign, Shaping


@struct.dataclass
class EvolutionState:
    """State of the strategy, and its mean as a pytree."""

    strategy: Any  # state of the evosax strategy
    meta_params: MetaParams  # its mean


@own_defaults
@dataclass(frozen=True)
class Evolution:
    """A strategy of evosax on antithetic task pairs.

    Strategies that mirror their samples (Open_ES, PGPE, PersistentES, ...) put candidates i and i + N in one pair.
    For the others (CMA_ES, SNES, ...) the two candidates of a pair are unrelated but still share task and random
    numbers.

    Attributes:
        strategy: class name of a distribution-based strategy in `evosax.algorithms`.
        sigma: standard deviation of the perturbations. Strategies that adapt it themselves begin at `sigma.start`.
        learning_rate: of Adam on the estimated gradient. Strategies without an optimizer do not use it.
        shaping: from fitness to utility.

    Example:
        >>> from metadisco.meta_optimizers.schedules import Decay
        >>> Evolution(sigma=Decay(0.05)).replicas
        2
    """

    strategy: str = "Open_ES"
    sigma: Decay = Decay(0.1)
    learning_rate: Decay = Decay(0.01, rate=0.999, floor=1e-5)
    shaping: Shaping = PairwiseSign()

    def __post_init__(self) -> None:
        try:
            self._build(2, jnp.zeros(2))
        except (TypeError, AttributeError, AssertionError) as error:
            raise ValueError(
                f"Evolution.strategy={self.strategy!r} cannot be built by evosax from a mean: {error}"
            ) from error

    @property
    def replicas(self) -> int:
        """A pair."""
        return 2

    def init(self, key: Key, meta_params: MetaParams, num_tasks: int) -> EvolutionState:
        """Begin at `meta_params`.

        Raises:
            ValueError: where there is nothing to learn.
        """
        check_learnable(meta_params)
        strategy = self._build(2 * num_tasks, meta_params)
        with jax.debug_nans(False):
            state = strategy.init(key, meta_params, self._settings(strategy))
            state = jax.tree.map(_filled, state)
        if "std_schedule" in _options(type(strategy)):
            state = state.replace(std=self.sigma(jnp.zeros((), jnp.int32)))
        return EvolutionState(state, meta_params)

    def ask(self, key: Key, state: EvolutionState, num_tasks: int) -> tuple[Population, EvolutionState]:
        """See `MetaOptimizer.ask`."""
        ask_key, _ = jax.random.split(key)
        strategy = self._build(2 * num_tasks, state.meta_params)
        population, asked = strategy.ask(ask_key, state.strategy, self._settings(strategy))
        return population, state.replace(strategy=asked)  # type: ignore[attr-defined]

    def tell(
        self,
        key: Key,
        state: EvolutionState,
        population: Population,
        fitness: jax.Array,
        *,
        train_mask: jax.Array | None = None,
    ) -> tuple[EvolutionState, Metrics]:
        """See `MetaOptimizer.tell`."""
        _, tell_key = jax.random.split(key)
        strategy = self._build(fitness.size, state.meta_params)
        cost = -utilities(self.shaping, fitness, train_mask).reshape(-1)
        told, _ = strategy.tell(tell_key, population, cost, state.strategy, self._settings(strategy))
        # A generation without finite fitness changes nothing; the host loop stops the run.
        told = trees.where(is_informative(fitness, train_mask), told, state.strategy)
        meta_params = strategy.get_mean(told)
        metrics = generation_metrics(fitness, state.meta_params, meta_params)
        if hasattr(told, "std"):
            metrics["sigma"] = jnp.mean(told.std)
        return EvolutionState(told, meta_params), metrics

    def meta_params(self, state: EvolutionState) -> MetaParams:
        """The mean of the search distribution."""
        return state.meta_params

    def _build(self, population_size: int, solution: MetaParams) -> Any:
        from evosax.algorithms import distribution_based
        from evosax.core.fitness_shaping import identity_fitness_shaping_fn, weights_fitness_shaping_fn

        names = [name for name in dir(distribution_based) if name[0].isupper()]
        if self.strategy not in names:
            nearest = difflib.get_close_matches(self.strategy, names, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"Evolution.strategy={self.strategy!r} is not one of {', '.join(names)}{hint}")
        strategy_class = getattr(distribution_based, self.strategy)
        accepted = _options(strategy_class)
        # Strategies with their own rank weights (CMA_ES, SNES, ...) need them; they rank our utilities.
        weighs = accepted["fitness_shaping_fn"].default is weights_fitness_shaping_fn
        options = {
            "fitness_shaping_fn": weights_fitness_shaping_fn if weighs else identity_fitness_shaping_fn,
            "metrics_fn": lambda *_: {},
            "optimizer": optax.adam(self.learning_rate),
            # evosax evaluates the schedule one generation late, but for the first: see `init`.
            "std_schedule": lambda generation: self.sigma(generation + 1),
        }
        options = {name: option for name, option in options.items() if name in accepted}
        return strategy_class(population_size=population_size, solution=solution, **options)

    def _settings(self, strategy: Any) -> Any:
        settings = strategy.default_params
        if hasattr(settings, "std_init"):
            settings = settings.replace(std_init=self.sigma.start)
        return settings


def _filled(leaf: Any) -> jax.Array:
    """A leaf of an initial state without NaN, which evosax uses as a placeholder.

    `JAX_DEBUG_NANS` would stop at these. Python numbers become arrays: their weak types would compile the first
    meta-step twice.
    """
    array = jnp.array(leaf, jnp.asarray(leaf).dtype)
    return jnp.where(jnp.isnan(array), 0, array) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _options(strategy_class: type) -> Mapping[str, inspect.Parameter]:
    """Parameters of a strategy's constructor."""
    return inspect.signature(strategy_class).parameters


def check_learnable(meta_params: MetaParams) -> None:
    """Raise ValueError where there are no meta-parameters."""
    if not jax.tree.leaves(meta_params):
        raise ValueError(
            "this objective has no meta-parameters, so there is nothing to meta-train; use LPG, for example"
        )


def utilities(shaping: Shaping, fitness: jax.Array, train_mask: jax.Array | None) -> jax.Array:
    """Shaped fitness [2, N]; pairs on masked tasks tie."""
    utility = shaping(fitness)
    return utility if train_mask is None else jnp.where(train_mask, utility, jnp.mean(utility, axis=0))


def is_informative(fitness: jax.Array, train_mask: jax.Array | None) -> jax.Array:
    """Whether any fitness [2, N] that the update uses is finite. [] bool."""
    finite = jnp.isfinite(fitness)
    return jnp.any(finite if train_mask is None else finite & train_mask)


def generation_metrics(fitness: jax.Array, before: MetaParams, after: MetaParams) -> Metrics:
    """Metrics of a generation with fitness [2, N].

    `fitness` is the mean over candidates of finite fitness, `pair_gap` the mean |difference| within pairs,
    `update_norm` the length of the step.
    """
    finite = jnp.isfinite(fitness)
    gap = jnp.abs(fitness[0] - fitness[1])
    step = jax.tree.map(jnp.subtract, after, before)
    return {
        "fitness": mean_where(finite, fitness),
        "pair_gap": mean_where(jnp.all(finite, axis=0), gap),
        "finite_fraction": jnp.mean(finite.astype(jnp.float32)),
        "update_norm": optax.tree.norm(step),
        "meta_params_norm": optax.tree.norm(after),
    }
