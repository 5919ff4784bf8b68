"""Meta-training by online evolution: restart pairs whose lives are over, ask, unroll K updates, tell what came of it.

Lives last for many meta-steps, as under meta-gradients (`metadisco.meta_training.gradient_trainer`), and come in
antithetic pairs, as under evolution over whole lives (`metadisco.meta_training.evolution_trainer`).
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
from metadisco.core.types import Key, MetaParams, Metrics, Outcome, Population
from metadisco.curricula.base import CurriculumState, Proposal
from metadisco.lives.life import Life
from metadisco.meta_optimizers.base import mean_where
from metadisco.meta_optimizers.gradient import mean_gradient
from metadisco.meta_optimizers.online_evolution import OnlineEvolution, OnlineEvolutionState
from metadisco.meta_training import memory_estimate, nan_search
from metadisco.meta_training.domain import Domain, check_one, of_better, of_lives
from metadisco.meta_training.truncation import Unroll, UnrollState


@struct.dataclass
class Lanes:
    """What lasts over meta-steps: N pairs of lives in progress. Both of a pair have done as many updates."""

    lives: UnrollState  # leading axes [N, 2]
    returns: jax.Array  # [N, 2] float32, on the domain's scale, after the last unroll; 0 for a new agent
    antagonists: Life | None  # leading axis N, one beside each pair; None without antagonists
    proposal: Proposal  # leading axis N, for `Curriculum.observe`


@struct.dataclass
class OnlineTrainState:
    """State of meta-training."""

    step: jax.Array  # [] int32, meta-steps done
    meta: OnlineEvolutionState
    curricula: tuple[CurriculumState, ...]  # one for each domain
    lanes: Lanes


@own_defaults
@dataclass(frozen=True)
class OnlineEvolutionTrainer:
    """Meta-training by online evolution: candidates are told after each unroll of K updates, not after whole lives.

    An unroll is told by what it gained: the evaluation return after it, less that before it (0 for a new agent, the
    same one in both lives of a pair). Gains of a life add up to its fitness under `EvolutionTrainer`, and where no
    lifetime is longer than K the two trainers do the same. The last unroll of a life has the updates that are left; a
    lifetime below K is one short unroll.

    The first lives of a run are cut short by a random number of unrolls, so that they do not all end at the same
    meta-step. The objective still sees the task's n/N. A life that is cut short is not reported to the curriculum. A
    pair one of whose agents has diverged is told so and is over.

    Attributes:
        domains: exactly one. Its `num_tasks`, N, is the number of pairs of lives in progress. Its curriculum proposes a
            task for every pair at each meta-step; proposals for pairs that go on are not used.
        meta_optimizer: the estimator and its optimizer.
        num_updates: K.
        anytime: tell an unroll by the return after it, so that the return at every K-th update of a life counts, and
            not only the last.
        guide: the outer loss whose meta-gradients guide the noise, and its number of updates; used if the
            meta-optimizer has `guidance`.
        num_steps: meta-steps of the whole run.

    Example:
        >>> import metadisco
        >>> metadisco.preset("lpg-grid-pes").trainer.num_updates
        25
    """

    domains: tuple[Domain, ...]
    meta_optimizer: OnlineEvolution = OnlineEvolution()
    num_updates: int = 20
    anytime: bool = False
    guide: Unroll = Unroll()
    num_steps: int = 5000
    lives_end_with_the_meta_step: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_counts(self, "num_steps", "num_updates")
        check_one(self)
        if not isinstance(self.meta_optimizer, OnlineEvolution):
            raise ValueError(
                f"OnlineEvolutionTrainer.meta_optimizer must be an OnlineEvolution, got {self.meta_optimizer}; use "
                "EvolutionTrainer for strategies over whole lives, or GradientTrainer for meta-gradients"
            )
        if self.is_guided:
            self.guide.check(self.domain.inner)

    @property
    def domain(self) -> Domain:
        """The domain."""
        return self.domains[0]

    @property
    def replicas(self) -> int:
        """A pair of lives for each task."""
        return self.meta_optimizer.replicas

    @property
    def is_guided(self) -> bool:
        """Whether meta-gradients guide the noise."""
        return self.meta_optimizer.guidance is not None

    def find_nan(self, key: Key, state: OnlineTrainState) -> None:
        """See `metadisco.runs.compiled_steps.FindsNaN`."""
        nan_search.find_in_unrolls(self, key, state)

    def num_slots(self, domain: Domain) -> int:
        """Lives that run side by side on one device. Nearly all of them do K updates."""
        return domain.num_slots(self.replicas * -(-domain.num_tasks // jax.device_count()), even=1.0)

    def memory(self, domain: Domain) -> int:
        """Bytes that a meta-step needs."""
        return memory_estimate.of_pairs(domain, self.num_slots(domain), self.guide if self.is_guided else None)

    def layout(self, num_devices: int) -> Any:
        """Placement of each part of the state: pairs and their noise are sharded, the rest is replicated."""
        spread: Any = SPREAD if self.domain.num_tasks % num_devices == 0 else SHARED
        shared: Any = SHARED
        meta = OnlineEvolutionState(shared, shared, shared, spread, spread, shared)
        return OnlineTrainState(shared, meta, shared, spread)

    def init(self, key: Key, meta_params: MetaParams | None = None) -> OnlineTrainState:
        """Random meta-parameters, or those given; fresh optimizer and curriculum, and the first lives."""
        objective_key, meta_key, curriculum_key, propose_key, init_key, cut_key = jax.random.split(key, 6)
        num_tasks = self.domain.num_tasks
        if meta_params is None:
            meta_params = self.domain.inner.objective.init(objective_key)
        meta = self.meta_optimizer.init(meta_key, meta_params, num_tasks)
        curriculum = self.domain.curriculum.init(curriculum_key)
        curriculum, proposal = self.domain.curriculum.propose(propose_key, curriculum, num_tasks)
        lanes = self._begin(init_key, proposal)
        lifetime = proposal.tasks.lifetime
        cut = jax.random.randint(cut_key, lifetime.shape, 0, -(-lifetime // self.num_updates))
        lanes = replace(lanes, lives=replace(lanes.lives, until=_twice(lifetime - self.num_updates * cut)))
        return OnlineTrainState(jnp.zeros((), jnp.int32), meta, (curriculum,), lanes)

    def step(self, key: Key, state: OnlineTrainState) -> tuple[OnlineTrainState, Metrics]:
        """One meta-step. Metrics are scalars; `gain` is what unrolls gained, `fitness` NaN if no life has finished."""
        _, _, meta_key, observe_key = jax.random.split(key, 4)
        domain, mesh = self.domain, population_mesh()
        state, population, before, guided = self.ask(key, state)
        lanes, outcomes = run_sharded(self._unroll, (population, state.lanes), mesh=mesh)
        gained = lanes.returns if self.anytime else lanes.returns - state.lanes.returns
        meta, metrics = self.meta_optimizer.tell(
            meta_key, state.meta, before, gained.T, train_mask=lanes.proposal.train_mask
        )
        life, lifetime = lanes.lives.life, lanes.proposal.tasks.lifetime
        finished = life.num_updates[:, 0] >= lifetime
        by_replica = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), outcomes)
        curriculum, told = domain.observe(
            observe_key, state.curricula[0], lanes.proposal, of_better(by_replica), finished
        )
        is_finite = finished[:, None] & jnp.isfinite(lanes.returns)
        agent_updates = jnp.sum(life.num_updates - state.lanes.lives.life.num_updates)
        if lanes.antagonists is not None:
            agent_updates += agent_updates // self.replicas  # as many as one of a pair
        rollouts = agent_updates + guided.pop("guide_rollouts", 0)
        metrics |= {f"guide_{name}": value for name, value in guided.items()}
        metrics["gain"] = metrics.pop("fitness")
        metrics |= told | of_lives(outcomes)
        metrics |= {
            "fitness": jnp.where(jnp.any(is_finite), mean_where(is_finite, lanes.returns), jnp.nan),
            "finished": jnp.sum(finished).astype(jnp.float32),
            "agent_updates": agent_updates.astype(jnp.float32),
            "env_steps": rollouts.astype(jnp.float32) * (domain.inner.num_workers * domain.inner.num_steps),
            "lifetime": jnp.mean(lifetime.astype(jnp.float32)),
        }
        return OnlineTrainState(state.step + 1, meta, (curriculum,), lanes), metrics

    def ask(self, key: Key, state: OnlineTrainState) -> tuple[OnlineTrainState, Population, Population, Metrics]:
        """The part of a meta-step before the unrolls: restart lives, guide the noise, ask for candidates.

        Returns:
            The state, its candidates with leading axes [N, 2] and as `ask` gave them, and metrics of the guide.
        """
        propose_key, init_key, meta_key, _ = jax.random.split(key, 4)
        state, goes_on = self.renew(propose_key, init_key, state)
        meta, metrics = self._guide(state)
        asked, meta = self.meta_optimizer.ask(meta_key, self.meta_optimizer.go_on(meta, goes_on), goes_on.shape[0])
        population = jax.tree.map(
            lambda leaf: jnp.swapaxes(leaf.reshape(self.replicas, -1, *leaf.shape[1:]), 0, 1), asked
        )
        return replace(state, meta=meta), population, asked, metrics

    def renew(self, propose_key: Key, init_key: Key, state: OnlineTrainState) -> tuple[OnlineTrainState, jax.Array]:
        """Restart pairs that are over on new tasks. Returns the state, and which pairs go on, [N] bool."""
        domain, lanes = self.domain, state.lanes
        curriculum, proposal = domain.curriculum.propose(propose_key, state.curricula[0], domain.num_tasks)
        goes_on = ~lanes.lives.is_over[:, 0]
        if self.meta_optimizer.estimator.rejoins:
            first = jax.tree.map(lambda leaf: _twice(leaf[:, 0]), (lanes.lives, lanes.returns))
            lanes = replace(lanes, lives=first[0], returns=first[1])
        lanes = trees.where(goes_on, lanes, self._begin(init_key, proposal))
        return replace(state, curricula=(curriculum,), lanes=lanes), goes_on

    def meta_params(self, state: OnlineTrainState) -> MetaParams:
        """The objective's present meta-parameters."""
        return self.meta_optimizer.meta_params(state.meta)

    def _begin(self, key: Key, proposal: Proposal) -> Lanes:
        """New pairs on N tasks, each of one agent twice, and antagonists with the same keys."""
        domain, lifetime = self.domain, proposal.tasks.lifetime
        keys = jax.random.split(key, domain.num_tasks)
        lives = UnrollState(jax.vmap(domain.inner.begin)(keys, proposal.tasks), lifetime)
        antagonist = domain.antagonist
        return Lanes(
            lives=jax.tree.map(_twice, lives),
            returns=jnp.zeros((domain.num_tasks, self.replicas)),
            antagonists=None if antagonist is None else jax.vmap(antagonist.begin)(keys, proposal.tasks),
            proposal=proposal,
        )

    def _guide(self, state: OnlineTrainState) -> tuple[OnlineEvolutionState, Metrics]:
        """Give the meta-optimizer the meta-gradient over the next updates of the first life of each pair."""
        if not self.is_guided:
            return state.meta, {}
        domain = self.domain
        first = jax.tree.map(lambda leaf: leaf[:, 0], state.lanes.lives)

        def loss_fn(meta_params: MetaParams, unroll_state: UnrollState) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
            loss, ((advanced, _), _) = self.guide.advance(domain.inner, meta_params, unroll_state)
            return loss, (advanced.life.num_updates, {})

        slots = num_slots(domain.slots, -(-domain.num_tasks // jax.device_count()), on_cpu=1)
        gradient, _, num_updates, metrics = mean_gradient(
            self.meta_params(state),
            first,
            loss_fn,
            train_mask=state.lanes.proposal.train_mask,
            spread=partial(sharded_sum, slots=slots, mesh=population_mesh()),
        )
        rollouts = jnp.sum(num_updates - first.life.num_updates) + domain.num_tasks  # and a validation rollout each
        return self.meta_optimizer.guide(state.meta, gradient), metrics | {"guide_rollouts": rollouts}

    def _unroll(self, items: tuple[Population, Lanes]) -> tuple[Lanes, Outcome]:
        """Advance the pairs of one device by K updates, or by those that are left. Outcomes [N / D, 2]."""
        population, lanes = items
        domain, (num_lanes, replicas) = self.domain, lanes.returns.shape

        def merge(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)

        def split(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf.reshape(num_lanes, replicas, *leaf.shape[1:]), tree)

        until = jnp.minimum(lanes.lives.life.num_updates + self.num_updates, lanes.lives.until)
        finished = until[:, 0] >= lanes.proposal.tasks.lifetime
        slots = domain.num_slots(num_lanes * replicas, even=1.0)
        antagonists, theirs = domain.catch_up(lanes.antagonists, until[:, 0], finished, slots=slots)
        lives, outcomes = domain.train(
            merge(population),
            merge(lanes.lives.life),
            merge(until),
            merge(_twice(theirs)),
            slots=slots,
            scored=merge(_twice(finished)),
        )
        life, outcomes = split((lives, outcomes))
        returns = domain.normalize(outcomes.fitness)
        is_lost = ~jnp.all(jnp.isfinite(returns), axis=1, keepdims=True)
        until = jnp.where(is_lost, life.num_updates, lanes.lives.until)
        return Lanes(UnrollState(life, until), returns, antagonists, lanes.proposal), outcomes


def _twice(leaf: jax.Array) -> jax.Array:
    """A pair of each: [N, ...] to [N, 2, ...]."""
    return jnp.stack([leaf, leaf], axis=1)
