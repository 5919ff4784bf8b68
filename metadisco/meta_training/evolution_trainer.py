"""Meta-training by evolution: propose tasks, ask for candidates, run their lives, tell their fitness, observe.

Domains differ in shapes, so their lives are run one domain after the other; the meta-optimizer gets all of them as one
generation. Fitness is normalized per domain (random policy 0, a good agent 1), so that a domain with larger rewards has
no larger weight.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metadisco.core import lowrank
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, MetaParams, Metrics, Outcome, Population
from metadisco.curricula.base import Curriculum, CurriculumState, Proposal
from metadisco.lives.life import InitialCondition, InnerLoop
from metadisco.meta_optimizers.base import MetaOptimizer, MetaState, repeat
from metadisco.meta_training import memory_estimate, nan_search
from metadisco.meta_training.domain import Domain, of_better, of_lives
from metadisco.meta_training.level_scores import LevelScore, Return
from metadisco.objectives.base import Objective
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.objectives.with_optimizer import WithOptimizer


@struct.dataclass
class TrainState:
    """State of meta-training."""

    step: jax.Array  # [] int32, meta-steps done
    meta: MetaState
    curricula: tuple[CurriculumState, ...]  # one for each domain


@own_defaults
@dataclass(frozen=True)
class EvolutionTrainer:
    """Meta-training by evolution over whole lives, in one domain or several. The dataclass is the run's configuration.

    Attributes:
        domains: the environments, with their agents. Their objectives must be equal. For mirror learning only the
            drifts must be equal; other hyper-parameters, such as the discount, may differ.
        meta_optimizer: the evolution strategy. A generation has R candidates (its `replicas`) for each task of each
            domain.
        num_steps: meta-steps of the whole run.

    Example:
        >>> import metadisco
        >>> [domain.name for domain in metadisco.preset("lpo-quick").trainer.domains]
        ['CartPole-v1', 'Catch-bsuite', 'grid']
    """

    domains: tuple[Domain, ...]
    meta_optimizer: MetaOptimizer
    num_steps: int = 500
    lives_end_with_the_meta_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "num_steps")
        names = [domain.name for domain in self.domains]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"EvolutionTrainer.domains must be one or more of different names, got {names}")
        if not isinstance(self.meta_optimizer, MetaOptimizer):
            raise ValueError(
                f"EvolutionTrainer.meta_optimizer must have ask and tell, got {self.meta_optimizer}; use Evolution or "
                "LowRankEvolution, or GradientTrainer for meta-gradients"
            )
        first, *others = (domain.inner.objective for domain in self.domains)
        if any(each != first and not _learn_the_same(each, first) for each in others):
            raise ValueError(f"the objectives of all domains must learn the same; those of {', '.join(names)} differ")

    @property
    def replicas(self) -> int:
        """R, candidates for each task."""
        return self.meta_optimizer.replicas

    @property
    def num_tasks(self) -> int:
        """N, tasks per meta-step, summed over domains."""
        return sum(domain.num_tasks for domain in self.domains)

    def init(self, key: Key, meta_params: MetaParams | None = None) -> TrainState:
        """Random meta-parameters, or those given; fresh optimizer and curricula."""
        objective_key, meta_key, curriculum_key = jax.random.split(key, 3)
        if meta_params is None:
            meta_params = self.domains[0].inner.objective.init(objective_key)
        keys = [curriculum_key] if len(self.domains) == 1 else jax.random.split(curriculum_key, len(self.domains))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            meta=self.meta_optimizer.init(meta_key, meta_params, self.num_tasks),
            curricula=tuple(domain.curriculum.init(key) for domain, key in zip(self.domains, keys, strict=True)),
        )

    def step(self, key: Key, state: TrainState) -> tuple[TrainState, Metrics]:
        """One meta-step. Metrics are scalars; with several domains, those of one domain are called `NAME/DOMAIN`."""
        propose_key, init_key, meta_key, observe_key = jax.random.split(key, 4)
        proposed = [
            domain.curriculum.propose(self._key(propose_key, i), state.curricula[i], domain.num_tasks)
            for i, domain in enumerate(self.domains)
        ]
        proposals = [proposal for _, proposal in proposed]
        initials = [
            InitialCondition(jax.random.split(self._key(init_key, i), domain.num_tasks), proposals[i].tasks)
            for i, domain in enumerate(self.domains)
        ]
        antagonists = [domain.live_as_antagonists(each) for domain, each in zip(self.domains, initials)]
        population, meta = self.meta_optimizer.ask(meta_key, state.meta, self.num_tasks)
        outcomes = [
            self._live(i, population, initials[i], antagonist_returns)
            for i, (antagonist_returns, _) in enumerate(antagonists)
        ]
        fitness = [domain.normalize(each.fitness) for domain, each in zip(self.domains, outcomes)]
        meta, metrics = self.meta_optimizer.tell(
            meta_key,
            meta,
            population,
            jnp.concatenate(fitness, axis=1),
            train_mask=jnp.concatenate([proposal.train_mask for proposal in proposals]),
        )
        curricula = []
        for i, domain in enumerate(self.domains):
            finished = jnp.ones(domain.num_tasks, bool)
            curriculum, told = domain.observe(
                self._key(observe_key, i), proposed[i][0], proposals[i], of_better(outcomes[i]), finished
            )
            curricula.append(curriculum)
            metrics |= self._named(told | of_lives(outcomes[i]), domain)
        metrics |= self._work(outcomes, [updates for _, updates in antagonists], proposals)
        return TrainState(state.step + 1, meta, tuple(curricula)), metrics

    def meta_params(self, state: TrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)

    def find_nan(self, key: Key, state: TrainState) -> None:
        """See `metadisco.runs.compiled_steps.FindsNaN`."""
        nan_search.find_in_population(self, key, state)

    def num_slots(self, domain: Domain) -> int:
        """Lives of a domain that run side by side on one device."""
        return domain.num_slots(-(-domain.num_tasks * self.replicas // jax.device_count()))

    def memory(self, domain: Domain) -> int:
        """Bytes that a meta-step needs in one domain; domains run one after the other."""
        return memory_estimate.of_whole_lives(domain, domain.num_tasks * self.replicas, self.num_slots(domain))

    def _key(self, key: Key, i: int) -> Key:
        """The key of domain i; `key` itself if there is one domain."""
        return key if len(self.domains) == 1 else jax.random.fold_in(key, i)

    def _live(
        self, i: int, population: Population, initials: InitialCondition, antagonist_returns: jax.Array
    ) -> Outcome:
        """Run the lives of the candidates of domain i. Outcomes [R, N of this domain]."""
        members = lowrank.take(population, jnp.asarray(self._members(i))) if len(self.domains) > 1 else population
        outcomes = self.domains[i].live(members, repeat((initials, antagonist_returns), self.replicas))
        return jax.tree.map(lambda leaf: leaf.reshape(self.replicas, -1, *leaf.shape[1:]), outcomes)

    def _members(self, i: int) -> np.ndarray:
        """Indices into the population of the candidates of domain i."""
        begin = sum(domain.num_tasks for domain in self.domains[:i])
        tasks = np.arange(begin, begin + self.domains[i].num_tasks)
        return np.concatenate([replica * self.num_tasks + tasks for replica in range(self.replicas)])

    def _named(self, metrics: Metrics, domain: Domain) -> Metrics:
        """Metrics of a domain, with its name as a suffix if there are several domains."""
        if len(self.domains) == 1:
            return {name: value for name, value in metrics.items() if name != "fitness"}  # the meta-optimizer's
        return {f"{name}/{domain.name}": value for name, value in metrics.items()}

    def _work(self, outcomes: list[Outcome], antagonist_updates: list[jax.Array], proposals: list[Proposal]) -> Metrics:
        """Agent updates and environment steps, including antagonists, and the mean lifetime."""
        updates = [
            jnp.sum(each.num_updates) + theirs for each, theirs in zip(outcomes, antagonist_updates, strict=True)
        ]
        env_steps = [
            each.astype(jnp.float32) * (domain.inner.num_workers * domain.inner.num_steps)
            for each, domain in zip(updates, self.domains, strict=True)
        ]
        lifetimes = jnp.concatenate([proposal.tasks.lifetime for proposal in proposals])
        metrics = {
            "agent_updates": sum(updates[1:], updates[0]).astype(jnp.float32),
            "env_steps": jnp.stack(env_steps).sum(),
            "lifetime": jnp.mean(lifetimes.astype(jnp.float32)),
        }
        if len(self.domains) > 1:
            metrics |= {f"env_steps/{domain.name}": each for domain, each in zip(self.domains, env_steps)}
        return metrics


def MetaTrainer(  # noqa: N802 - a constructor of EvolutionTrainer
    inner: InnerLoop,
    curriculum: Curriculum,
    meta_optimizer: MetaOptimizer,
    num_tasks: int = 512,
    num_steps: int = 2500,
    score: LevelScore = Return(),
    slots: int | None = None,
) -> EvolutionTrainer:
    """An `EvolutionTrainer` with one domain.

    Args:
        inner: the inner loop.
        curriculum: which tasks come next.
        meta_optimizer: the evolution strategy.
        num_tasks: N, tasks per meta-step.
        num_steps: meta-steps.
        score: see `Domain`.
        slots: see `Domain`.

    Example:
        >>> import metadisco
        >>> levels = metadisco.GridLevels()
        >>> inner = metadisco.InnerLoop(levels.env, metadisco.Table(), metadisco.LPG())
        >>> curriculum = metadisco.DomainRandomization(metadisco.Tasks(levels, metadisco.FixedLifetime(8)))
        >>> MetaTrainer(inner, curriculum, metadisco.Evolution(), num_tasks=4).num_tasks
        4
    """
    return EvolutionTrainer((Domain(inner, curriculum, num_tasks, score, slots),), meta_optimizer, num_steps)


def _learn_the_same(one: Objective, other: Objective) -> bool:
    shapes = [jax.eval_shape(each.init, jax.random.key(0)) for each in (one, other)]
    return shapes[0] == shapes[1] and _learned_part(one) == _learned_part(other)


def _learned_part(objective: Objective) -> Any:
    """What must be equal in all domains: of mirror learning the drift, by a schedule or not; else the objective.

    A learned optimizer must be equal, too.
    """
    if isinstance(objective, WithOptimizer):
        return objective.optimizer, _learned_part(objective.objective)
    if isinstance(objective, ScheduledMirrorLearning):
        return objective.width, objective.base.drift
    return objective.drift if isinstance(objective, MirrorLearning) else objective
