"""A network that makes tasks by the rules of a design: an autoregressive policy over the choices of the design.

At every step the network sees the draft so far, a random vector that stays the same for the whole task, with which the
same network can make different tasks, and the step. Trajectories hold choices and random numbers but no observations:
`observations` computes them again, so that `evaluate_choices` can evaluate a network on all steps at once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents.networks import Heads, Table, Torso
from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Key, Outputs, Task
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.envs.level_design import Design

ILLEGAL = -1e9  # in place of minus infinity, whose gradient is NaN


@struct.dataclass
class TeacherTrajectory:
    """The choices that made one task. S: steps of the design."""

    condition: jax.Array  # [noise_size] float32 in [-1, 1), the random vector
    choice: jax.Array  # [S] int32; -1 where the step was passed over
    uniform: jax.Array  # [S] float32, where in its bin a number is
    log_prob: jax.Array  # [S] float32, of the choice under the network that made it; 0 where passed over


@struct.dataclass
class TeacherOutputs:
    """Outputs of a network along the trajectory of one task."""

    log_prob: jax.Array  # [S] float32, of the choices; 0 where passed over
    entropy: jax.Array  # [S] float32, nats; 0 where passed over
    value: jax.Array  # [S] float32, the score that the network expects, before the choice


@struct.dataclass
class TeacherObservations:
    """What the network sees and may choose at each step."""

    obs: jax.Array  # [S, width] float32
    options: jax.Array  # [S, num_options] bool


@own_defaults
@dataclass(frozen=True)
class Teacher:
    """A design and the network that makes its choices. Logits and value are sums of a network's and a table's.

    The table has a row for every step, so what is always good at a step is learned at once.

    Attributes:
        design: the rules.
        network: sees draft, random vector and step.
        noise_size: length of the random vector.

    Example:
        >>> import jax
        >>> from metadisco.agents.networks import MLP
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import Tasks
        >>> teacher = Teacher(Tasks(GridLevels()).design(num_bins=10), MLP((64,)), noise_size=8)
        >>> teacher_params = teacher.init(jax.random.key(0))
        >>> task, trajectory = teacher.generate(jax.random.key(1), teacher_params)
    """

    design: Design
    network: Torso
    noise_size: int

    def init(self, key: Key) -> AgentParams:
        """Parameters with which the choices are near uniform."""
        network_key, table_key = jax.random.split(key)
        width = jax.eval_shape(lambda: self.design.observe(self.design.begin())).size
        seen = Box((width + self.noise_size + self.design.num_steps,), 0.0, 1.0)
        return {
            "network": self.network.init(network_key, EnvSpec(seen, Discrete(self.design.num_options)), self._heads),
            "table": Table().init(table_key, EnvSpec(Discrete(self.design.num_steps), Discrete(1)), self._heads),
        }

    def generate(self, key: Key, teacher_params: AgentParams) -> tuple[Task, TeacherTrajectory]:
        """Make one task."""
        num_steps = self.design.num_steps
        # In one call: each further draw costs a second of compilation on a CPU.
        drawn = jax.random.uniform(key, (2 * num_steps + self.noise_size,))
        for_choices, uniforms, for_condition = jnp.split(drawn, [num_steps, 2 * num_steps])
        condition = 2.0 * for_condition - 1.0

        def choose(draft: object, inputs: tuple[jax.Array, ...]) -> tuple[object, tuple[jax.Array, jax.Array]]:
            step, for_choice, uniform = inputs
            options = self.design.options(draft, step)
            seen = jnp.concatenate([self.design.observe(draft), condition])
            log_probs = _log_probs(self._apply(teacher_params, seen[None], step[None])["logits"][0], options)
            option = _draw(for_choice, log_probs, options)
            is_passed = ~jnp.any(options)
            draft = trees.where(is_passed, draft, self.design.place(draft, step, option, uniform))
            choice = jnp.where(is_passed, -1, option).astype(jnp.int32)
            return draft, (choice, jnp.where(is_passed, 0.0, log_probs[option]))

        steps = jnp.arange(num_steps, dtype=jnp.int32)
        draft, (choice, log_prob) = jax.lax.scan(choose, self.design.begin(), (steps, for_choices, uniforms))
        return self.design.finish(draft), TeacherTrajectory(condition, choice, uniforms, log_prob)

    def observations(self, trajectory: TeacherTrajectory) -> TeacherObservations:
        """The observations along the trajectory of one task, computed again."""

        def follow(draft: object, inputs: tuple[jax.Array, ...]) -> tuple[object, TeacherObservations]:
            step, choice, uniform = inputs
            seen = jnp.concatenate([self.design.observe(draft), trajectory.condition])
            observation = TeacherObservations(seen, self.design.options(draft, step))
            placed = self.design.place(draft, step, choice, uniform)
            return trees.where(choice >= 0, placed, draft), observation

        steps = jnp.arange(self.design.num_steps, dtype=jnp.int32)
        return jax.lax.scan(follow, self.design.begin(), (steps, trajectory.choice, trajectory.uniform))[1]

    def evaluate_choices(
        self, teacher_params: AgentParams, observations: TeacherObservations, choice: jax.Array
    ) -> TeacherOutputs:
        """Outputs of a network for the choices [S] of one task; differentiable in `teacher_params`."""
        steps = jnp.arange(self.design.num_steps, dtype=jnp.int32)
        outputs = self._apply(teacher_params, observations.obs, steps)
        log_probs = _log_probs(outputs["logits"], observations.options)
        of_choice = jnp.take_along_axis(log_probs, jnp.maximum(choice, 0)[:, None], axis=1)[:, 0]
        entropy = -jnp.sum(jnp.where(observations.options, jnp.exp(log_probs) * log_probs, 0.0), axis=1)
        return TeacherOutputs(jnp.where(choice >= 0, of_choice, 0.0), entropy, outputs["score"][:, 0])

    @property
    def _heads(self) -> Heads:
        return {"logits": self.design.num_options, "score": 1}

    def _apply(self, teacher_params: AgentParams, seen: jax.Array, steps: jax.Array) -> Outputs:
        """Outputs for what is seen [rows, ...] at `steps` [rows]."""
        which = jax.nn.one_hot(steps, self.design.num_steps)
        of_network = self.network.apply(teacher_params["network"], jnp.concatenate([seen, which], axis=1))
        of_table = Table().apply(teacher_params["table"], steps)
        return {name: of_network[name] + of_table[name] for name in self._heads}


def _log_probs(logits: jax.Array, options: jax.Array) -> jax.Array:
    """Of the legal options, over the last axis; meaningless where there is none."""
    return jax.nn.log_softmax(jnp.where(options, logits, ILLEGAL))


def _draw(uniform: jax.Array, log_probs: jax.Array, options: jax.Array) -> jax.Array:
    """Draw a legal option by a uniform number. [] int32; meaningless where there is none."""
    # Rounding in the sum may neither make an illegal option the first beyond the threshold, nor leave none beyond it.
    below = jnp.where(options, jnp.cumsum(jnp.exp(log_probs)), 0.0)
    threshold = uniform * (1.0 - 1e-6) * jnp.max(below)
    return jnp.argmax(below > threshold).astype(jnp.int32)
