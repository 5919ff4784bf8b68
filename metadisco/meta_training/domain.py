"""A domain: an environment with its agents, its curriculum and its level score.

A trainer has one domain or several. Under `jax.vmap` (`metadisco.meta_training.batched_seeds`) the lives of all seeds
are merged into one population.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from metadisco.core import lowrank, trees
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import KeyPurpose
from metadisco.core.sharding import num_slots, population_mesh, scatter
from metadisco.core.types import Key, Metrics, Outcome, Population
from metadisco.curricula.base import Curriculum, CurriculumState, Proposal
from metadisco.curricula.tasks import evenness
from metadisco.lives.critic import CriticOutput
from metadisco.lives.life import InitialCondition, InnerLoop, Life, only_of_finite
from metadisco.meta_optimizers.base import mean_where
from metadisco.meta_training import level_scores
from metadisco.meta_training.level_scores import LevelScore, Return

MAX_CPU_SLOTS = 4  # fastest for narrow nets on a CPU core, see docs/results/slots.json
CPU_CACHE = 2**20  # bytes of meta-parameters that fit into a core's cache; wider nets get fewer slots


class Recorded(NamedTuple):
    """A population of one meta-step and its fitness, for debugging."""

    inner: InnerLoop
    population: Population
    initials: InitialCondition
    fitness: jax.Array  # [M] float32


_RECORDED: ContextVar[list[Recorded] | None] = ContextVar("recorded", default=None)


@contextlib.contextmanager
def recording() -> Iterator[list[Recorded]]:
    """Context in which `Domain.live` appends its population to a list, while a meta-step is traced."""
    token = _RECORDED.set([])
    try:
        yield cast(list[Recorded], _RECORDED.get())
    finally:
        _RECORDED.reset(token)


@own_defaults
@dataclass(frozen=True)
class Domain:
    """One environment of a meta-training run.

    Attributes:
        inner: the inner loop.
        curriculum: proposes tasks.
        num_tasks: N, tasks per meta-step; under evolution each has R lives, the replicas of the meta-optimizer.
        score: level score, by which the curriculum keeps and replays levels.
        slots: lives that run side by side on one device. None chooses: enough to fill an accelerator, few enough for
            the cache of a CPU.
        name: suffix of its metrics, if there are several domains.
        random_return: return of a random policy, 0 on the common scale of fitness.
        reference_return: return of a good agent, 1 on that scale.
    """

    inner: InnerLoop
    curriculum: Curriculum
    num_tasks: int = 64
    score: LevelScore = Return()
    slots: int | None = None
    name: str = "domain"
    random_return: float = 0.0
    reference_return: float = 1.0

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "slots")
        if not self.reference_return > self.random_return:
            raise ValueError(
                f"Domain.reference_return must be above random_return, got {self.reference_return} and "
                f"{self.random_return}"
            )
        self.curriculum.check(self.num_tasks)
        level_scores.check(self.score, self.inner)

    def num_slots(self, num_lives: int, *, even: float | None = None) -> int:
        """Lives that run side by side on one device, out of `num_lives`.

        Args:
            num_lives: of the device.
            even: mean number of updates over the largest; by default that of the curriculum's lifetimes.
        """
        even = evenness(self.curriculum) if even is None else even
        meta_params = trees.num_bytes(jax.eval_shape(self.inner.objective.init, jax.eval_shape(jax.random.key, 0)))
        in_cache, all_busy = CPU_CACHE // max(meta_params, 1), int(even * num_lives / 2)
        on_cpu = max(1, min(MAX_CPU_SLOTS, in_cache, all_busy))
        return num_slots(self.slots, num_lives, on_cpu=on_cpu, evenness=even)

    def normalize(self, fitness: jax.Array) -> jax.Array:
        """Fitness on the common scale. [...] float32."""
        return (fitness - self.random_return) / (self.reference_return - self.random_return)

    @property
    def antagonist(self) -> InnerLoop | None:
        """Inner loop of the score's antagonist; None if the score has none that is trained."""
        return level_scores.trained_antagonist(self.score, self.inner)

    def live_as_antagonists(self, initials: InitialCondition) -> tuple[jax.Array, jax.Array]:
        """Mean returns of antagonists, [N] float32, 0 without antagonists, and the sum of their updates, [] int32."""
        antagonist = self.antagonist
        if antagonist is None:
            return jnp.zeros(initials.task.lifetime.shape), jnp.zeros((), jnp.int32)

        def live(population: Population, initials: InitialCondition) -> Outcome:
            slots = self.num_slots(initials.task.lifetime.shape[0])
            return antagonist.live(population, initials, slots=slots)[1]

        def spend(population: Population, initials: InitialCondition) -> Outcome:
            return scatter(live, population, initials, work=initials.task.lifetime, mesh=population_mesh())

        outcomes = _as_one_population(spend)((), initials)
        return outcomes.fitness, jnp.sum(outcomes.num_updates)

    def live(self, population: Population, items: tuple[InitialCondition, jax.Array]) -> Outcome:
        """Run whole lives, sharded over all devices, and score their levels. The agents themselves are discarded.

        Args:
            population: meta-parameters, leading axis M.
            items: initial conditions, and mean returns of antagonists; leading axis M.
        """

        def spend(population: Population, items: tuple[InitialCondition, jax.Array]) -> Outcome:
            return scatter(self._live, population, items, work=items[0].task.lifetime, mesh=population_mesh())

        outcomes = _as_one_population(spend)(population, items)
        if (recorded := _RECORDED.get()) is not None:
            recorded.append(Recorded(self.inner, population, items[0], outcomes.fitness))
        return outcomes

    def _live(self, population: Population, items: tuple[InitialCondition, jax.Array]) -> Outcome:
        initials, antagonist_returns = items
        slots = self.num_slots(antagonist_returns.shape[0])
        lives = jax.vmap(self.inner.begin)(initials.key, initials.task)
        return self.train(population, lives, initials.task.lifetime, antagonist_returns, slots=slots)[1]

    def train(
        self,
        population: Population,
        lives: Life,
        until: jax.Array,
        antagonist_returns: jax.Array,
        *,
        slots: int,
        scored: jax.Array | None = None,
    ) -> tuple[Life, Outcome]:
        """Train agents on one device until they have done `until` updates, evaluate them, and score their levels.

        Args:
            population: meta-parameters, leading axis M.
            lives: leading axis M.
            until: [M] int32.
            antagonist_returns: [M] float32.
            slots: lives that run side by side.
            scored: [M] bool, the lives whose levels are scored; all by default.

        Returns:
            The lives and their outcomes, leading axis M; metrics are means over the updates done here.
        """
        lives, metrics = self.inner.advance(population, lives, until, slots=slots)
        critic_outputs: CriticOutput | None = None
        if self.score.uses_critic:
            critic_outputs = jax.lax.map(self._assess, lives, batch_size=slots)
        fitness, scores = self.conclude(lives, antagonist_returns, critic_outputs, slots=slots, scored=scored)
        return lives, Outcome(fitness, lives.num_updates, metrics, scores)

    def catch_up(
        self, antagonists: Life | None, until: jax.Array, finished: jax.Array, *, slots: int
    ) -> tuple[Life | None, jax.Array]:
        """Train antagonists on one device until they have done `until` updates, [M], and evaluate the finished ones.

        Returns:
            The antagonists, and their mean returns, [M] float32; 0 where not finished and without antagonists.
        """
        antagonist = self.antagonist
        if antagonist is None or antagonists is None:
            return antagonists, jnp.zeros(finished.shape)
        antagonists = antagonist.advance((), antagonists, until, slots=slots)[0]
        returns = antagonist.evaluate(antagonists, slots=slots, chosen=finished)
        return antagonists, jnp.mean(only_of_finite(antagonists, returns), axis=1)

    def conclude(
        self,
        lives: Life,
        antagonist_returns: jax.Array,
        critic_outputs: CriticOutput | None,
        *,
        slots: int,
        chosen: jax.Array | None = None,
        scored: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Evaluate agents, as a rule at the end of their lives, and score their levels.

        Args:
            lives: leading axis M.
            antagonist_returns: [M] float32.
            critic_outputs: leading axis M; None where the score uses no critic.
            slots: lives evaluated side by side.
            chosen: [M] bool, the lives to evaluate; all by default. No work is done for the others.
            scored: [M] bool, the lives whose levels are scored; those chosen by default.

        Returns:
            Fitness and scores, [M] float32 each; NaN where an agent diverged.
        """
        returns = only_of_finite(lives, self.inner.evaluate(lives, slots=slots, chosen=chosen))
        scored = chosen if scored is None else scored
        scored = jnp.ones(antagonist_returns.shape, bool) if scored is None else scored
        scores = level_scores.score_lives(
            self.score, self.inner, lives, returns, antagonist_returns, critic_outputs, scored
        )
        return jnp.mean(returns, axis=1), scores

    def _assess(self, life: Life) -> CriticOutput:
        return self.inner.assess(life, self.inner.perceive(life, self.inner.act(life, KeyPurpose.VALIDATE)[0]))

    def observe(
        self, key: Key, curriculum: CurriculumState, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[CurriculumState, Metrics]:
        """Give the curriculum the scores of finished lives.

        Args:
            key: of this meta-step.
            curriculum: its state.
            proposal: proposal of the lives.
            scores: [N] float32; levels with a non-finite score are not kept.
            finished: [N] bool.

        Returns:
            Its state and metrics of the finite scores: their mean `score`, the extremes `score_low` and `score_high`,
            NaN if there is none, and their number `num_scored`.
        """
        curriculum, metrics = self.curriculum.observe(key, curriculum, proposal, scores, finished)
        is_scored = finished & jnp.isfinite(scores)
        found = {
            "score": mean_where(is_scored, scores),
            "score_low": jnp.min(jnp.where(is_scored, scores, jnp.inf)),
            "score_high": jnp.max(jnp.where(is_scored, scores, -jnp.inf)),
        }
        found = {name: jnp.where(jnp.any(is_scored), value, jnp.nan) for name, value in found.items()}
        return curriculum, metrics | found | {"num_scored": jnp.sum(is_scored).astype(jnp.float32)}


def _as_one_population(spend: Callable[[Population, Any], Outcome]) -> Callable[[Population, Any], Outcome]:
    """Make `jax.vmap` over S populations run them as one population of S M lives.

    A vmapped loop would run every population until the slowest of S is done; one packed population does not wait.
    Random numbers are those without vmap, so results agree up to the order of sums. Low-rank populations with different
    base matrices cannot be merged and are run one after the other.
    """
    packed = jax.custom_batching.custom_vmap(spend)

    def merge(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, *leaf.shape[2:])

    @packed.def_vmap
    def rule(num_seeds: int, in_batched: Any, population: Population, items: Any) -> tuple[Outcome, Any]:
        def lead(leaf: jax.Array, is_batched: bool) -> jax.Array:
            return leaf if is_batched else jnp.broadcast_to(leaf, (num_seeds, *leaf.shape))

        population, items = jax.tree.map(lead, (population, items), tuple(in_batched))
        if lowrank.is_shared(population):
            outcomes = jax.lax.map(lambda each: spend(*each), (population, items))
        else:
            outcomes = spend(jax.tree.map(merge, population), jax.tree.map(merge, items))
            outcomes = jax.tree.map(lambda leaf: leaf.reshape(num_seeds, -1, *leaf.shape[1:]), outcomes)
        return outcomes, jax.tree.map(lambda _: True, outcomes)

    return packed


def check_one(trainer: Any) -> None:
    """Raise ValueError unless a trainer has exactly one domain, for one that keeps lives over meta-steps."""
    if len(trainer.domains) != 1:
        name, num_domains = type(trainer).__name__, len(trainer.domains)
        raise ValueError(f"{name}.domains must be one domain, got {num_domains}; use EvolutionTrainer for several")


def of_lives(outcomes: Outcome) -> Metrics:
    """Means of metrics and returns (`fitness`) over candidates of finite fitness."""
    finite = jnp.isfinite(outcomes.fitness)
    values = outcomes.metrics | {"fitness": outcomes.fitness}
    return {name: mean_where(finite & jnp.isfinite(value), value) for name, value in values.items()}


def of_better(outcomes: Outcome) -> jax.Array:
    """Score of the fittest life on each task, [R, N] to [N]; NaN where none is finite."""
    fitness = jnp.where(jnp.isfinite(outcomes.fitness), outcomes.fitness, -jnp.inf)
    better = jnp.argmax(fitness, axis=0)
    return jnp.take_along_axis(jnp.asarray(outcomes.score), better[None], axis=0)[0]
