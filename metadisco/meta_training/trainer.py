"""One meta-step, as a straight line: propose tasks, spend lives on them, improve the objective, tell the curriculum."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.config import check_counts
from metadisco.core.types import Key, MetaParams, Metrics
from metadisco.curricula.base import Curriculum, CurriculumState
from metadisco.lives.life import InitialCondition, InnerLoop
from metadisco.meta_optimizers.base import MetaOptimizer, MetaState, mean_where
from metadisco.meta_training.domain import Domain, of_better
from metadisco.meta_training.level_scores import LevelScore, Return


@struct.dataclass
class TrainState:
    """All that changes from meta-step to meta-step."""

    step: jax.Array  # [] int32, meta-steps done
    meta: MetaState
    curriculum: CurriculumState


@dataclass(frozen=True)
class MetaTrainer:
    """Everything that one meta-training run consists of. It is its own configuration.

    Attributes:
        inner: what happens inside a life.
        curriculum: which tasks come next.
        meta_optimizer: how the objective improves.
        num_tasks: N, tasks per meta-step; the population has N times `meta_optimizer.replicas` lives.
        num_steps: meta-steps of the whole run.
        score: how informative a level was, for the curriculum to keep and replay it.
        slots: lives that run side by side on one device. None chooses: as many as fill an accelerator, as few as stay
            in a CPU's cache.
    """

    inner: InnerLoop
    curriculum: Curriculum
    meta_optimizer: MetaOptimizer
    num_tasks: int = 512
    num_steps: int = 2500
    score: LevelScore = Return()
    slots: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "num_steps", "slots")
        _ = self.domain  # which checks that its parts fit

    @property
    def domain(self) -> Domain:
        """Where the lives are lived."""
        return Domain(self.inner, self.curriculum, self.num_tasks, self.score, self.slots)

    def init(self, key: Key) -> TrainState:
        """Random meta-parameters, fresh optimizer and curriculum."""
        objective_key, meta_key, curriculum_key = jax.random.split(key, 3)
        meta_params = self.inner.objective.init(objective_key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            meta=self.meta_optimizer.init(meta_key, meta_params, self.num_tasks),
            curriculum=self.curriculum.init(curriculum_key),
        )

    def step(self, key: Key, state: TrainState) -> tuple[TrainState, Metrics]:
        """One meta-step. Metrics are scalars."""
        propose_key, init_key, meta_key, observe_key = jax.random.split(key, 4)
        curriculum, proposal = self.curriculum.propose(propose_key, state.curriculum, self.num_tasks)
        initials = InitialCondition(jax.random.split(init_key, self.num_tasks), proposal.tasks)
        antagonist_returns, antagonist_updates = self.domain.antagonists(initials)
        meta, outcomes, metrics = self.meta_optimizer.step(
            meta_key, state.meta, (initials, antagonist_returns), self.domain.live, train_mask=proposal.train_mask
        )
        level_scores = of_better(outcomes)
        finished = jnp.ones(self.num_tasks, bool)
        curriculum, curriculum_metrics = self.curriculum.observe(
            observe_key, curriculum, proposal, level_scores, finished
        )
        agent_updates = (jnp.sum(outcomes.num_updates) + antagonist_updates).astype(jnp.float32)
        metrics = metrics | curriculum_metrics
        metrics |= {
            "score": mean_where(jnp.isfinite(level_scores), level_scores),
            "agent_updates": agent_updates,
            "env_steps": agent_updates * (self.inner.num_workers * self.inner.num_steps),
            "lifetime": jnp.mean(proposal.tasks.lifetime.astype(jnp.float32)),
        }
        return TrainState(state.step + 1, meta, curriculum), metrics

    def meta_params(self, state: TrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)
