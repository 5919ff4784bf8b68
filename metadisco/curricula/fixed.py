"""A fixed set of tasks, drawn from uniformly, again and again.

The source of the set is a component of its own: drawn once from a distribution, or read from the level buffer that
another run has saved. Either way the fields stay scalars, and the tasks themselves are state.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Metrics, Task
from metadisco.curricula.base import Proposal, propose_new
from metadisco.curricula.level_files import load_levels
from metadisco.curricula.tasks import TaskDistribution


class TaskSet(Protocol):
    """A finite set of tasks."""

    def all(self) -> Task:
        """The tasks, the same ones in every call. At least one; leading axis: how many."""


@dataclass(frozen=True)
class DrawnTasks:
    """Tasks drawn once from a distribution.

    Attributes:
        tasks: what is drawn from.
        num_levels: how many.
        seed: which ones.
    """

    tasks: TaskDistribution
    num_levels: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_levels < 1:
            raise ValueError(
                f"DrawnTasks.num_levels must be at least 1, got {self.num_levels}; use DomainRandomization for new "
                "levels without end"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"DrawnTasks.seed must be in 0..2**32 - 1, got {self.seed}; use another number")

    def all(self) -> Task:
        """The tasks; the first ones do not depend on how many there are."""
        key = jax.random.key(self.seed)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self.num_levels))
        return jax.vmap(self.tasks.sample)(keys)


@dataclass(frozen=True)
class SavedTasks:
    """The levels that `level_files.save_levels` wrote.

    The file is read when a run begins, and the tasks are part of the run's state from then on: a resumed run takes from
    it only how many they are.

    Attributes:
        path: the folder.
    """

    path: str

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("SavedTasks.path is empty; name the folder that save_levels wrote, or use DrawnTasks")

    def all(self) -> Task:
        """The tasks in the filled places of the buffer.

        Raises:
            CheckpointError: the folder is not there, damaged, of another version, or holds no level.
        """
        return load_levels(self.path).played()


@own_defaults
@dataclass(frozen=True)
class FixedSet:
    """Every life gets a task of a fixed set, uniformly and independently.

    Attributes:
        source: the set.

    Example:
        >>> import jax
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import Tasks
        >>> curriculum = FixedSet(DrawnTasks(Tasks(GridLevels()), num_levels=16))
        >>> state = curriculum.init(jax.random.key(0))
        >>> state, proposal = curriculum.propose(jax.random.key(1), state, 4)
    """

    source: TaskSet

    def check(self, num_tasks: int) -> None:
        """All N are allowed."""
        del num_tasks

    def init(self, key: Key) -> Task:
        """The whole set, whatever the key."""
        del key
        return jax.tree.map(jnp.asarray, self.source.all())

    def propose(self, key: Key, state: Task, num_tasks: int) -> tuple[Task, Proposal]:
        """Independent draws from the set."""
        places = jax.random.randint(key, (num_tasks,), 0, state.lifetime.shape[0])
        return state, propose_new(trees.index(state, places))

    def observe(
        self, key: Key, state: Task, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[Task, Metrics]:
        """Nothing is learned from scores."""
        del key, proposal, scores, finished
        return state, {}
