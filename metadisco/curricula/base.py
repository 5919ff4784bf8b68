"""Protocol of curricula: propose tasks, observe their scores.

It sees tasks, places in its level buffer, scores and finished flags; never agents, objectives or optimizers. With the
scores it is given back the proposal, and nothing else, so lives may last many meta-steps: the trainer keeps a row of
the proposal for each life, and replaces the rows of lives that begin anew.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.types import Key, Metrics, Task
from metadisco.curricula.buffer import LevelBuffer
from metadisco.curricula.tasks import TaskDistribution

CurriculumState = Any  # pytree of arrays


@struct.dataclass
class Proposal:
    """Tasks for the lives that begin now. Every leaf has a leading axis N."""

    tasks: Task
    places: jax.Array  # [N] int32, where the task stands in the level buffer; -1 for a new one
    born: jax.Array  # [N] int32, the buffer's clock when the task entered that place; -1 for a new one
    train_mask: jax.Array  # [N] bool, whether the objective may learn from this life, or only the curriculum
    notes: Any = ()  # pytree of arrays [N, ...], what the curriculum needs again in `observe`


def propose_new(tasks: Task, *, train_mask: bool = True) -> Proposal:
    """Propose tasks, with leading axis N, that stand in no buffer."""
    num_tasks = tasks.lifetime.shape[0]
    nowhere = jnp.full(num_tasks, -1, jnp.int32)
    return Proposal(tasks, places=nowhere, born=nowhere, train_mask=jnp.full(num_tasks, train_mask))


class Curriculum(Protocol):
    """A rule that chooses tasks and learns from scores."""

    def check(self, num_tasks: int) -> None:
        """Raise ValueError where N tasks can never be proposed, and say what to change."""

    def init(self, key: Key) -> CurriculumState:
        """State before the first meta-step."""

    def propose(self, key: Key, state: CurriculumState, num_tasks: int) -> tuple[CurriculumState, Proposal]:
        """Tasks for N lives."""

    def observe(
        self, key: Key, state: CurriculumState, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[CurriculumState, Metrics]:
        """Learn from scores [N] float32, valid where finished [N] bool."""


@runtime_checkable
class LevelKeeper(Protocol):
    """A curriculum that has a level buffer. Optional; the levels of others are not saved and not shown."""

    @property
    def tasks(self) -> TaskDistribution:
        """What new levels are drawn from."""

    def kept(self, state: CurriculumState) -> LevelBuffer:
        """The levels that are kept."""
