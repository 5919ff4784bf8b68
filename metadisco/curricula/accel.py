"""ACCEL: replayed levels are edited, so that levels of the right difficulty grow by small steps (arXiv:2203.01302).

A replayed level may be replaced by a mutated child, which is a new level: it enters the buffer if it scores well,
beside its parent. All the rest is prioritized level replay.
"""

from dataclasses import dataclass, replace
from typing import cast

import jax
import jax.numpy as jnp

from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Metrics, Task
from metadisco.curricula.base import Proposal
from metadisco.curricula.buffer import LevelBuffer
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.tasks import Mutable, TaskDistribution, immutable_parts


@own_defaults
@dataclass(frozen=True)
class ACCEL:
    """Prioritized level replay in which a replayed level is mutated with a fixed probability.

    Attributes:
        replay: the buffer and its rules; where it is robust, the objective does not learn from children either.
        mutation_probability: that a replayed level is replaced by a child.
        num_edits: mutations between a level and its child.

    Note:
        The paper edits the levels that were replayed just before; here each life draws for itself whether it is on a
        new level, a replayed one or a child of one, so that all three run side by side.

    Example:
        >>> import jax
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import Tasks
        >>> curriculum = ACCEL(PrioritizedLevelReplay(Tasks(GridLevels()), capacity=100), num_edits=3)
        >>> state = curriculum.init(jax.random.key(0))
    """

    replay: PrioritizedLevelReplay
    mutation_probability: float = 0.5
    num_edits: int = 4

    def __post_init__(self) -> None:
        if not 0.0 <= self.mutation_probability <= 1.0:
            raise ValueError(
                f"ACCEL.mutation_probability must be in 0..1, got {self.mutation_probability}; "
                "use PrioritizedLevelReplay to mutate nothing"
            )
        if self.num_edits < 1:
            raise ValueError(
                f"ACCEL.num_edits must be at least 1, got {self.num_edits}; "
                "use PrioritizedLevelReplay to mutate nothing"
            )
        if self.replay.robust and self.mutation_probability == 1.0:
            raise ValueError(
                "ACCEL.mutation_probability=1 with a robust replay would never learn: it learns from replayed levels "
                "only, and all of them would be children; lower mutation_probability or use robust=False"
            )
        missing = immutable_parts(self.replay.tasks)
        if missing:
            raise ValueError(
                f"ACCEL edits tasks, and {' and '.join(missing)} has no mutate(key, parent); use GridLevels with "
                "LogUniformLifetime or FixedLifetime, or use PrioritizedLevelReplay, which only replays"
            )

    @property
    def tasks(self) -> TaskDistribution:
        """What new levels are drawn from."""
        return self.replay.tasks

    def check(self, num_tasks: int) -> None:
        """As for its replay."""
        self.replay.check(num_tasks)

    def kept(self, state: LevelBuffer) -> LevelBuffer:
        """The level buffer, to be saved and shown."""
        return state

    def init(self, key: Key) -> LevelBuffer:
        """The buffer that its replay begins with."""
        return self.replay.init(key)

    def propose(self, key: Key, state: LevelBuffer, num_tasks: int) -> tuple[LevelBuffer, Proposal]:
        """Draw N levels to play: new ones, replayed ones and children of those."""
        replay_key, choice_key, edit_key = jax.random.split(key, 3)
        state, proposal = self.replay.propose(replay_key, state, num_tasks)
        mutates = jax.random.bernoulli(choice_key, self.mutation_probability, (num_tasks,))
        is_child = mutates & (proposal.places >= 0)
        children = jax.vmap(self._edit)(jax.random.split(edit_key, num_tasks), proposal.tasks)
        return state, replace(
            proposal,
            tasks=trees.where(is_child, children, proposal.tasks),
            places=jnp.where(is_child, -1, proposal.places),
            born=jnp.where(is_child, -1, proposal.born),
            train_mask=proposal.train_mask & ~(is_child & self.replay.robust),
        )

    def observe(
        self, key: Key, state: LevelBuffer, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[LevelBuffer, Metrics]:
        """Score the levels whose lives have ended, and keep the best; a child counts as a new level."""
        return self.replay.observe(key, state, proposal, scores, finished)

    def _edit(self, key: Key, task: Task) -> Task:
        mutate = cast(Mutable, self.replay.tasks).mutate
        keys = jax.random.split(key, self.num_edits)
        return jax.lax.fori_loop(0, self.num_edits, lambda i, mutant: mutate(keys[i], mutant), task)
