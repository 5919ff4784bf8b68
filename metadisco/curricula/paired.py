"""PAIRED: a teacher network makes the tasks, and learns to make those with high scores (arXiv:2012.02096).

With regret as the score, the teacher looks for tasks that are hard for the objective and can be solved nevertheless.
There it was a zero-sum game of a protagonist and an antagonist; this curriculum only sees scores, and it is the score
that may compare with an antagonist. A task may have been made by an older teacher: its choices are weighted by how much
more likely they are now, and the weight is clipped as in PPO (arXiv:1707.06347).
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import Adam, Optimizer
from metadisco.core import trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Key, Metrics
from metadisco.curricula.base import Proposal, propose_new
from metadisco.curricula.tasks import TaskDistribution, undesignable_parts
from metadisco.curricula.teacher import Teacher, TeacherObservations, TeacherOutputs, TeacherTrajectory
from metadisco.envs.level_design import Designable

LARGEST_SCORE = 1e15  # its square is still a float32
MAX_LOG_RATIO = 10.0  # larger ones are clipped in any case, and their exponential could overflow


@struct.dataclass
class PairedState:
    """The teacher, and running statistics of the scores."""

    teacher_params: AgentParams
    opt_state: Any
    mean: jax.Array  # [] float32, running mean of the scores
    variance: jax.Array  # [] float32, running mean of their squared distance from it
    weight: jax.Array  # [] float32 in [0, 1], how much the two are made of scores


@own_defaults
@dataclass(frozen=True)
class PAIRED:
    """Tasks made by a teacher that is trained on their scores by PPO.

    A level is one episode of the teacher; the score, less its running mean and over its running standard deviation, is
    all that it gets, undiscounted and at the end. Every finished level has the same weight in the gradient, however
    many come back together.

    Attributes:
        tasks: what can be made; it has to offer `design`, see `metadisco.envs.level_design`.
        network: the teacher's, which a table of the steps is added to.
        num_bins: bins from which a number, such as a reward or the lifetime, is chosen.
        noise_size: random numbers that the teacher sees, drawn once for each task.
        optimizer: of the teacher.
        num_epochs: updates on the levels that come back together.
        clip: PPO's epsilon; the ratio of a choice's probabilities now and when it was made is clipped to 1 +- epsilon.
        entropy_weight: of the mean entropy of a choice, in nats, beside the score in standard deviations.
        value_weight: of the squared error of the expected score.
        score_decay: how much of the running mean and deviation is left after one more score.

    Example:
        >>> import jax
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import Tasks
        >>> curriculum = PAIRED(Tasks(GridLevels()))
        >>> state = curriculum.init(jax.random.key(0))
        >>> state, proposal = curriculum.propose(jax.random.key(1), state, 4)
        >>> proposal.notes.choice.shape  # 4 levels of 40 steps
        (4, 40)
    """

    tasks: TaskDistribution
    network: MLP = MLP((64, 64))
    num_bins: int = 10
    noise_size: int = 8
    optimizer: Optimizer = Adam(learning_rate=1e-3, max_grad_norm=0.5)
    num_epochs: int = 4
    clip: float = 0.2
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    score_decay: float = 0.998

    def __post_init__(self) -> None:
        missing = undesignable_parts(self.tasks)
        if missing:
            raise ValueError(
                f"PAIRED makes tasks by choice, and {' and '.join(missing)} has no design(num_bins); use GridLevels "
                "with LogUniformLifetime or FixedLifetime, or use PrioritizedLevelReplay, which only draws and replays"
            )
        for name, lowest in (("num_bins", 2), ("noise_size", 0), ("num_epochs", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"PAIRED.{name} must be at least {lowest}, got {getattr(self, name)}; raise it")
        if not 0.0 < self.clip < 1.0:
            raise ValueError(f"PAIRED.clip must be in 0..1, both excluded, got {self.clip}; 0.2 is usual")
        for name in ("entropy_weight", "value_weight"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"PAIRED.{name} must be finite and not negative, got {getattr(self, name)}; use 0 to do without"
                )
        if not 0.0 <= self.score_decay < 1.0:
            raise ValueError(
                f"PAIRED.score_decay must be in 0..1, 1 excluded, got {self.score_decay}; "
                "use 0.998 to remember about 500 scores"
            )

    @property
    def teacher(self) -> Teacher:
        """The teacher, without its parameters."""
        return Teacher(cast(Designable, self.tasks).design(self.num_bins), self.network, self.noise_size)

    def check(self, num_tasks: int) -> None:
        """Any number will do."""
        del num_tasks

    def init(self, key: Key) -> PairedState:
        """A teacher whose choices are near uniform."""
        teacher_params = self.teacher.init(key)
        zero = jnp.zeros((), jnp.float32)
        opt_state = self.optimizer.transformation().init(teacher_params)
        return PairedState(teacher_params, opt_state, mean=zero, variance=zero, weight=zero)

    def propose(self, key: Key, state: PairedState, num_tasks: int) -> tuple[PairedState, Proposal]:
        """Let the teacher make N tasks; `notes` say how each was made."""
        generate = jax.vmap(self.teacher.generate, in_axes=(0, None))
        tasks, trajectories = generate(jax.random.split(key, num_tasks), state.teacher_params)
        return state, replace(propose_new(tasks), notes=trajectories)

    def observe(
        self, key: Key, state: PairedState, proposal: Proposal, scores: jax.Array, finished: jax.Array
    ) -> tuple[PairedState, Metrics]:
        """Train the teacher on the levels that have finished, a score that is not finite left out and counted.

        Where no level counts, nothing changes. Metrics: `regret` is the running mean of the scores; `teacher_entropy`
        that of a choice, in nats, by the present teacher on all levels of the proposal; `teacher_stale` the share of
        choices whose ratio is clipped.
        """
        del key
        chex.assert_equal_shape([scores, finished])
        is_finite = jnp.abs(scores) < LARGEST_SCORE
        counts = finished & is_finite
        tracked = self._track(state, scores, counts)
        advantage = jnp.where(counts, (scores - tracked.mean) / _deviation(tracked), 0.0)
        trajectories: TeacherTrajectory = proposal.notes
        observations = jax.vmap(self.teacher.observations)(trajectories)
        transformation = self.optimizer.transformation()

        def train(carry: tuple[AgentParams, Any], _: None) -> tuple[tuple[AgentParams, Any], Metrics]:
            teacher_params, opt_state = carry

            def loss_fn(teacher_params: AgentParams) -> tuple[jax.Array, Metrics]:
                outputs = self._evaluate_choices(teacher_params, observations, trajectories)
                loss, metrics = teacher_loss(
                    outputs,
                    trajectories,
                    advantage,
                    counts,
                    clip=self.clip,
                    entropy_weight=self.entropy_weight,
                    value_weight=self.value_weight,
                )
                return loss, metrics | {"teacher_loss": loss}

            gradient, metrics = jax.grad(loss_fn, has_aux=True)(teacher_params)
            updates, opt_state = transformation.update(gradient, opt_state, teacher_params)
            metrics |= {"teacher_grad_norm": optax.tree.norm(gradient)}
            return (optax.apply_updates(teacher_params, updates), opt_state), metrics

        carry = state.teacher_params, state.opt_state
        (teacher_params, opt_state), metrics = jax.lax.scan(train, carry, None, length=self.num_epochs)
        trained = replace(tracked, teacher_params=teacher_params, opt_state=opt_state)
        state = trees.where(jnp.any(counts), trained, state)
        return state, jax.tree.map(jnp.mean, metrics) | {
            "regret": state.mean,
            "nonfinite_scores": jnp.sum(finished & ~is_finite).astype(jnp.float32),
        }

    def _evaluate_choices(
        self, teacher_params: AgentParams, observations: TeacherObservations, trajectories: TeacherTrajectory
    ) -> TeacherOutputs:
        """As `Teacher.evaluate_choices`, for N tasks."""
        evaluate = jax.vmap(self.teacher.evaluate_choices, in_axes=(None, 0, 0))
        return evaluate(teacher_params, observations, trajectories.choice)

    def _track(self, state: PairedState, scores: jax.Array, counts: jax.Array) -> PairedState:
        """Running mean and variance, in which all scores that come back together have the same weight."""
        num = jnp.sum(counts).astype(jnp.float32)
        kept = self.score_decay**num
        weight = kept * state.weight + (1.0 - kept)
        # How far the running numbers go towards those of the batch: all the way at first.
        step = jnp.where(weight > 0.0, (1.0 - kept) / jnp.maximum(weight, 1e-12), 0.0)
        share = counts / jnp.maximum(num, 1.0)
        batch_mean = jnp.sum(jnp.where(counts, scores * share, 0.0))
        difference = batch_mean - state.mean
        mean = state.mean + step * difference
        spread = jnp.sum(jnp.where(counts, (scores - batch_mean) ** 2 * share, 0.0))
        # Of a mixture: the variances within, and that of the two means.
        variance = (1.0 - step) * (state.variance + step * difference**2) + step * spread
        return replace(state, mean=mean, variance=variance, weight=weight)


def teacher_loss(
    outputs: TeacherOutputs,
    trajectories: TeacherTrajectory,
    score: jax.Array,
    counts: jax.Array,
    *,
    clip: float,
    entropy_weight: float,
    value_weight: float,
) -> tuple[jax.Array, Metrics]:
    """PPO's loss of the choices that made N tasks.

    For a choice with the ratio r of its probabilities now and when it was made, and A = score - value (no gradient):

        -min(r A, clip(r, 1 - clip, 1 + clip) A) - entropy_weight H + value_weight (score - value)^2

    averaged over the choices of a task and summed over the tasks that count, over N.

    Args:
        outputs: of the present teacher, [N, S].
        trajectories: how the tasks were made, [N, S].
        score: [N] float32, normalized; finite also where it does not count.
        counts: [N] bool.
        clip: in (0, 1).
        entropy_weight: of H.
        value_weight: of the squared error.

    Returns:
        The loss [] float32, and metrics.

    Note:
        Undiscounted and without bootstrapping: the return at every step is the score.
    """
    chex.assert_equal_shape([outputs.log_prob, trajectories.log_prob])
    chex.assert_equal_shape([score, counts])
    is_played = trajectories.choice >= 0
    share = is_played / jnp.maximum(jnp.sum(is_played, axis=1, keepdims=True), 1)  # [N, S]
    weights = share * counts[:, None] / counts.size
    error = score[:, None] - outputs.value
    advantage = jax.lax.stop_gradient(error)
    ratio = jnp.exp(jnp.clip(outputs.log_prob - trajectories.log_prob, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    followed, clipped = ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage
    terms = -jnp.minimum(followed, clipped) - entropy_weight * outputs.entropy + value_weight * error**2
    return jnp.sum(weights * terms), {
        "teacher_entropy": jnp.sum(share * outputs.entropy) / counts.size,
        "teacher_stale": jnp.sum(weights * (clipped < followed)) / jnp.maximum(jnp.sum(weights), 1e-12),
    }


def _deviation(state: PairedState) -> jax.Array:
    """Standard deviation of the scores, not below what rounding makes of equal ones. [] float32."""
    return jnp.maximum(jnp.sqrt(state.variance), 1e-5 * jnp.abs(state.mean) + 1e-8)
