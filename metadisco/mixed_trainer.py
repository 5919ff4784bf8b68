"""One meta-step over several environments: an objective that is meant for all of them is trained on all of them.

Environments differ in shape, so their lives cannot be batched together: arenas come one after the other, and the
meta-optimizer sees all of their lives as one population. What a candidate reached is put on the scale of its arena
(random policy 0, a good agent 1), so that no environment counts for more because its rewards are larger.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metadisco import lowrank
from metadisco.arena import Arena, of_better
from metadisco.curricula.base import CurriculumState
from metadisco.life import Birth
from metadisco.meta.base import Lives, MetaOptimizer, MetaState, Population, mean_where, mirror
from metadisco.types import Key, MetaParams, Metrics, Outcome


@struct.dataclass
class MixedTrainState:
    """All that changes from meta-step to meta-step."""

    step: jax.Array  # [] int32, meta-steps done
    meta: MetaState
    curricula: tuple[CurriculumState, ...]  # one for each arena


@dataclass(frozen=True)
class MixedTrainer:
    """A meta-training run on several environments, by evolution. It is its own configuration.

    Attributes:
        arenas: the environments, with their agents. Their objectives must be equal; of mirror learning the drifts,
            while the settings of the agents around them, such as the discount, may differ.
        meta_optimizer: how the objective improves; one with pairs of candidates on each task.
        num_steps: meta-steps of the whole run.
    """

    arenas: tuple[Arena, ...]
    meta_optimizer: MetaOptimizer
    num_steps: int = 500

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"MixedTrainer.num_steps must be at least 1, got {self.num_steps}")
        names = [arena.name for arena in self.arenas]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"MixedTrainer.arenas must be one or more of different names, got {names}")
        if self.meta_optimizer.replicas != 2:
            raise ValueError(
                "MixedTrainer compares pairs of candidates, so its meta-optimizer must have two replicas, got "
                f"{self.meta_optimizer.replicas}; use Evolution or LowRankEvolution"
            )
        shapes = [jax.eval_shape(arena.inner.objective.init, jax.random.key(0)) for arena in self.arenas]
        learned = [getattr(arena.inner.objective, "drift", arena.inner.objective) for arena in self.arenas]
        if any(each != shapes[0] for each in shapes) or any(each != learned[0] for each in learned):
            raise ValueError(f"the objectives of all arenas must learn the same; those of {', '.join(names)} differ")

    @property
    def num_tasks(self) -> int:
        """N, tasks per meta-step of all arenas together."""
        return sum(arena.num_tasks for arena in self.arenas)

    def init(self, key: Key) -> MixedTrainState:
        """Random meta-parameters, fresh optimizer and curricula."""
        objective_key, meta_key, curriculum_key = jax.random.split(key, 3)
        meta_params = self.arenas[0].inner.objective.init(objective_key)
        keys = jax.random.split(curriculum_key, len(self.arenas))
        return MixedTrainState(
            step=jnp.zeros((), jnp.int32),
            meta=self.meta_optimizer.init(meta_key, meta_params, self.num_tasks),
            curricula=tuple(arena.curriculum.init(key) for arena, key in zip(self.arenas, keys, strict=True)),
        )

    def step(self, key: Key, state: MixedTrainState) -> tuple[MixedTrainState, Metrics]:
        """One meta-step. Metrics are scalars; `fitness` is on the common scale, `fitness/NAME` is the return."""
        propose_key, birth_key, meta_key, observe_key = jax.random.split(key, 4)
        curricula, proposals, births, rivals = [], [], [], []
        for i, arena in enumerate(self.arenas):
            arena_key = jax.random.fold_in(propose_key, i)
            curriculum, proposal = arena.curriculum.propose(arena_key, state.curricula[i], arena.num_tasks)
            birth_keys = jax.random.split(jax.random.fold_in(birth_key, i), arena.num_tasks)
            curricula.append(curriculum)
            proposals.append(proposal)
            births.append(Birth(birth_keys, proposal.tasks))
            rivals.append(arena.rivals(births[i]))

        def life_fn(population: Population, places: Lives) -> Outcome:
            del places  # candidates of each half are in the order of the arenas
            parts = []
            for arena, members, birth, rival in zip(self.arenas, self._members(), births, rivals, strict=True):
                outcomes = arena.live(lowrank.take(population, jnp.asarray(members)), mirror((birth, rival[0])))
                returns = {"fitness": outcomes.fitness}
                fitness = arena.normalize(outcomes.fitness)
                parts.append(replace(outcomes, fitness=fitness, metrics=outcomes.metrics | returns))
            order = np.argsort(np.concatenate(self._members()))
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *_common(parts))

        meta, outcomes, metrics = self.meta_optimizer.step(
            meta_key,
            state.meta,
            jnp.arange(self.num_tasks),
            life_fn,
            trains=jnp.concatenate([proposal.trains for proposal in proposals]),
        )
        for name in outcomes.metrics:
            del metrics[name]  # a mean over different environments says nothing
        for i, arena in enumerate(self.arenas):
            part = jax.tree.map(lambda leaf: leaf[:, self._span(i)], outcomes)  # noqa: B023 - used at once
            level_scores, finished = of_better(part), jnp.ones(arena.num_tasks, bool)
            arena_key = jax.random.fold_in(observe_key, i)
            curricula[i], told = arena.curriculum.observe(arena_key, curricula[i], proposals[i], level_scores, finished)
            metrics |= {f"{name}/{arena.name}": value for name, value in told.items()}
            for name, values in part.metrics.items():
                metrics[f"{name}/{arena.name}"] = mean_where(jnp.isfinite(values), values)
            updates = (jnp.sum(part.num_updates) + rivals[i][1]).astype(jnp.float32)
            metrics[f"env_steps/{arena.name}"] = updates * (arena.inner.num_workers * arena.inner.num_steps)
        finite = jnp.isfinite(outcomes.fitness)
        metrics["fitness"] = mean_where(finite, outcomes.fitness)
        updates = jnp.sum(outcomes.num_updates) + sum(rival[1] for rival in rivals)
        metrics |= {
            "agent_updates": updates.astype(jnp.float32),
            "env_steps": jnp.stack([metrics[f"env_steps/{arena.name}"] for arena in self.arenas]).sum(),
            "lifetime": jnp.mean(jnp.concatenate([each.tasks.lifetime for each in proposals]).astype(jnp.float32)),
        }
        return MixedTrainState(state.step + 1, meta, tuple(curricula)), metrics

    def meta_params(self, state: MixedTrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)

    def _span(self, i: int) -> slice:
        """Where the tasks of arena i are among all."""
        begin = sum(arena.num_tasks for arena in self.arenas[:i])
        return slice(begin, begin + self.arenas[i].num_tasks)

    def _members(self) -> list[np.ndarray]:
        """Indices into the population of the candidates of each arena, the two of a pair half a population apart."""
        tasks = [np.arange(self.num_tasks)[self._span(i)] for i in range(len(self.arenas))]
        return [np.concatenate([each, self.num_tasks + each]) for each in tasks]


def _common(parts: list[Outcome]) -> list[Outcome]:
    """The same with those metrics only that all of them have."""
    names = set.intersection(*(set(part.metrics) for part in parts))
    return [replace(part, metrics={name: part.metrics[name] for name in sorted(names)}) for part in parts]
