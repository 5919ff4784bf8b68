"""Meta-training by meta-gradients: restart finished lives, advance all by K updates, descend the outer loss.

Unlike under evolution (`metadisco.meta_training.evolution_trainer`), a life lasts for many meta-steps. So lives are
part of the train state, and at any meta-step they are at different updates of their lifetimes.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core import trees
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.sharding import SHARED, SPREAD, num_slots, population_mesh, run_sharded, sharded_sum
from metadisco.core.types import Key, MetaParams, Metrics
from metadisco.curricula.base import CurriculumState, Proposal
from metadisco.lives.critic import CriticOutput
from metadisco.lives.life import Life
from metadisco.meta_optimizers.base import mean_where
from metadisco.meta_optimizers.gradient import GradientState, MetaGradient
from metadisco.meta_training import memory_estimate, nan_search
from metadisco.meta_training.domain import Domain, check_one
from metadisco.meta_training.truncation import Unroll, UnrollState


@struct.dataclass
class GradientTrainState:
    """State of meta-training."""

    step: jax.Array  # [] int32, meta-steps done
    meta: GradientState
    curricula: tuple[CurriculumState, ...]  # one for each domain
    lives: UnrollState  # leading axis N
    antagonists: Life | None  # leading axis N, one beside each life, with as many updates; None without antagonists
    proposal: Proposal  # leading axis N, proposals of the current lives, for `Curriculum.observe`


@own_defaults
@dataclass(frozen=True)
class GradientTrainer:
    """Meta-training by meta-gradients. The dataclass is the run's configuration.

    The first lives of a run are truncated after a uniformly random number of updates, from 1 to their lifetime, so that
    they do not all end at the same meta-step. The objective still sees the task's n/N, not the shortened horizon. A
    truncated life is not reported to the curriculum.

    Attributes:
        domains: exactly one. Its curriculum proposes a task for every life at each meta-step; proposals for unfinished
            lives are not used. Its `num_tasks`, N, is the number of lives in progress. Its `slots` are by default all
            lives of a device on an accelerator, and 1 on a CPU, where the backward pass of one life fills the cache.
        meta_optimizer: optimizer of the outer loss.
        unroll: length of an unroll, and the outer loss.
        num_steps: meta-steps of the whole run.
    """

    domains: tuple[Domain, ...]
    meta_optimizer: MetaGradient = MetaGradient()
    unroll: Unroll = Unroll()
    num_steps: int = 5000
    lives_end_with_the_meta_step: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_counts(self, "num_steps")
        check_one(self)
        self.unroll.check(self.domain.inner)

    @property
    def domain(self) -> Domain:
        """The domain."""
        return self.domains[0]

    @property
    def replicas(self) -> int:
        """One life for each task."""
        return 1

    def find_nan(self, key: Key, state: GradientTrainState) -> None:
        """See `metadisco.runs.compiled_steps.FindsNaN`."""
        nan_search.find_in_gradients(self, key, state)

    def num_slots(self, domain: Domain) -> int:
        """Lives that run side by side on one device."""
        return num_slots(domain.slots, -(-domain.num_tasks // jax.device_count()), on_cpu=1)

    def memory(self, domain: Domain) -> int:
        """Bytes that a meta-step needs."""
        return memory_estimate.of_unrolls(domain, self.unroll, self.num_slots(domain))

    def layout(self, num_devices: int) -> Any:
        """Placement of each part of the state: lives are sharded over devices, the rest is replicated."""
        spread = SPREAD if self.domain.num_tasks % num_devices == 0 else SHARED
        parts: dict[str, Any] = {"step": SHARED, "meta": SHARED, "curricula": SHARED}
        parts |= {"lives": spread, "antagonists": spread, "proposal": spread}
        return GradientTrainState(**parts)

    def init(self, key: Key, meta_params: MetaParams | None = None) -> GradientTrainState:
        """Random meta-parameters, or those given; fresh optimizer and curriculum, and the first lives."""
        objective_key, meta_key, curriculum_key, propose_key, init_key, cut_key = jax.random.split(key, 6)
        num_tasks = self.domain.num_tasks
        if meta_params is None:
            meta_params = self.domain.inner.objective.init(objective_key)
        meta = self.meta_optimizer.init(meta_key, meta_params, num_tasks)
        curriculum = self.domain.curriculum.init(curriculum_key)
        curriculum, proposal = self.domain.curriculum.propose(propose_key, curriculum, num_tasks)
        lives, antagonists = self._begin(init_key, proposal)
        until = jax.random.randint(cut_key, (num_tasks,), 1, proposal.tasks.lifetime + 1)
        return GradientTrainState(
            step=jnp.zeros((), jnp.int32),
            meta=meta,
            curricula=(curriculum,),
            lives=replace(lives, until=until),
            antagonists=antagonists,
            proposal=proposal,
        )

    def step(self, key: Key, state: GradientTrainState) -> tuple[GradientTrainState, Metrics]:
        """One meta-step. Metrics are scalars; `fitness` is NaN if no life has finished."""
        renew_key, observe_key = jax.random.split(key)
        domain, mesh = self.domain, population_mesh()
        curriculum, lives, antagonists, proposal = self.renew(renew_key, state)
        num_updates = jnp.sum(lives.life.num_updates)
        meta, (lives, critic_outputs), metrics = self.meta_optimizer.descend(
            state.meta,
            lives,
            self._advance,
            train_mask=proposal.train_mask,
            spread=partial(sharded_sum, slots=self.num_slots(domain), mesh=mesh),
        )
        finished = lives.life.num_updates >= proposal.tasks.lifetime
        antagonists, fitness, scores = run_sharded(
            self._conclude, (lives.life, antagonists, critic_outputs, finished), mesh=mesh
        )
        curriculum, told = domain.observe(observe_key, curriculum, proposal, scores, finished)
        is_finite = finished & jnp.isfinite(fitness)
        agent_updates = (jnp.sum(lives.life.num_updates) - num_updates).astype(jnp.float32)
        if antagonists is not None:
            agent_updates = 2 * agent_updates  # as many for the antagonists
        num_rollouts = agent_updates + domain.num_tasks  # plus one validation rollout per life
        metrics = metrics | told
        metrics |= {
            "fitness": jnp.where(jnp.any(is_finite), mean_where(is_finite, fitness), jnp.nan),
            "finished": jnp.sum(finished).astype(jnp.float32),
            "agent_updates": agent_updates,
            "env_steps": num_rollouts * (domain.inner.num_workers * domain.inner.num_steps),
            "lifetime": jnp.mean(proposal.tasks.lifetime.astype(jnp.float32)),
        }
        return GradientTrainState(state.step + 1, meta, (curriculum,), lives, antagonists, proposal), metrics

    def renew(self, key: Key, state: GradientTrainState) -> tuple[CurriculumState, UnrollState, Life | None, Proposal]:
        """Restart finished lives on new tasks. Returns the curriculum, lives, antagonists and their proposal."""
        propose_key, init_key = jax.random.split(key)
        domain = self.domain
        curriculum, proposal = domain.curriculum.propose(propose_key, state.curricula[0], domain.num_tasks)
        begun = *self._begin(init_key, proposal), proposal
        going_on = state.lives, state.antagonists, state.proposal
        return curriculum, *trees.where(state.lives.is_over, begun, going_on)

    def meta_params(self, state: GradientTrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)

    def _begin(self, key: Key, proposal: Proposal) -> tuple[UnrollState, Life | None]:
        """New lives on N tasks, and antagonists with the same keys."""
        keys = jax.random.split(key, self.domain.num_tasks)
        lives = jax.vmap(partial(self.unroll.begin, self.domain.inner))(keys, proposal.tasks)
        antagonist = self.domain.antagonist
        return lives, None if antagonist is None else jax.vmap(antagonist.begin)(keys, proposal.tasks)

    def _advance(
        self, meta_params: MetaParams, unroll_state: UnrollState
    ) -> tuple[jax.Array, tuple[tuple[UnrollState, CriticOutput | None], Metrics]]:
        """`Unroll.advance`, without the critic output if the score does not use it."""
        loss, ((unroll_state, critic_output), metrics) = self.unroll.advance(
            self.domain.inner, meta_params, unroll_state
        )
        return loss, ((unroll_state, critic_output if self.domain.score.uses_critic else None), metrics)

    def _conclude(
        self, items: tuple[Life, Life | None, CriticOutput | None, jax.Array]
    ) -> tuple[Life | None, jax.Array, jax.Array]:
        """Advance antagonists to the updates of their lives; evaluate and score the lives that have finished."""
        lives, antagonists, critic_outputs, finished = items
        domain = self.domain
        slots = num_slots(domain.slots, finished.shape[0], on_cpu=1)
        antagonists, antagonist_returns = domain.catch_up(antagonists, lives.num_updates, finished, slots=slots)
        concluded = domain.conclude(lives, antagonist_returns, critic_outputs, slots=slots, chosen=finished)
        return antagonists, *concluded
