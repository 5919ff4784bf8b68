"""What a curriculum is: it decides which tasks come next, and is told how they went.

It sees tasks, slots of its level buffer, scores and finished flags; never agents, objectives or optimizers.
"""

from typing import Any, Protocol

import jax
from flax import struct

from metadisco.types import Key, Metrics, Task

CurriculumState = Any  # pytree of arrays


@struct.dataclass
class Proposal:
    """Tasks for the lives that begin now."""

    tasks: Task  # leading axis N
    slots: jax.Array  # [N] int32, where the task stands in the level buffer; -1 for a new one


class Curriculum(Protocol):
    """A teacher."""

    def init(self, key: Key) -> CurriculumState:
        """State before the first meta-step."""

    def propose(self, key: Key, state: CurriculumState, num_tasks: int) -> tuple[CurriculumState, Proposal]:
        """Tasks for N lives."""

    def observe(
        self, key: Key, state: CurriculumState, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[CurriculumState, Metrics]:
        """Take note of scores [N] float32, valid where finished [N] bool."""
