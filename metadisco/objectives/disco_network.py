"""The meta-network of Disco103: what it sees of a rollout, a memory that lasts an agent's life, and its targets.

Two LSTMs (doi:10.1038/s41586-025-09761-x). One reads each worker's rollout backward in time, so that what it says of a
step knows what came of it. The other makes one step per agent update, from the mean over the whole rollout; what it
remembers scales, unit by unit, what the first one says. Both see the same inputs through embeddings of their own.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents.networks import init_truncated_dense
from metadisco.core import lstm
from metadisco.core.lowrank import project
from metadisco.core.lstm import LSTMState
from metadisco.core.types import Key

Weights = Any  # nested dicts of {"kernel": [inputs, outputs], "bias": [outputs]}
INPUTS = (
    *("prob_of_action", "behavior_prob_of_action", "reward", "discount", "value", "next_value"),
    *("advantage", "normalized_advantage", "target_prob_of_action"),
    *("y", "next_y", "target_y", "next_target_y"),
    *("z_of_action", "mean_z", "next_mean_z", "max_z", "next_max_z"),
    *("target_z_of_action", "mean_target_z", "next_mean_target_z", "max_target_z", "next_max_target_z"),
    *("mean_of_actions_0", "mean_of_actions_1", "action_0", "action_1"),
)
ACTION_INPUTS = (
    *("prob", "behavior_prob", "target_prob", "z", "target_z"),
    *("target_q", "q_advantage", "normalized_q_advantage", "is_taken"),
)
_EMBEDDING, _CHANNELS, _OUT_CHANNELS = 16, 16, 2


@struct.dataclass
class Experience:
    """What the network sees of a rollout. `next` is at the observation that a step led to."""

    steps: jax.Array  # [T, B, 9] float32, the inputs that are not embedded, in the order of `INPUTS`
    actions: jax.Array  # [T, B, A, 6] float32, likewise of `ACTION_INPUTS` without the last
    action: jax.Array  # [T, B] int32
    goes_on: jax.Array  # [T, B] float32, 0 where an episode ended
    policy: jax.Array  # [T, B, A] float32, probabilities
    next_policy: jax.Array  # [T, B, A] float32
    y: tuple[jax.Array, ...]  # now, next, and both of the target network: [T, B, m] float32, probabilities
    z: tuple[jax.Array, ...]  # likewise: [T, B, A, m] float32


def init(key: Key, prediction_size: int, width: int, memory_width: int) -> Weights:
    """Random weights, of zero bias; the memory scales by numbers of a standard deviation of about 1."""
    reader_key, heads_key, memory_key = jax.random.split(key, 3)
    reader_keys, memory_keys = jax.random.split(reader_key, 2), jax.random.split(memory_key, 3)
    scale, summary, y_hat, z_hat, hidden, pi_hat = jax.random.split(heads_key, 6)
    size = len(INPUTS)
    return {
        "reader": _init_embeddings(reader_keys[0], prediction_size)
        | {"lstm": init_truncated_dense(reader_keys[1], size + width, 4 * width)},
        "memory_scale": init_truncated_dense(scale, memory_width, width, 1.0),
        "summary": init_truncated_dense(summary, width, 1, 0.3),
        "y_hat": init_truncated_dense(y_hat, width, prediction_size, 0.3),
        "z_hat": init_truncated_dense(z_hat, width, prediction_size, 0.3),
        "pi_hat": {
            "hidden": init_truncated_dense(hidden, 2 * (width + _OUT_CHANNELS), _CHANNELS),
            "out": init_truncated_dense(pi_hat, _CHANNELS, 1, 0.3),
        },
        "memory": _init_embeddings(memory_keys[0], prediction_size)
        | {
            "mix": init_truncated_dense(memory_keys[1], size + 2, _EMBEDDING),
            "lstm": init_truncated_dense(memory_keys[2], _EMBEDDING + memory_width, 4 * memory_width),
        },
    }


def apply(
    weights: Weights, experience: Experience, memory: LSTMState
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], LSTMState]:
    """Targets of a rollout, and the memory after it.

    Args:
        weights: as `init` gives.
        experience: the rollout.
        memory: h and c of the agent's life so far, [memory width] each.

    Returns:
        Logits of pi_hat [T, B, A], y_hat and z_hat [T, B, m], and the memory.
    """
    x, of_actions = _embed(weights["reader"], experience)
    x = _read_backward(weights["reader"]["lstm"], x, experience.goes_on)
    x = x * _apply(weights["memory_scale"], memory[0])
    y_hat, z_hat = _apply(weights["y_hat"], x), _apply(weights["z_hat"], x)
    num_actions = of_actions.shape[2]
    each = jnp.broadcast_to(x[:, :, None], (*x.shape[:2], num_actions, x.shape[-1]))
    hidden = _among_actions(weights["pi_hat"]["hidden"], jnp.concatenate([each, of_actions], axis=-1))
    pi_hat = _apply(weights["pi_hat"]["out"], hidden)[..., 0]
    return (pi_hat, y_hat, z_hat), _remember(weights, experience, x, y_hat, memory)


def _remember(weights: Weights, experience: Experience, x: jax.Array, y_hat: jax.Array, memory: LSTMState) -> LSTMState:
    """One step of the memory, from the mean over all steps and workers."""
    own = weights["memory"]
    seen, _ = _embed(own, experience)
    said = _apply(weights["summary"], x), _mlp(own["y"], jax.nn.softmax(y_hat))
    mixed = _apply(own["mix"], jnp.concatenate([seen, *said], axis=-1))
    return lstm.step(own["lstm"], jnp.mean(mixed, axis=(0, 1)), memory)


def _embed(weights: Weights, experience: Experience) -> tuple[jax.Array, jax.Array]:
    """All inputs of each step [T, B, 27], and an embedding of each action [T, B, A, 2]."""

    def taken(x: jax.Array) -> jax.Array:
        return of_action(x, experience.action)

    y = [_mlp(weights["y"], each) for each in experience.y]
    z = [_mlp(weights["z"], each) for each in experience.z]  # [T, B, A, 1] each
    policies = (experience.policy, experience.next_policy) * 2
    mean_z = [jnp.sum(each * policy[..., None], axis=2) for each, policy in zip(z, policies, strict=True)]
    max_z = [jnp.max(each, axis=2) for each in z]
    num_actions = experience.policy.shape[-1]
    is_taken = jax.nn.one_hot(experience.action, num_actions)[..., None]
    shown, last = experience.actions[..., :3], experience.actions[..., 3:]
    of_actions = jnp.concatenate([shown, z[0], z[2], last, is_taken], axis=-1)
    for layer in ("hidden", "out"):
        of_actions = _among_actions(weights["actions"][layer], of_actions)
    parts = [experience.steps, *y]
    for now in (0, 2):
        parts += [taken(z[now]), *mean_z[now : now + 2], *max_z[now : now + 2]]
    return jnp.concatenate([*parts, jnp.mean(of_actions, axis=2), taken(of_actions)], axis=-1), of_actions


def of_action(x: jax.Array, action: jax.Array) -> jax.Array:
    """Entries of the actions that were taken: [T, B, A, ...] and [T, B] to [T, B, ...]."""
    index = action.reshape(*action.shape, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=2)[:, :, 0]


def _read_backward(weights: Weights, x: jax.Array, goes_on: jax.Array) -> jax.Array:
    """An LSTM from the last step to the first, which begins anew where an episode ended. [T, B, F] to [T, B, H]."""
    width = weights["bias"].shape[-1] // 4
    begin = jnp.zeros((x.shape[1], width), jnp.float32)

    def step(state: LSTMState, now: tuple[jax.Array, jax.Array]) -> tuple[LSTMState, jax.Array]:
        x, goes_on = now
        hidden, cell = (jnp.where(goes_on[:, None] > 0.0, each, 0.0) for each in state)
        state = lstm.step(weights, x, (hidden, cell))
        return state, state[0]

    return jax.lax.scan(step, (begin, begin), (x, goes_on), reverse=True)[1]


def _among_actions(layer: Weights, x: jax.Array) -> jax.Array:
    """relu([x, mean of x over actions] W + b). [T, B, A, F] to [T, B, A, outputs]."""
    mean = jnp.broadcast_to(jnp.mean(x, axis=2, keepdims=True), x.shape)
    return jax.nn.relu(_apply(layer, jnp.concatenate([x, mean], axis=-1)))


def _mlp(layers: Weights, x: jax.Array) -> jax.Array:
    return _apply(layers["out"], jax.nn.relu(_apply(layers["hidden"], x)))


def _apply(layer: Weights, x: jax.Array) -> jax.Array:
    return project(layer["kernel"], x) + layer["bias"]


def _init_embeddings(key: Key, prediction_size: int) -> Weights:
    y_key, z_key, actions_key = jax.random.split(key, 3)
    return {
        "y": _init_pair(y_key, prediction_size, _EMBEDDING, 1),
        "z": _init_pair(z_key, prediction_size, _EMBEDDING, 1),
        "actions": _init_pair(actions_key, 2 * len(ACTION_INPUTS), _CHANNELS, _OUT_CHANNELS, widened=2),
    }


def _init_pair(key: Key, inputs: int, hidden: int, outputs: int, *, widened: int = 1) -> Weights:
    """Two layers; `widened` is how often the second one sees each hidden unit."""
    hidden_key, out_key = jax.random.split(key)
    return {
        "hidden": init_truncated_dense(hidden_key, inputs, hidden),
        "out": init_truncated_dense(out_key, widened * hidden, outputs),
    }
