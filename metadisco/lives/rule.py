"""A discovered objective in a training loop that was written elsewhere: with any network, environment and optimizer.

A loop has its own network and rollout; what it needs of an objective is constants of a rollout, a loss to be
differentiated and a memory to be carried along. `Rule` is the protocol of objectives
(`metadisco.objectives.base.Objective`) without what only metadisco's own lives have. The optimizer's side, factors of
steps and learned optimizers, is in `metadisco.lives.wrapped_optimizer`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from metadisco.agents.agent import Agent
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, Metrics, Obs, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.objectives.base import ObjectiveState, Targets, is_surrogate, predict, step_factors


@dataclass(frozen=True)
class ForeignNetwork:
    """A network that was written elsewhere, as a torso.

    Attributes:
        function: parameters and observations [rows, ...] to outputs by head, [rows, width]. More outputs are ignored.
        heads: (name, width) of the outputs that are read.
    """

    function: Callable[[AgentParams, Obs], Outputs]
    heads: tuple[tuple[str, int], ...]

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """Raises ValueError: whoever has written the network initializes it."""
        del key, spec, heads
        raise ValueError("a network that is given as a function is initialized where it was written")

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs by head, [rows, width] float32. Raises ValueError where one is missing or of another size."""
        told = self.function(agent_params, obs)
        wanted = {name: (obs.shape[0], width) for name, width in self.heads}
        there = {name: jnp.shape(output) for name, output in told.items()}
        for name, shape in wanted.items():
            if there.get(name) != shape:
                raise ValueError(
                    f"apply must return outputs of the shapes {wanted} for observations of the shape {obs.shape}, and "
                    f"returns {there}"
                )
        return {name: jnp.asarray(told[name], jnp.float32) for name in wanted}


