"""Toy trainers for the host loop, and a look at what a run of them left behind."""

import io
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from rich.console import Console

from metadisco.core.files import write_atomically
from metadisco.core.sharding import SHARED, SPREAD, population_mesh, scatter, sharded_sum
from metadisco.runs import loop, trackers
from metadisco.runs.hooks import Measurement, Snapshot


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


@struct.dataclass
class SpreadState:
    step: jax.Array  # [] int32
    weights: jax.Array  # [8] float32
    lives: jax.Array  # [16, 8] float32, spread over devices
    keys: jax.Array  # [16] keys, likewise


@dataclass(frozen=True)
class Spread:
    """A toy on many devices: a population by evolution, and lives that last by gradients."""

    num_steps: int = 20

    def layout(self, num_devices):
        return SpreadState(step=SHARED, weights=SHARED, lives=SPREAD, keys=SPREAD)

    def init(self, key):
        keys = jax.random.split(key, 16)
        return SpreadState(jnp.int32(0), jax.random.normal(key, (8,)), jax.vmap(_noise)(keys), keys)

    def step(self, key, state):
        mesh = population_mesh()
        noise = jax.random.normal(key, (16, 8))
        fitness = scatter(
            lambda population, lives: jnp.sum(jnp.sin(3.0 * population + lives), axis=1),
            state.weights + 0.1 * noise,
            state.lives,
            work=jnp.arange(16.0) % 5.0,
            mesh=mesh,
        )
        gradient, lives = sharded_sum(_advance, state.weights, (state.lives, state.keys), slots=4, mesh=mesh)
        weights = state.weights + 0.1 * (fitness - jnp.mean(fitness)) @ noise / 16 - 0.01 * gradient / 16
        return state.replace(step=state.step + 1, weights=weights, lives=lives), {"fitness": jnp.mean(fitness)}


def _noise(key):
    return jax.random.normal(key, (8,))


def _advance(weights, item):
    life, key = item
    return jnp.tanh(weights * life), 0.9 * life + 0.1 * jnp.sin(weights) + 0.1 * _noise(key)


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


LONG, SLOW, SPREAD_OUT = Toy(num_steps=5000), Slow(), Spread()


def quiet():
    return Console(file=io.StringIO(), width=200)


def run(trainer, out, hooks=(), *, track=(trackers.tensorboard,), console=None, **options):
    options = loop.RunOptions(**({"seed": 3} | options))
    return loop.run(trainer, out, options, hooks, track=track, console=console or quiet())


def validation(function, every):
    """Measurements as a discovery has them."""
    return Measurement("validation", every, function)


def weights_every(every):
    """Snapshots of the weights."""
    return Snapshot("weights", every, leave_weights)


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
