"""Check that an objective, and a learned optimizer, handle state as the protocols require, before compiling."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from metadisco.agents.agent import Agent
from metadisco.agents.learned_optimizer import LearningStep
from metadisco.core.files import leaf_types, named_leaves
from metadisco.core.types import Key, Progress, Trajectory
from metadisco.envs.base import Box, EnvSpec
from metadisco.objectives.base import Objective, ObjectiveState, learned_optimizer, predict

_INIT_STATE = "init_state(key, agent, agent_params, num_workers)"
_TARGETS = "targets(meta_params, state, predictions, trajectory, progress)"


def check_state(objective: Objective, agent: Agent, num_steps: int, num_workers: int) -> None:
    """Raise ValueError, with what to return, where `init_state` and `targets` do not fit the protocol.

    Nothing is computed: one update is traced for a rollout of T = `num_steps` and B = `num_workers`.
    """
    name = type(objective).__name__
    if not callable(getattr(objective, "init_state", None)):
        raise ValueError(
            f"{name} has no {_INIT_STATE}: return from it what is remembered of an agent, () for nothing, and "
            f"(targets, state) from {_TARGETS}"
        )
    _check_arguments(f"{name}.init_state", objective.init_state, _INIT_STATE)
    _check_arguments(f"{name}.targets", objective.targets, _TARGETS)

    def first_update(key: Key) -> tuple[ObjectiveState, Any]:
        agent_params = agent.init(key)
        state = objective.init_state(key, agent, agent_params, num_workers)
        _check_arrays(f"{name}.init_state", state)
        trajectory = _rollout(agent.spec, num_steps, num_workers)
        progress = Progress(jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))
        predictions = predict(agent, agent_params, trajectory)
        told: Any = objective.targets(objective.init(key), state, predictions, trajectory, progress)
        if not (isinstance(told, tuple) and len(told) == 2):
            raise ValueError(
                f"{name}.targets returns a {type(told).__name__}: return (targets, state), with () as the state where "
                "nothing is remembered"
            )
        _check_arrays(f"{name}.targets", told[1])
        return state, told[1]

    before, after = jax.eval_shape(first_update, jax.random.key(0))
    structures: list[Any] = [jax.tree.structure(state) for state in (before, after)]
    if structures[0] != structures[1] or leaf_types(before) != leaf_types(after):
        raise ValueError(
            f"{name}.targets must return (targets, state) with a state of the structure, shapes and dtypes that "
            f"init_state gave: it is {_described(before)} before and {_described(after)} after an update"
        )


def check_optimizer(objective: Objective, agent: Agent) -> None:
    """Raise ValueError where an objective's learned optimizer, if it has one, does not fit the protocol or the agent.

    Nothing is computed: one gradient step is traced.
    """
    optimizer = learned_optimizer(objective)
    if optimizer is None:
        return
    name = type(optimizer).__name__

    def first_step(key: Key) -> tuple:
        agent_params = agent.init(key)
        state = optimizer.init_state(agent_params)
        zero, rollout = jnp.zeros((), jnp.float32), _rollout(agent.spec, 1, 1)
        step = LearningStep(agent_params, agent_params, agent.activity(agent_params, rollout.obs), zero, zero)
        updates, after = optimizer.update(key, optimizer.init(key), state, agent_params, step)
        return agent_params, updates, state, after

    agent_params, updates, *states = jax.eval_shape(first_step, jax.random.key(0))
    if leaf_types(updates) != leaf_types(agent_params):
        raise ValueError(
            f"{name}.update must return what is added to the agent's parameters, of their structure, shapes and "
            f"dtypes: they are {_described(agent_params)}, and it gives {_described(updates)}"
        )
    if leaf_types(states[0]) != leaf_types(states[1]):
        raise ValueError(
            f"{name}.update must return (updates, state) with a state of the structure, shapes and dtypes that "
            f"init_state gave: it is {_described(states[0])} before and {_described(states[1])} after a step"
        )


def _check_arguments(name: str, method: Any, wanted: str) -> None:
    num_arguments = wanted.count(",") + 1
    try:
        inspect.signature(method).bind(*range(num_arguments))
    except TypeError as error:
        raise ValueError(f"{name} does not take the arguments that it is given ({error}): define {wanted}") from error


def _check_arrays(name: str, state: ObjectiveState) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not hasattr(leaf, "dtype"):
            raise ValueError(
                f"{name} gives state{jax.tree_util.keystr(path)} as {leaf!r}: every leaf of the state must be an array "
                "of an explicit dtype, such as jnp.zeros((), jnp.float32)"
            )


def _described(state: ObjectiveState) -> str:
    """Such as `{['count']: int32[]}`."""
    types = ", ".join(f"{path or 'the state'}: {kind}" for path, kind in leaf_types(state).items())
    return f"{{{types}}}" if named_leaves(state) else repr(state)


def _rollout(spec: EnvSpec, num_steps: int, num_workers: int) -> Trajectory:
    shape = (num_steps, num_workers)

    def of_space(space: Any) -> jax.Array:
        return jnp.zeros((*shape, *space.shape)) if isinstance(space, Box) else jnp.zeros(shape, jnp.int32)

    obs, zeros, never = of_space(spec.observation), jnp.zeros(shape), jnp.zeros(shape, bool)
    return Trajectory(obs, of_space(spec.action), zeros, zeros, never, never, obs)
