"""One meta-step over several environments: an objective that is meant for all of them is trained on all of them.

Environments differ in shape, so their lives cannot be batched together: domains come one after the other, and the
meta-optimizer sees all of their lives as one population. What a candidate reached is put on the scale of its domain
(random policy 0, a good agent 1), so that no environment counts for more because its rewards are larger.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metadisco.core import lowrank
from metadisco.core.types import Key, MetaParams, Metrics, Outcome, Population
from metadisco.curricula.base import CurriculumState
from metadisco.lives.life import InitialCondition
from metadisco.meta_optimizers.base import Lives, MetaOptimizer, MetaState, mean_where, mirror
from metadisco.meta_training.domain import Domain, of_better


@struct.dataclass
class MixedTrainState:
    """All that changes from meta-step to meta-step."""

    step: jax.Array  # [] int32, meta-steps done
    meta: MetaState
    curricula: tuple[CurriculumState, ...]  # one for each domain


@dataclass(frozen=True)
class MixedTrainer:
    """A meta-training run on several environments, by evolution. It is its own configuration.

    Attributes:
        domains: the environments, with their agents. Their objectives must be equal; of mirror learning the drifts,
            while the settings of the agents around them, such as the discount, may differ.
        meta_optimizer: how the objective improves; one with pairs of candidates on each task.
        num_steps: meta-steps of the whole run.
    """

    domains: tuple[Domain, ...]
    meta_optimizer: MetaOptimizer
    num_steps: int = 500

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"MixedTrainer.num_steps must be at least 1, got {self.num_steps}")
        names = [domain.name for domain in self.domains]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"MixedTrainer.domains must be one or more of different names, got {names}")
        if self.meta_optimizer.replicas != 2:
            raise ValueError(
                "MixedTrainer compares pairs of candidates, so its meta-optimizer must have two replicas, got "
                f"{self.meta_optimizer.replicas}; use Evolution or LowRankEvolution"
            )
        shapes = [jax.eval_shape(domain.inner.objective.init, jax.random.key(0)) for domain in self.domains]
        learned = [getattr(domain.inner.objective, "drift", domain.inner.objective) for domain in self.domains]
        if any(each != shapes[0] for each in shapes) or any(each != learned[0] for each in learned):
            raise ValueError(f"the objectives of all domains must learn the same; those of {', '.join(names)} differ")

    @property
    def num_tasks(self) -> int:
        """N, tasks per meta-step of all domains together."""
        return sum(domain.num_tasks for domain in self.domains)

    def init(self, key: Key) -> MixedTrainState:
        """Random meta-parameters, fresh optimizer and curricula."""
        objective_key, meta_key, curriculum_key = jax.random.split(key, 3)
        meta_params = self.domains[0].inner.objective.init(objective_key)
        keys = jax.random.split(curriculum_key, len(self.domains))
        return MixedTrainState(
            step=jnp.zeros((), jnp.int32),
            meta=self.meta_optimizer.init(meta_key, meta_params, self.num_tasks),
            curricula=tuple(domain.curriculum.init(key) for domain, key in zip(self.domains, keys, strict=True)),
        )

    def step(self, key: Key, state: MixedTrainState) -> tuple[MixedTrainState, Metrics]:
        """One meta-step. Metrics are scalars; `fitness` is on the common scale, `fitness/NAME` is the return."""
        propose_key, init_key, meta_key, observe_key = jax.random.split(key, 4)
        curricula, proposals, initials, antagonists = [], [], [], []
        for i, domain in enumerate(self.domains):
            domain_key = jax.random.fold_in(propose_key, i)
            curriculum, proposal = domain.curriculum.propose(domain_key, state.curricula[i], domain.num_tasks)
            init_keys = jax.random.split(jax.random.fold_in(init_key, i), domain.num_tasks)
            curricula.append(curriculum)
            proposals.append(proposal)
            initials.append(InitialCondition(init_keys, proposal.tasks))
            antagonists.append(domain.antagonists(initials[i]))

        def life_fn(population: Population, places: Lives) -> Outcome:
            del places  # candidates of each half are in the order of the domains
            parts = []
            for domain, members, initial, antagonist in zip(
                self.domains, self._members(), initials, antagonists, strict=True
            ):
                outcomes = domain.live(lowrank.take(population, jnp.asarray(members)), mirror((initial, antagonist[0])))
                returns = {"fitness": outcomes.fitness}
                fitness = domain.normalize(outcomes.fitness)
                parts.append(replace(outcomes, fitness=fitness, metrics=outcomes.metrics | returns))
            order = np.argsort(np.concatenate(self._members()))
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *_common(parts))

        meta, outcomes, metrics = self.meta_optimizer.step(
            meta_key,
            state.meta,
            jnp.arange(self.num_tasks),
            life_fn,
            train_mask=jnp.concatenate([proposal.train_mask for proposal in proposals]),
        )
        for name in outcomes.metrics:
            del metrics[name]  # a mean over different environments says nothing
        for i, domain in enumerate(self.domains):
            part = jax.tree.map(lambda leaf: leaf[:, self._span(i)], outcomes)  # noqa: B023 - used at once
            level_scores, finished = of_better(part), jnp.ones(domain.num_tasks, bool)
            domain_key = jax.random.fold_in(observe_key, i)
            curricula[i], told = domain.curriculum.observe(
                domain_key, curricula[i], proposals[i], level_scores, finished
            )
            metrics |= {f"{name}/{domain.name}": value for name, value in told.items()}
            for name, values in part.metrics.items():
                metrics[f"{name}/{domain.name}"] = mean_where(jnp.isfinite(values), values)
            updates = (jnp.sum(part.num_updates) + antagonists[i][1]).astype(jnp.float32)
            metrics[f"env_steps/{domain.name}"] = updates * (domain.inner.num_workers * domain.inner.num_steps)
        finite = jnp.isfinite(outcomes.fitness)
        metrics["fitness"] = mean_where(finite, outcomes.fitness)
        updates = jnp.sum(outcomes.num_updates) + sum(antagonist[1] for antagonist in antagonists)
        metrics |= {
            "agent_updates": updates.astype(jnp.float32),
            "env_steps": jnp.stack([metrics[f"env_steps/{domain.name}"] for domain in self.domains]).sum(),
            "lifetime": jnp.mean(jnp.concatenate([each.tasks.lifetime for each in proposals]).astype(jnp.float32)),
        }
        return MixedTrainState(state.step + 1, meta, tuple(curricula)), metrics

    def meta_params(self, state: MixedTrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)

    def _span(self, i: int) -> slice:
        """Where the tasks of domain i are among all."""
        begin = sum(domain.num_tasks for domain in self.domains[:i])
        return slice(begin, begin + self.domains[i].num_tasks)

    def _members(self) -> list[np.ndarray]:
        """Indices into the population of the candidates of each domain, the two of a pair half a population apart."""
        tasks = [np.arange(self.num_tasks)[self._span(i)] for i in range(len(self.domains))]
        return [np.concatenate([each, self.num_tasks + each]) for each in tasks]


def _common(parts: list[Outcome]) -> list[Outcome]:
    """The same with those metrics only that all of them have."""
    names = set.intersection(*(set(part.metrics) for part in parts))
    return [replace(part, metrics={name: part.metrics[name] for name in sorted(names)}) for part in parts]