@own_defaults
@dataclass(frozen=True, eq=False)
class Rule:
    """A discovered objective as targets and a loss, for a training loop of any kind.

    An update of an agent with parameters p, after update n of N:

    1. `targets, state = rule.targets(p, state, trajectory, progress)`, once per rollout, on all of it, with the
       parameters that acted. They are constants of the loss. The state is the objective's memory of this agent.
    2. `jax.grad(rule.loss, has_aux=True)(p, targets, trajectory, progress)`, on the rollout, or on minibatches of
       trajectory and targets with any leading axes: the loss is a mean over them.
    3. The step, by an optimizer from `metadisco.wrap_optimizer`, which is told `rule.step_factors(targets)`.

    All three can be jitted, vmapped and scanned.

    Attributes:
        discovered: what `metadisco.load` returns, or `Discovered(metadisco.PPO(), ())` for an objective by hand.
        spec: observation and action spaces. Raises ValueError where the objective does not fit them.
        apply: parameters, any pytree, and observations [rows, ...] to outputs by head, [rows, width]: those of `heads`.
            It remembers nothing from step to step.

    Example:
        >>> import metadisco
        >>> spec = metadisco.EnvSpec(metadisco.Box((4,)), metadisco.Discrete(2))
        >>> Rule(metadisco.load("lpg-grid"), spec, lambda params, obs: {"logits": obs @ params}).heads
        {'logits': 2, 'y': 8}
    """

    discovered: Discovered
    spec: EnvSpec
    apply: Callable[[AgentParams, Obs], Outputs]

    def __post_init__(self) -> None:
        check_discovered(self.discovered)
        _ = self.heads  # which raises where the spaces do not fit

    @property
    def heads(self) -> Heads:
        """Outputs that the network must have, name -> width. The policy is `logits`, or `mean` and `log_std`."""
        return self.discovered.objective.heads(self.spec)

    @property
    def uses_importance_ratio(self) -> bool:
        """Whether several gradient steps on one rollout are allowed, as with PPO; if not, take one."""
        return is_surrogate(self.discovered.objective)

    def init(self, key: Key, agent_params: AgentParams, num_workers: int) -> ObjectiveState:
        """The memory of a new agent, a pytree of arrays; () where nothing is remembered.

        Args:
            key: of this agent.
            agent_params: its first parameters.
            num_workers: B, environments that are stepped side by side.
        """
        return self.discovered.objective.init_state(key, self._agent, agent_params, num_workers)

    def targets(
        self, agent_params: AgentParams, state: ObjectiveState, trajectory: Trajectory, progress: Progress
    ) -> tuple[Targets, ObjectiveState]:
        """Constants of the loss, and the new memory.

        Args:
            agent_params: before the update, which acted.
            state: from `init` or from the last update.
            trajectory: [T, B], time-major.
            progress: before the update.

        Returns:
            A pytree of arrays [T, B, ...], to be split into minibatches like the trajectory, and a state like `state`.
        """
        trajectory = _checked(trajectory)
        if trajectory.reward.ndim != 2:
            raise ValueError(f"targets need a whole rollout, [T, B], got rewards of shape {trajectory.reward.shape}")
        objective, meta_params = self.discovered.objective, self.discovered.meta_params
        predictions = predict(self._agent, agent_params, trajectory)
        targets, state = objective.targets(meta_params, state, predictions, trajectory, progress)
        return jax.lax.stop_gradient(targets), jax.lax.stop_gradient(state)

    def loss(
        self, agent_params: AgentParams, targets: Targets, trajectory: Trajectory, progress: Progress
    ) -> tuple[jax.Array, Metrics]:
        """Scalar loss, to be differentiated by the first argument, and metrics by name.

        Args:
            agent_params: at this gradient step.
            targets: from `targets`.
            trajectory: which they belong to; any leading axes.
            progress: as in `targets`.
        """
        trajectory = _checked(trajectory)
        outputs = self._agent.apply(agent_params, trajectory.obs)
        objective, meta_params = self.discovered.objective, self.discovered.meta_params
        return objective.loss(meta_params, targets, outputs, trajectory, progress)

    def step_factors(self, targets: Targets) -> dict[str, jax.Array]:
        """Factors of the optimizer's updates, for `policy` and `prediction`, from the targets of a whole rollout.

        Of schedules; {} of all others. Where an agent learns on several devices from rollouts of their own, average the
        factors over them like the gradients, or their parameters part.
        """
        return step_factors(self.discovered.objective, targets)

    @property
    def _agent(self) -> Agent:
        heads = tuple(self.heads.items())
        return Agent(ForeignNetwork(self.apply, heads), self.spec, heads)


def check_discovered(discovered: Any) -> None:
    """Raise ValueError where something else is given, such as a name."""
    if not isinstance(discovered, Discovered):
        raise ValueError(
            f"an objective with its meta-parameters is needed, as metadisco.load(NAME) or "
            f"metadisco.Discovered(metadisco.PPO(), ()), got {discovered!r}"
        )


def _checked(trajectory: Trajectory) -> Trajectory:
    """The trajectory in metadisco's types. Raises ValueError where its arrays do not have the same leading axes."""
    leading = jnp.shape(trajectory.reward)
    parts = vars(trajectory)
    scalars = ("log_prob", "reward", "terminated", "truncated")
    for name, leaf in parts.items():
        shape = jnp.shape(leaf)
        if shape[: len(leading)] != leading or (name in scalars and shape != leading):
            shapes = {each: jnp.shape(other) for each, other in parts.items()}
            raise ValueError(f"arrays of a trajectory must have the same axes of time and workers, got {shapes}")
    is_index = jnp.issubdtype(jnp.result_type(trajectory.action), jnp.integer)
    return replace(
        trajectory,
        action=jnp.asarray(trajectory.action, jnp.int32 if is_index else jnp.float32),
        log_prob=jnp.asarray(trajectory.log_prob, jnp.float32),
        reward=jnp.asarray(trajectory.reward, jnp.float32),
        terminated=jnp.asarray(trajectory.terminated, bool),
        truncated=jnp.asarray(trajectory.truncated, bool),
    )
