"""Domain randomization: every life gets a new task from a fixed distribution."""

from dataclasses import dataclass

import jax

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Metrics
from metadisco.curricula.base import Proposal, propose_new
from metadisco.curricula.tasks import TaskDistribution


@own_defaults
@dataclass(frozen=True)
class DomainRandomization:
    """Independent draws from a fixed distribution of tasks.

    Attributes:
        tasks: what is drawn from.
    """

    tasks: TaskDistribution

    def check(self, num_tasks: int) -> None:
        """Any number will do."""
        del num_tasks

    def init(self, key: Key) -> tuple[()]:
        """Nothing to remember."""
        del key
        return ()

    def propose(self, key: Key, state: tuple[()], num_tasks: int) -> tuple[tuple[()], Proposal]:
        """Independent draws."""
        tasks = jax.vmap(self.tasks.sample)(jax.random.split(key, num_tasks))
        return state, propose_new(tasks)

    def observe(
        self, key: Key, state: tuple[()], proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[tuple[()], Metrics]:
        """Nothing is learned from scores."""
        del key, proposal, scores, finished
        return state, {}
