"""A recurrent network over a rollout, backward in time, with a hand-written derivative.

Forward, the input projection and the output are inside the scan over time: the arrays of one step stay in the cache.
Derived automatically, the backward pass would add to the gradients of the weights at each step, which costs more
memory traffic than arithmetic. Here the residuals of all steps are kept, and each weight takes one large product at the
end.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.lowrank import project

Weights = Any  # gru: {input [F, 3H], input_bias [3H], recurrent [H, 3H], recurrent_bias [H]}, out [H, O], out_bias [O]


@struct.dataclass
class Gates:
    """Residuals of one step, for the derivative."""

    reset: jax.Array  # [B, H]
    update: jax.Array  # [B, H]
    candidate: jax.Array  # [B, H]
    from_carry: jax.Array  # [B, H], the candidate's part of h U, with its bias


@jax.custom_vjp
def read_backward(weights: Weights, x: jax.Array, keeps: jax.Array) -> jax.Array:
    """Run a gated recurrent unit from the last step to the first: out_t = relu(h_t) W + b.

    Args:
        weights: see `Weights`; matrices may be low-rank where nothing is differentiated.
        x: [T, B, F].
        keeps: [T, B], 1 where the carry goes on to this step from the next, 0 where an episode ended. Constant: no
            gradient passes.

    Returns:
        [T, B, O].
    """

    def step(carry: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, keep = now
        carry, _ = _cell(weights["gru"], x, jnp.where(keep[:, None] > 0, carry, 0.0))
        return carry, project(weights["out"], jax.nn.relu(carry)) + weights["out_bias"]

    return jax.lax.scan(step, _first(weights, x), (x, keeps), reverse=True)[1]


def _forward(weights: Weights, x: jax.Array, keeps: jax.Array) -> tuple[jax.Array, tuple]:
    """As `read_backward`, with the residuals."""

    def step(carry: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple]:
        x, keep = now
        carry, gates = _cell(weights["gru"], x, jnp.where(keep[:, None] > 0, carry, 0.0))
        return carry, (carry, gates)

    hidden, gates = jax.lax.scan(step, _first(weights, x), (x, keeps), reverse=True)[1]
    return jax.nn.relu(hidden) @ weights["out"] + weights["out_bias"], (weights, x, keeps, hidden, gates)


def _backward(kept: tuple, d_out: jax.Array) -> tuple[Weights, jax.Array, jax.Array]:
    """Gradients of the weights, of x, and 0."""
    weights, x, keeps, hidden, gates = kept
    width = hidden.shape[-1]
    came_in = jnp.concatenate([hidden[1:], jnp.zeros_like(hidden[:1])])  # what came in is what the next step gave
    carries = jnp.where(keeps[..., None] > 0, came_in, 0.0)
    d_hidden = jnp.where(hidden > 0, d_out @ weights["out"].T, 0.0)

    def step(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
        d_carry, d_input, d_input_bias, d_recurrent_bias = carry
        x, keep, h, d_hidden, gates = now
        d_hidden = d_hidden + d_carry
        d_candidate = d_hidden * (1.0 - gates.update) * (1.0 - jnp.square(gates.candidate))
        d_update = d_hidden * (h - gates.candidate) * gates.update * (1.0 - gates.update)
        d_reset = d_candidate * gates.from_carry * gates.reset * (1.0 - gates.reset)
        d_gates = jnp.concatenate([d_reset, d_update], axis=-1)
        d_products = jnp.concatenate([d_gates, d_candidate * gates.reset], axis=-1)
        d_inputs = jnp.concatenate([d_gates, d_candidate], axis=-1)
        d_carry = d_hidden * gates.update + d_products @ weights["gru"]["recurrent"].T
        carry = (
            jnp.where(keep[:, None] > 0, d_carry, 0.0),
            d_input + x.T @ d_inputs,
            d_input_bias + jnp.sum(d_inputs, axis=0),
            d_recurrent_bias + jnp.sum(d_products[:, 2 * width :], axis=0),
        )
        return carry, (d_products, d_inputs @ weights["gru"]["input"].T)

    names = ("input", "input_bias", "recurrent_bias")  # small enough to add up on the way
    begin = jnp.zeros_like(hidden[0]), *(jnp.zeros_like(weights["gru"][name]) for name in names)
    (_, *sums), (d_products, d_x) = jax.lax.scan(step, begin, (x, keeps, carries, d_hidden, gates))
    d_weights = {
        "gru": dict(zip(names, sums, strict=True)) | {"recurrent": _product(carries, d_products)},
        "out": _product(jax.nn.relu(hidden), d_out),
        "out_bias": jnp.sum(d_out, axis=(0, 1)),
    }
    return d_weights, d_x, jnp.zeros_like(keeps)


read_backward.defvjp(_forward, _backward)


def _cell(weights: Weights, x: jax.Array, carry: jax.Array) -> tuple[jax.Array, Gates]:
    """Gated recurrent unit (arXiv:1406.1078, with the reset gate after the product).

    r, z = sigmoid(x W + h U); c = tanh(x W + r (h U + b)); h' = (1 - z) c + z h; blocks of W and U in this order.

    Args:
        weights: see `Weights`, `gru`.
        x: [B, F].
        carry: h, [B, H].

    Returns:
        h' [B, H], and the gates.
    """
    width = carry.shape[-1]
    from_input = project(weights["input"], x) + weights["input_bias"]
    products = project(weights["recurrent"], carry)
    gates = _sigmoid(from_input[:, : 2 * width] + products[:, : 2 * width])
    reset, update = gates[:, :width], gates[:, width:]
    from_carry = products[:, 2 * width :] + weights["recurrent_bias"]
    candidate = jnp.tanh(from_input[:, 2 * width :] + reset * from_carry)
    return candidate + update * (carry - candidate), Gates(reset, update, candidate, from_carry)


def _first(weights: Weights, x: jax.Array) -> jax.Array:
    """The carry before the last step. [B, H]."""
    return jnp.zeros((x.shape[1], weights["gru"]["recurrent_bias"].shape[-1]), x.dtype)


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Sum over steps and workers of outer products. [T, B, F] and [T, B, G] to [F, G]."""
    return jnp.einsum("tbf,tbg->fg", left, right)


def _sigmoid(x: jax.Array) -> jax.Array:
    # XLA vectorises tanh on every backend; one tanh is cheaper than exp and a division.
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)
