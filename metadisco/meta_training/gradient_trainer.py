"""One meta-step by meta-gradients: renew the lives that are over, let all go on a little, improve the objective.

Unlike under evolution (`metadisco.meta_training.trainer`), a life lasts over many meta-steps, so lives are part of the train state
and every meta-step finds some of them young and some old.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core import trees
from metadisco.core.config import check_counts
from metadisco.core.sharding import SHARED, SPREAD, num_slots, population_mesh, run_sharded, sharded_sum
from metadisco.core.types import Key, MetaParams, Metrics
from metadisco.curricula.base import Curriculum, CurriculumState, Proposal
from metadisco.lives.critic import CriticOutput
from metadisco.lives.life import InnerLoop, Life, only_of_finite
from metadisco.meta_optimizers.base import mean_where
from metadisco.meta_optimizers.gradient import GradientState, MetaGradient
from metadisco.meta_training import level_scores
from metadisco.meta_training.level_scores import LevelScore, Return
from metadisco.meta_training.truncation import Unroll, UnrollState


@struct.dataclass
class GradientTrainState:
    """All that changes from meta-step to meta-step."""

    step: jax.Array  # [] int32, meta-steps done
    meta: GradientState
    curriculum: CurriculumState
    lives: UnrollState  # leading axis N
    antagonists: Life | None  # leading axis N, whom the score compares each life with, in lock-step; None for nobody
    proposal: Proposal  # leading axis N, what each life was begun with, to be given back to the curriculum


@dataclass(frozen=True)
class GradientTrainer:
    """Everything that one meta-training run by meta-gradients consists of. It is its own configuration.

    The lives that a run begins with are cut short after a random part of their lifetime, from one update to all of
    them, so that they do not all end together. They do not know: n/N and N are those of the task. A curriculum is not
    told of a life that was cut short.

    Attributes:
        inner: what happens inside a life.
        curriculum: which tasks come next. It proposes one for every life at each meta-step; those of lives that go on
            are not used.
        meta_optimizer: how the objective improves.
        unroll: how far a life goes in one meta-step, and the outer loss.
        num_tasks: N, lives that are lived at the same time, one for each task.
        num_steps: meta-steps of the whole run.
        score: how informative a level was, for the curriculum to keep and replay it.
        slots: lives that run side by side on one device. None chooses: all of an accelerator's, and one on a CPU, since
            what a backward pass keeps of it just fits into the cache.
    """

    inner: InnerLoop
    curriculum: Curriculum
    meta_optimizer: MetaGradient = MetaGradient()
    unroll: Unroll = Unroll()
    num_tasks: int = 512
    num_steps: int = 5000
    score: LevelScore = Return()
    slots: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "num_steps", "slots")
        self.unroll.check(self.inner)
        self.curriculum.check(self.num_tasks)
        level_scores.check(self.score, self.inner)

    def num_slots(self, num_lives: int) -> int:
        """How many of its lives a device advances side by side."""
        return num_slots(self.slots, num_lives, on_cpu=1)

    def layout(self, num_devices: int) -> Any:
        """Which parts of the state are spread over devices: the lives, which stay where they are lived."""
        spread = SPREAD if self.num_tasks % num_devices == 0 else SHARED
        parts: dict[str, Any] = {"step": SHARED, "meta": SHARED, "curriculum": SHARED}
        parts |= {"lives": spread, "antagonists": spread, "proposal": spread}
        return GradientTrainState(**parts)

    def init(self, key: Key) -> GradientTrainState:
        """Random meta-parameters, fresh optimizer and curriculum, and the first lives."""
        objective_key, meta_key, curriculum_key, propose_key, init_key, cut_key = jax.random.split(key, 6)
        meta = self.meta_optimizer.init(meta_key, self.inner.objective.init(objective_key), self.num_tasks)
        curriculum = self.curriculum.init(curriculum_key)
        curriculum, proposal = self.curriculum.propose(propose_key, curriculum, self.num_tasks)
        lives, antagonists = self._begin(init_key, proposal)
        until = jax.random.randint(cut_key, (self.num_tasks,), 1, proposal.tasks.lifetime + 1)
        return GradientTrainState(
            step=jnp.zeros((), jnp.int32),
            meta=meta,
            curriculum=curriculum,
            lives=replace(lives, until=until),
            antagonists=antagonists,
            proposal=proposal,
        )

    def step(self, key: Key, state: GradientTrainState) -> tuple[GradientTrainState, Metrics]:
        """One meta-step. Metrics are scalars; `fitness` is NaN where no life has come to its end."""
        renew_key, observe_key = jax.random.split(key)
        curriculum, lives, antagonists, proposal = self.renew(renew_key, state)
        num_updates = jnp.sum(lives.life.num_updates)
        mesh = population_mesh()
        meta, (lives, critic_outputs), metrics = self.meta_optimizer.step(
            state.meta,
            lives,
            self._advance,
            train_mask=proposal.train_mask,
            spread=partial(sharded_sum, slots=self.num_slots(self.num_tasks), mesh=mesh),
        )
        finished = lives.life.num_updates >= proposal.tasks.lifetime
        antagonists, fitness, of_levels = run_sharded(
            self._conclude, (lives.life, antagonists, critic_outputs, finished), mesh=mesh
        )
        curriculum, curriculum_metrics = self.curriculum.observe(observe_key, curriculum, proposal, of_levels, finished)
        is_finite, is_scored = finished & jnp.isfinite(fitness), finished & jnp.isfinite(of_levels)
        agent_updates = (jnp.sum(lives.life.num_updates) - num_updates).astype(jnp.float32)
        if antagonists is not None:
            agent_updates = 2 * agent_updates  # in lock-step
        num_rollouts = agent_updates + self.num_tasks  # and the validation of each
        metrics = metrics | curriculum_metrics
        metrics |= {
            "score": jnp.where(jnp.any(is_scored), mean_where(is_scored, of_levels), jnp.nan),
            "fitness": jnp.where(jnp.any(is_finite), mean_where(is_finite, fitness), jnp.nan),
            "finished": jnp.sum(finished).astype(jnp.float32),
            "agent_updates": agent_updates,
            "env_steps": num_rollouts * (self.inner.num_workers * self.inner.num_steps),
            "lifetime": jnp.mean(proposal.tasks.lifetime.astype(jnp.float32)),
        }
        return GradientTrainState(state.step + 1, meta, curriculum, lives, antagonists, proposal), metrics

    def renew(self, key: Key, state: GradientTrainState) -> tuple[CurriculumState, UnrollState, Life | None, Proposal]:
        """Begin new lives on new tasks where lives are over: the curriculum's state, lives, antagonists and their tasks."""
        propose_key, init_key = jax.random.split(key)
        curriculum, proposal = self.curriculum.propose(propose_key, state.curriculum, self.num_tasks)
        begun = *self._begin(init_key, proposal), proposal
        going_on = state.lives, state.antagonists, state.proposal
        return curriculum, *trees.where(state.lives.is_over, begun, going_on)

    def meta_params(self, state: GradientTrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)

    def _begin(self, key: Key, proposal: Proposal) -> tuple[UnrollState, Life | None]:
        """A life for each of N tasks, and an antagonist with the same key."""
        keys = jax.random.split(key, self.num_tasks)
        lives = jax.vmap(partial(self.unroll.begin, self.inner))(keys, proposal.tasks)
        antagonist = level_scores.antagonist(self.score, self.inner)
        return lives, None if antagonist is None else jax.vmap(antagonist.begin)(keys, proposal.tasks)

    def _advance(self, meta_params: MetaParams, unroll_state: UnrollState) -> tuple[jax.Array, tuple[tuple, Metrics]]:
        """As the unroll; what nobody asks for is not kept."""
        loss, ((unroll_state, critic_output), metrics) = self.unroll.advance(self.inner, meta_params, unroll_state)
        return loss, ((unroll_state, critic_output if self.score.uses_critic else None), metrics)

    def _conclude(
        self, items: tuple[Life, Life | None, CriticOutput | None, jax.Array]
    ) -> tuple[Life | None, jax.Array, jax.Array]:
        """Let antagonists catch up with their lives; fitness and scores of the lives that have come to their end."""
        lives, antagonists, critic_outputs, finished = items
        antagonist, slots = level_scores.antagonist(self.score, self.inner), self.num_slots(finished.shape[0])
        antagonist_returns = jnp.zeros(finished.shape)
        if antagonist is not None and antagonists is not None:
            antagonists = antagonist.advance((), antagonists, lives.num_updates, slots=slots)[0]
            returns = antagonist.evaluate(antagonists, slots=slots, chosen=finished)
            antagonist_returns = jnp.mean(only_of_finite(antagonists, returns), axis=1)
        returns = only_of_finite(lives, self.inner.evaluate(lives, slots=slots, chosen=finished))
        of_levels = level_scores.score_lives(
            self.score, self.inner, lives, returns, antagonist_returns, critic_outputs, finished
        )
        return antagonists, jnp.mean(returns, axis=1), of_levels
