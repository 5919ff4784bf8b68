"""One step of a long short-term memory, whose kernel may be low-rank as those of a population are."""

from typing import Any

import jax
import jax.numpy as jnp

from metadisco.core.lowrank import project

Weights = dict[str, Any]  # kernel [F + H, 4H] and bias [4H], blocks in the order i, g, f, o
LSTMState = tuple[jax.Array, jax.Array]  # hidden and cell, [..., H] each


def step(weights: Weights, x: jax.Array, state: LSTMState) -> LSTMState:
    """c' = sigmoid(f + 1) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'), with [i, g, f, o] = [x, h] W + b.

    Args:
        weights: see `Weights`.
        x: [..., F].
        state: h and c.

    Returns:
        h' and c'.
    """
    hidden, cell = state
    gates = project(weights["kernel"], jnp.concatenate([x, hidden], axis=-1)) + weights["bias"]
    write, candidate, keep, show = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(keep + 1.0) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    return jax.nn.sigmoid(show) * jnp.tanh(cell), cell
