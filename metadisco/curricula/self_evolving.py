"""Self-Evolving Curriculum: kinds of tasks are the arms of a bandit whose rewards change (arXiv:2505.14970).

An arm is worth what its tasks have scored lately, and tasks are drawn from the arms by a Boltzmann distribution of
these values. The paper rewards an arm with the mean absolute advantage of its batch; here it is the score that the
domain gives, of which `L1ValueLoss` is the nearest to the paper's and regret the usual choice for meta-training.
"""

import math
from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Metrics
from metadisco.curricula.base import Proposal, propose_new
from metadisco.curricula.tasks import TaskMixture


@struct.dataclass
class ArmState:
    """What the arms are worth."""

    value: jax.Array  # [C] float32, Q


@own_defaults
@dataclass(frozen=True)
class SelfEvolvingCurriculum:
    """Each life gets a task of an arm c that is drawn with probability softmax_c(Q / temperature).

    After each meta-step, for the arms that lives have finished on, with r_c the mean of their finite scores:

        Q_c <- learning_rate * r_c + (1 - learning_rate) * Q_c

    Attributes:
        tasks: the arms, one for each part.
        learning_rate: alpha; how much of an arm's value is its latest reward.
        temperature: tau, in units of the score; towards 0 only the best arm is drawn, towards infinity all alike.

    Note:
        A score on the scale of the rewards makes the temperature depend on them: see `NormalizedScore`. A score that is
        high where tasks are easy, such as the return itself, would choose the easy ones.

    Example:
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import FixedLifetime, Tasks
        >>> short, long = (Tasks(GridLevels(), FixedLifetime(updates)) for updates in (16, 256))
        >>> curriculum = SelfEvolvingCurriculum(TaskMixture((short, long)))
        >>> curriculum.probabilities(curriculum.init(jax.random.key(0))).tolist()
        [0.5, 0.5]
    """

    tasks: TaskMixture
    learning_rate: float = 0.5
    temperature: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.tasks, TaskMixture):
            raise ValueError(
                f"SelfEvolvingCurriculum.tasks must be a TaskMixture, whose parts are the arms, got "
                f"{type(self.tasks).__name__}; use TaskMixture((easy, hard))"
            )
        if not 0.0 < self.learning_rate <= 1.0:
            raise ValueError(
                f"SelfEvolvingCurriculum.learning_rate must be above 0 and at most 1, got {self.learning_rate}; use "
                "DomainRandomization(TaskMixture(...)) to learn nothing"
            )
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(
                f"SelfEvolvingCurriculum.temperature must be above 0 and finite, got {self.temperature}; use "
                "DomainRandomization(TaskMixture(...)) for equal shares"
            )

    def check(self, num_tasks: int) -> None:
        """Any number will do."""
        del num_tasks

    def init(self, key: Key) -> ArmState:
        """All arms are worth 0."""
        del key
        return ArmState(jnp.zeros(len(self.tasks.parts), jnp.float32))

    def probabilities(self, state: ArmState) -> jax.Array:
        """How likely each arm is. [C] float32."""
        return jax.nn.softmax(state.value / self.temperature)

    def propose(self, key: Key, state: ArmState, num_tasks: int) -> tuple[ArmState, Proposal]:
        """Draw an arm and one of its tasks for each of N lives; `notes` are the arms, [N] int32.

        With one arm the tasks are those of `DomainRandomization` with the same key.
        """
        keys = jax.random.split(key, num_tasks + 1)  # the first N are those of a split into N
        log_prob = jax.nn.log_softmax(state.value / self.temperature)
        arms = jax.random.categorical(keys[-1], log_prob, shape=(num_tasks,)).astype(jnp.int32)
        return state, replace(propose_new(jax.vmap(self.tasks.draw)(keys[:-1], arms)), notes=arms)

    def observe(
        self, key: Key, state: ArmState, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[ArmState, Metrics]:
        """Move the values of the arms that lives have finished on; a score that is not finite is left out and counted.

        Metrics: `arm_C_value` and `arm_C_prob` of each arm, and `arm_entropy` of the choice, in nats.
        """
        del key
        chex.assert_equal_shape([scores, finished, proposal.notes])
        counts = finished & jnp.isfinite(scores)
        of_arm = (proposal.notes == jnp.arange(state.value.size)[:, None]) & counts  # [C, N]
        num = jnp.sum(of_arm, axis=1)
        share = 1.0 / jnp.maximum(num, 1).astype(jnp.float32)
        reward = jnp.sum(jnp.where(of_arm, scores * share[:, None], 0.0), axis=1)
        moved = self.learning_rate * reward + (1.0 - self.learning_rate) * state.value
        state = ArmState(jnp.where(num > 0, moved, state.value))
        probs = self.probabilities(state)
        metrics = {f"arm_{i}_value": value for i, value in enumerate(state.value)}
        metrics |= {f"arm_{i}_prob": prob for i, prob in enumerate(probs)}
        return state, metrics | {
            "arm_entropy": -jnp.sum(jax.scipy.special.xlogy(probs, probs)),
            "nonfinite_scores": jnp.sum(finished & ~jnp.isfinite(scores)).astype(jnp.float32),
        }
