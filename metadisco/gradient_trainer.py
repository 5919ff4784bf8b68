"""One meta-step by meta-gradients: renew the lives that are over, let all go on a little, improve the objective.

Unlike under evolution (`metadisco.trainer`), a life lasts over many meta-steps, so lives are part of the train state
and every meta-step finds some of them young and some old.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco import scores, trees
from metadisco.config import check_counts
from metadisco.critic import Critique
from metadisco.curricula.base import Curriculum, CurriculumState, Proposal
from metadisco.life import InnerLoop, Life, only_of_finite
from metadisco.meta.base import mean_where
from metadisco.meta.gradient import GradientState, MetaGradient
from metadisco.population import SHARED, SPREAD, num_slots, population_mesh, sum_over, where_they_are
from metadisco.scores import LevelScore, Return
from metadisco.types import Key, MetaParams, Metrics
from metadisco.unroll import Lease, Unroll


@struct.dataclass
class GradientTrainState:
    """All that changes from meta-step to meta-step."""

    step: jax.Array  # [] int32, meta-steps done
    meta: GradientState
    curriculum: CurriculumState
    lives: Lease  # leading axis N
    rivals: Life | None  # leading axis N, whom the score compares each life with, in lock-step; None for nobody
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
        scores.check(self.score, self.inner)

    def num_slots(self, num_lives: int) -> int:
        """How many of its lives a device advances side by side."""
        return num_slots(self.slots, num_lives, on_cpu=1)

    def layout(self, num_devices: int) -> Any:
        """Which parts of the state are spread over devices: the lives, which stay where they are lived."""
        spread = SPREAD if self.num_tasks % num_devices == 0 else SHARED
        parts: dict[str, Any] = {"step": SHARED, "meta": SHARED, "curriculum": SHARED}
        parts |= {"lives": spread, "rivals": spread, "proposal": spread}
        return GradientTrainState(**parts)

    def init(self, key: Key) -> GradientTrainState:
        """Random meta-parameters, fresh optimizer and curriculum, and the first lives."""
        objective_key, meta_key, curriculum_key, propose_key, birth_key, cut_key = jax.random.split(key, 6)
        meta = self.meta_optimizer.init(meta_key, self.inner.objective.init(objective_key), self.num_tasks)
        curriculum = self.curriculum.init(curriculum_key)
        curriculum, proposal = self.curriculum.propose(propose_key, curriculum, self.num_tasks)
        lives, rivals = self._begin(birth_key, proposal)
        until = jax.random.randint(cut_key, (self.num_tasks,), 1, proposal.tasks.lifetime + 1)
        return GradientTrainState(
            step=jnp.zeros((), jnp.int32),
            meta=meta,
            curriculum=curriculum,
            lives=replace(lives, until=until),
            rivals=rivals,
            proposal=proposal,
        )

    def step(self, key: Key, state: GradientTrainState) -> tuple[GradientTrainState, Metrics]:
        """One meta-step. Metrics are scalars; `fitness` is not a number where no life has come to its end."""
        renew_key, observe_key = jax.random.split(key)
        curriculum, lives, rivals, proposal = self.renew(renew_key, state)
        num_updates = jnp.sum(lives.life.num_updates)
        mesh = population_mesh()
        meta, (lives, critiques), metrics = self.meta_optimizer.step(
            state.meta,
            lives,
            self._advance,
            trains=proposal.trains,
            spread=partial(sum_over, slots=self.num_slots(self.num_tasks), mesh=mesh),
        )
        finished = lives.life.num_updates >= proposal.tasks.lifetime
        rivals, fitness, level_scores = where_they_are(
            self._conclude, (lives.life, rivals, critiques, finished), mesh=mesh
        )
        curriculum, curriculum_metrics = self.curriculum.observe(
            observe_key, curriculum, proposal, level_scores, finished
        )
        is_finite, is_scored = finished & jnp.isfinite(fitness), finished & jnp.isfinite(level_scores)
        agent_updates = (jnp.sum(lives.life.num_updates) - num_updates).astype(jnp.float32)
        if rivals is not None:
            agent_updates = 2 * agent_updates  # in lock-step
        num_rollouts = agent_updates + self.num_tasks  # and the validation of each
        metrics = metrics | curriculum_metrics
        metrics |= {
            "score": jnp.where(jnp.any(is_scored), mean_where(is_scored, level_scores), jnp.nan),
            "fitness": jnp.where(jnp.any(is_finite), mean_where(is_finite, fitness), jnp.nan),
            "finished": jnp.sum(finished).astype(jnp.float32),
            "agent_updates": agent_updates,
            "env_steps": num_rollouts * (self.inner.num_workers * self.inner.num_steps),
            "lifetime": jnp.mean(proposal.tasks.lifetime.astype(jnp.float32)),
        }
        return GradientTrainState(state.step + 1, meta, curriculum, lives, rivals, proposal), metrics

    def renew(self, key: Key, state: GradientTrainState) -> tuple[CurriculumState, Lease, Life | None, Proposal]:
        """Begin new lives on new tasks where lives are over: the curriculum's state, lives, rivals and their tasks."""
        propose_key, birth_key = jax.random.split(key)
        curriculum, proposal = self.curriculum.propose(propose_key, state.curriculum, self.num_tasks)
        begun = *self._begin(birth_key, proposal), proposal
        going_on = state.lives, state.rivals, state.proposal
        return curriculum, *trees.where(state.lives.is_over, begun, going_on)

    def meta_params(self, state: GradientTrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)

    def _begin(self, key: Key, proposal: Proposal) -> tuple[Lease, Life | None]:
        """A life for each of N tasks, and a rival with the same key."""
        keys = jax.random.split(key, self.num_tasks)
        lives = jax.vmap(partial(self.unroll.begin, self.inner))(keys, proposal.tasks)
        rival = scores.rival(self.score, self.inner)
        return lives, None if rival is None else jax.vmap(rival.begin)(keys, proposal.tasks)

    def _advance(self, meta_params: MetaParams, lease: Lease) -> tuple[jax.Array, tuple[tuple, Metrics]]:
        """As the unroll; what nobody asks for is not kept."""
        loss, ((lease, critique), metrics) = self.unroll.advance(self.inner, meta_params, lease)
        return loss, ((lease, critique if self.score.uses_critic else None), metrics)

    def _conclude(
        self, items: tuple[Life, Life | None, Critique | None, jax.Array]
    ) -> tuple[Life | None, jax.Array, jax.Array]:
        """Let rivals catch up with their lives; fitness and scores of the lives that have come to their end."""
        lives, rivals, critiques, finished = items
        rival, slots = scores.rival(self.score, self.inner), self.num_slots(finished.shape[0])
        rival_returns = jnp.zeros(finished.shape)
        if rival is not None and rivals is not None:
            rivals = rival.advance((), rivals, lives.num_updates, slots=slots)[0]
            returns = rival.examine(rivals, slots=slots, chosen=finished)
            rival_returns = jnp.mean(only_of_finite(rivals, returns), axis=1)
        returns = only_of_finite(lives, self.inner.examine(lives, slots=slots, chosen=finished))
        level_scores = scores.score_lives(self.score, self.inner, lives, returns, rival_returns, critiques, finished)
        return rivals, jnp.mean(returns, axis=1), level_scores
