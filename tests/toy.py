"""Toy trainers for the host loop, and a look at what a run of them left behind."""

import io
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from rich.console import Console

from metadisco import loop
from metadisco.files import write_atomically


@struct.dataclass
class ToyState:
    step: jax.Array  # [] int32
    weights: jax.Array  # [8, 8] float32
    momentum: jax.Array  # [8, 8] float32
    key: jax.Array  # [] key
    empty: jax.Array  # [0, 3] float32


@dataclass(frozen=True)
class Toy:
    """A chaotic recurrence, so that one different bit becomes a different result."""

    num_steps: int = 40
    rate: float = 0.1
    fails_at: int = -1

    def init(self, key):
        weights_key, key = jax.random.split(key)
        weights = jax.random.normal(weights_key, (8, 8))
        return ToyState(jnp.int32(0), weights, jnp.zeros((8, 8)), key, jnp.zeros((0, 3)))

    def step(self, key, state):
        noise = jax.random.normal(key, (8, 8)) + 0.1 * jax.random.normal(state.key, (8, 8))
        momentum = 0.9 * state.momentum + jnp.tanh(3.0 * state.weights @ state.weights + noise)
        weights = state.weights - self.rate * momentum
        metrics = {
            "fitness": jnp.mean(weights),
            "agent_updates": jnp.float32(10.0),
            "env_steps": 7.0 + 3.0 * (state.step % 2).astype(jnp.float32),
            "finite_fraction": jnp.where(state.step == self.fails_at, 0.0, 1.0),
        }
        key = jax.random.split(state.key, 1)[0]
        return ToyState(state.step + 1, weights, momentum, key, state.empty), metrics


@dataclass(frozen=True)
class Slow:
    """Its first meta-step is quick, each later one takes a minute or more."""

    num_steps: int = 3

    def init(self, key):
        return Toy().init(key)

    def step(self, key, state):
        def spin(_, weights):
            return jnp.tanh(weights @ weights)

        weights = jax.lax.fori_loop(0, jnp.where(state.step == 0, 1, 10**9), spin, state.weights)
        return state.replace(step=state.step + 1, weights=weights), {"fitness": jnp.mean(weights)}


LONG, SLOW = Toy(num_steps=5000), Slow()


def quiet():
    return Console(file=io.StringIO(), width=200)


def run(trainer, out, **options):
    return loop.run(trainer, out, **({"seed": 3, "console": quiet()} | options))


def leave_weights(folder, state):
    """A snapshot: a file with the weights of a state."""
    path = folder / "snapshots" / f"{int(state.step)}"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, np.asarray(state.weights).tobytes())


def snapshots(out):
    """Meta-step -> what was left of it."""
    return {int(path.name): path.read_bytes() for path in (out / "snapshots").iterdir()}


def bits(state):
    leaves = jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def steps_logged(out):
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def numbers_logged(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
