"""One step of a gated recurrent unit, whose matrices may be low-rank as those of a population are."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.lowrank import project

Weights = dict[str, Any]  # input [F, 3H], input_bias [3H], recurrent [H, 3H], recurrent_bias [H]


@struct.dataclass
class Gates:
    """Residuals of one step, for a derivative by hand."""

    reset: jax.Array  # [rows, H]
    update: jax.Array  # [rows, H]
    candidate: jax.Array  # [rows, H]
    from_carry: jax.Array  # [rows, H], the candidate's part of h U, with its bias


def step(weights: Weights, x: jax.Array, carry: jax.Array) -> tuple[jax.Array, Gates]:
    """Gated recurrent unit (arXiv:1406.1078, with the reset gate after the product).

    r, z = sigmoid(x W + h U); c = tanh(x W + r (h U + b)); h' = (1 - z) c + z h; blocks of W and U in this order.

    Args:
        weights: see `Weights`.
        x: [rows, F].
        carry: h, [rows, H].

    Returns:
        h' [rows, H], and the gates.
    """
    width = carry.shape[-1]
    from_input = project(weights["input"], x) + weights["input_bias"]
    products = project(weights["recurrent"], carry)
    gates = _sigmoid(from_input[:, : 2 * width] + products[:, : 2 * width])
    reset, update = gates[:, :width], gates[:, width:]
    from_carry = products[:, 2 * width :] + weights["recurrent_bias"]
    candidate = jnp.tanh(from_input[:, 2 * width :] + reset * from_carry)
    return candidate + update * (carry - candidate), Gates(reset, update, candidate, from_carry)


def _sigmoid(x: jax.Array) -> jax.Array:
    # XLA vectorises tanh on every backend; one tanh is cheaper than exp and a division.
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)
