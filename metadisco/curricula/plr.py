"""Prioritized level replay: new levels half of the time, and otherwise levels with high scores.

PLR (arXiv:2010.03934) keeps the levels with the highest scores and replays them. Robust PLR (arXiv:2110.02439) lets the
objective learn from replayed levels only; a life on a new level just finds its score. Levels for meta-training are
replayed in this way by GROOVE (arXiv:2310.02782), with the buffer size and replay probability that are the defaults.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metadisco.core import config, trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Metrics
from metadisco.curricula import buffer as level_buffer
from metadisco.curricula.base import Proposal
from metadisco.curricula.buffer import LevelBuffer
from metadisco.curricula.level_files import load_levels
from metadisco.curricula.prioritization import Prioritization, RankPrioritization, TopKPrioritization
from metadisco.curricula.tasks import TaskDistribution


@own_defaults
@dataclass(frozen=True)
class PrioritizedLevelReplay:
    """Each life gets a replayed level with a fixed probability, otherwise a new one.

    No level is replayed twice in one proposal, see `buffer.draw_places`; where fewer levels have a positive weight than
    are asked for, the rest are new.

    Attributes:
        tasks: what new levels are drawn from.
        capacity: C, levels that are kept; at least the number of tasks of a proposal.
        replay_probability: of replaying, once the buffer is filled far enough.
        prioritization: which levels are replayed rather than others.
        staleness_weight: c in (1 - c) w_score + c w_stale; how much more often levels are replayed whose score is old.
        fill_before_replay: share of the buffer that is filled with new levels before any is replayed.
        robust: the objective learns from replayed levels only, so from nothing before the first is replayed.
        warm_start: folder of levels that another run left (see `curricula.snapshots`), to begin with; "" for none. They
            count as played, with their scores there, and enter at clock 0; of more than C the best. They must be of the
            same `tasks`. Read when a run begins; from then on they are part of the run's state, and a resumed run only
            checks that they are still there.

    Example:
        >>> import jax
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import Tasks
        >>> curriculum = PrioritizedLevelReplay(Tasks(GridLevels()), capacity=100)
        >>> state = curriculum.init(jax.random.key(0))
        >>> state, proposal = curriculum.propose(jax.random.key(1), state, 8)
        >>> proposal.places.tolist()
        [-1, -1, -1, -1, -1, -1, -1, -1]
    """

    tasks: TaskDistribution
    capacity: int = 4000
    replay_probability: float = 0.5
    prioritization: Prioritization = RankPrioritization()
    staleness_weight: float = 0.3
    fill_before_replay: float = 0.5
    robust: bool = False
    warm_start: str = ""

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(
                f"PrioritizedLevelReplay.capacity must be at least 1, and at least the number of tasks of a meta-step, "
                f"got {self.capacity}; use DomainRandomization to replay nothing"
            )
        for name in ("replay_probability", "staleness_weight", "fill_before_replay"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"PrioritizedLevelReplay.{name} must be in 0..1, got {getattr(self, name)}; "
                    "write 0.3 for 30 per cent"
                )
        if self.robust and self.replay_probability == 0.0:
            raise ValueError(
                "PrioritizedLevelReplay.robust with replay_probability=0 would never learn: it learns from replayed "
                "levels only; raise replay_probability above 0 or use robust=False"
            )
        if isinstance(self.prioritization, TopKPrioritization) and self.prioritization.k > self.capacity:
            raise ValueError(
                f"TopKPrioritization.k must be in 1..{self.capacity} (the capacity of the buffer), got "
                f"{self.prioritization.k}; lower k or raise PrioritizedLevelReplay.capacity"
            )

    def check(self, num_tasks: int) -> None:
        """Raise ValueError where a proposal would be larger than the buffer."""
        if num_tasks > self.capacity:
            raise ValueError(
                f"PrioritizedLevelReplay.capacity must be at least the number of tasks of a meta-step, {num_tasks}, "
                f"got {self.capacity}; raise capacity or lower num_tasks"
            )

    def init(self, key: Key) -> LevelBuffer:
        """An empty buffer, or one with the levels of another run.

        Raises:
            CheckpointError: the levels of `warm_start` are not there, damaged, or none.
            ValueError: they are of other tasks.
        """
        if not self.warm_start:
            return level_buffer.empty(jax.eval_shape(self.tasks.sample, key), self.capacity)
        levels = load_levels(self.warm_start)
        _check_same(levels.tasks, self.tasks, self.warm_start)
        best, buffer = levels.ranked()[: self.capacity], levels.buffer
        tasks = jax.tree.map(lambda leaf: leaf[best], buffer.tasks)
        return level_buffer.begin(tasks, buffer.score[best], buffer.num_plays[best], self.capacity)

    def kept(self, state: LevelBuffer) -> LevelBuffer:
        """The level buffer, to be saved and shown."""
        return state

    def propose(self, key: Key, state: LevelBuffer, num_tasks: int) -> tuple[LevelBuffer, Proposal]:
        """Draw N levels to play; the buffer changes only when their lives have ended."""
        self.check(num_tasks)
        new_key, choice_key, place_key = jax.random.split(key, 3)
        new = jax.vmap(self.tasks.sample)(jax.random.split(new_key, num_tasks))
        enough = max(1, math.ceil(self.fill_before_replay * self.capacity))
        is_ready = jnp.sum(state.is_filled) >= enough
        replays = is_ready & jax.random.bernoulli(choice_key, self.replay_probability, (num_tasks,))
        weights = level_buffer.replay_weights(state, self.prioritization, self.staleness_weight)
        drawn = level_buffer.draw_places(place_key, weights, num_tasks)
        # The first draw goes to the first life that replays, and so on: the later draws have the smaller weights.
        places = jnp.where(replays, drawn[jnp.maximum(jnp.cumsum(replays) - 1, 0)], -1)
        is_replay, safe = places >= 0, jnp.maximum(places, 0)
        return state, Proposal(
            tasks=trees.where(is_replay, trees.index(state.tasks, safe), new),
            places=places,
            born=jnp.where(is_replay, state.born[safe], -1),
            train_mask=is_replay | (not self.robust),
        )

    def observe(
        self, key: Key, state: LevelBuffer, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[LevelBuffer, Metrics]:
        """Score the levels whose lives have ended, and keep the best."""
        del key
        before = state.num_nonfinite
        is_new = proposal.places < 0
        state = level_buffer.tick(state)
        state = level_buffer.update(state, proposal.places, proposal.born, scores, finished)
        state, num_inserted = level_buffer.insert(state, proposal.tasks, scores, finished & is_new)
        num_filled = jnp.maximum(jnp.sum(state.is_filled), 1)
        num_finished = jnp.maximum(jnp.sum(finished), 1)
        age = jnp.where(state.is_filled, state.clock - state.born, 0)
        return state, {
            "replayed": jnp.sum(finished & ~is_new).astype(jnp.float32) / num_finished,
            "buffer_filled": jnp.mean(state.is_filled.astype(jnp.float32)),
            "buffer_score": jnp.sum(jnp.where(state.is_filled, state.score / num_filled, 0.0)),
            "buffer_age": jnp.sum(age).astype(jnp.float32) / num_filled,
            "buffer_inserted": num_inserted.astype(jnp.float32),
            "nonfinite_scores": (state.num_nonfinite - before).astype(jnp.float32),
        }


def _check_same(theirs: TaskDistribution, ours: TaskDistribution, folder: str) -> None:
    """Refuse levels that this distribution would not have drawn, or that are for another environment."""
    if theirs != ours:
        changed = config.diff(config.to_data(theirs), config.to_data(ours))
        lines = "".join(f"\n  {difference}" for difference in changed)
        raise ValueError(
            f"PrioritizedLevelReplay.warm_start: the levels in {folder} are of other tasks:{lines}\n"
            "Use levels of the same tasks, or train on these as they are with FixedSet(SavedTasks(folder))"
        )
