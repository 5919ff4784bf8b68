"""One agent update: targets, loss, gradients, optimizers.

Targets run over time, so they are computed once per rollout, on all of it. The loss is a mean over steps and workers,
so it can be minimized on minibatches of them, for several epochs (arXiv:1707.06347).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metadisco.agents.agent import Agent
from metadisco.agents.learned_optimizer import LearnedOptimizer, LearningStep
from metadisco.agents.networks import POLICY_GROUP
from metadisco.agents.optimizers import SGD, Optimizer, OptState
from metadisco.core import keys
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Key, MetaParams, Metrics, Progress, Trajectory
from metadisco.objectives.base import (
    HasOptimizer,
    Objective,
    ObjectiveState,
    Targets,
    predict,
    step_factors,
)

_LEARNED = "learned"  # where a learned optimizer's state is, beside those of both groups


@own_defaults
@dataclass(frozen=True)
class Learner:
    """Optimizers, epochs and minibatches of an agent's update.

    Attributes:
        policy: optimizer of the policy heads and of a network's `torso`.
        prediction: optimizer of all other heads.
        num_epochs: passes over the rollout in one update.
        num_minibatches: equal parts into which the T * B samples of a rollout are split, shuffled anew in every epoch;
            one gradient step is taken on each. There is no shuffling if both numbers are 1.

    Where the objective has a learned optimizer (`metadisco.objectives.with_optimizer`), it is told what both optimizers
    propose, and decides.

    Example:
        >>> Learner(num_epochs=4, num_minibatches=2).num_gradient_steps
        8
    """

    policy: Optimizer = SGD()
    prediction: Optimizer = SGD(learning_rate=4.0)
    num_epochs: int = 1
    num_minibatches: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "num_epochs", "num_minibatches")

    @property
    def num_gradient_steps(self) -> int:
        """Gradient steps of one update."""
        return self.num_epochs * self.num_minibatches

    def check(self, num_steps: int, num_workers: int) -> None:
        """Raise ValueError where rollouts of T steps by B workers cannot be split evenly."""
        if num_steps * num_workers % self.num_minibatches:
            raise ValueError(
                f"Learner.num_minibatches must divide num_steps * num_workers = {num_steps} * {num_workers}, got "
                f"{self.num_minibatches}"
            )

    def init(self, agent_params: AgentParams, learned: LearnedOptimizer | None = None) -> OptState:
        """State of both optimizers, and of a learned one where the objective has it."""
        state = {name: optimizer.init(group) for name, (optimizer, group) in self._groups(agent_params).items()}
        return state if learned is None else state | {_LEARNED: learned.init_state(agent_params)}

    def update(
        self,
        key: Key,
        agent: Agent,
        objective: Objective,
        meta_params: MetaParams,
        agent_params: AgentParams,
        opt_state: OptState,
        objective_state: ObjectiveState,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[AgentParams, OptState, ObjectiveState, Targets, Metrics]:
        """Take gradient steps on the objective's loss over a rollout.

        Args:
            key: for minibatches, and for the noise of a learned optimizer.
            agent: the agent.
            objective: the learning rule.
            meta_params: of the objective.
            agent_params: before the update.
            opt_state: from `init`.
            objective_state: state of the objective for this agent.
            trajectory: [T, B], acted by `agent_params`.
            progress: before the update.

        Returns:
            Parameters, optimizer state, the objective's state and targets, and its metrics, means over the gradient
            steps.
        """
        predictions = predict(agent, agent_params, trajectory)
        targets, objective_state = objective.targets(meta_params, objective_state, predictions, trajectory, progress)
        factors = step_factors(objective, targets)

        def descend(carry: tuple, now: tuple[tuple[Trajectory, Targets], jax.Array]) -> tuple[tuple, Metrics]:
            (agent_params, opt_state), ((trajectory, targets), number) = carry, now

            def loss_fn(agent_params: AgentParams) -> tuple[jax.Array, Metrics]:
                outputs = agent.apply(agent_params, trajectory.obs)
                return objective.loss(meta_params, targets, outputs, trajectory, progress)

            (loss, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(agent_params)
            updates, new_state = self._propose(gradients, agent_params, opt_state, progress)
            if isinstance(objective, HasOptimizer):
                epoch = (number // self.num_minibatches).astype(jnp.float32) / max(self.num_epochs - 1, 1)
                activity = agent.activity(agent_params, trajectory.obs)
                step = LearningStep(gradients, updates, activity, progress.fraction, epoch)
                updates, new_state[_LEARNED] = objective.optimizer.update(
                    keys.of_gradient_step(key, number),
                    objective.optimizer_params(meta_params),
                    opt_state[_LEARNED],
                    agent_params,
                    step,
                )
            return (self._apply(updates, agent_params, factors), new_state), {"loss": loss, **metrics}

        def epoch(carry: tuple, now: tuple[Key, jax.Array]) -> tuple[tuple, Metrics]:
            key, numbers = now
            return jax.lax.scan(descend, carry, (shuffle(key, (trajectory, targets), self.num_minibatches), numbers))

        carry, batch = (agent_params, opt_state), (trajectory, targets)
        if self.num_gradient_steps == 1:
            carry, metrics = descend(carry, (batch, jnp.zeros((), jnp.int32)))
        else:
            numbers = jnp.arange(self.num_gradient_steps, dtype=jnp.int32).reshape(self.num_epochs, -1)
            carry, steps = jax.lax.scan(epoch, carry, (jax.random.split(key, self.num_epochs), numbers))
            metrics = jax.tree.map(jnp.mean, steps)
        return *carry, objective_state, targets, metrics

    def _propose(
        self, gradients: AgentParams, agent_params: AgentParams, opt_state: OptState, progress: Progress
    ) -> tuple[AgentParams, OptState]:
        """What both optimizers would add to the parameters, and their states."""
        gradient_groups = self._groups(gradients)
        proposed: AgentParams = {}
        new_state: OptState = {}
        for name, (optimizer, group) in self._groups(agent_params).items():
            update = optax.with_extra_args_support(optimizer).update
            updates, new_state[name] = update(gradient_groups[name][1], opt_state[name], group, progress=progress)
            proposed |= updates
        return proposed, new_state

    def _apply(self, updates: AgentParams, agent_params: AgentParams, factors: dict[str, jax.Array]) -> AgentParams:
        """Parameters after one gradient step."""
        moved: AgentParams = {}
        update_groups = self._groups(updates)
        for name, (_, group) in self._groups(agent_params).items():
            _, updates = update_groups[name]
            if name in factors:
                updates = jax.tree.map(lambda leaf, factor=factors[name]: factor * leaf, updates)
            moved |= optax.apply_updates(group, updates)
        return moved

    def _groups(self, tree: AgentParams) -> dict[str, tuple[optax.GradientTransformation, AgentParams]]:
        policy = {name: leaf for name, leaf in tree.items() if name in POLICY_GROUP}
        prediction = {name: leaf for name, leaf in tree.items() if name not in POLICY_GROUP}
        groups = {"policy": (self.policy.transformation(), policy)}
        if prediction:
            groups["prediction"] = (self.prediction.transformation(), prediction)
        return groups


def shuffle(key: Key, tree: Any, num_minibatches: int) -> Any:
    """Split the samples of a rollout into minibatches at random.

    Args:
        key: of the permutation.
        tree: leaves [T, B, ...].
        num_minibatches: divides T * B.

    Returns:
        Leaves [num_minibatches, T * B / num_minibatches, 1, ...]: each minibatch looks like the rollout of one
        worker, out of order, so that a mean over steps and workers is a mean over its samples.
    """
    num_steps, num_workers = jax.tree.leaves(tree)[0].shape[:2]
    order = permutation(key, num_steps * num_workers)

    def split(leaf: jax.Array) -> jax.Array:
        samples = leaf.reshape(num_steps * num_workers, *leaf.shape[2:])[order]
        return samples.reshape(num_minibatches, -1, 1, *leaf.shape[2:])

    return jax.tree.map(split, tree)


def permutation(key: Key, num: int) -> jax.Array:
    """A random permutation of range(num). [num] int32.

    Sorts random integers whose low bits are replaced by their index: five times as fast on a CPU as
    `jax.random.permutation`, which sorts pairs. Ties in the other bits keep their order, which is a negligible bias:
    there are 2^32 / num different values.
    """
    if num > 2**20:
        raise ValueError(f"a rollout must have at most {2**20} samples, got {num}; use fewer workers or steps")
    low_bits = jnp.uint32((1 << (num - 1).bit_length()) - 1)
    numbers = jax.random.bits(key, (num,), jnp.uint32)
    ordered = jnp.sort((numbers & ~low_bits) | jnp.arange(num, dtype=jnp.uint32))
    return (ordered & low_bits).astype(jnp.int32)
