"""An objective that remembers in every way that there is, with arithmetic that is exact, and who it lives with."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.core.types import Task
from metadisco.objectives.base import predict
from tests.support import two_states


@struct.dataclass
class Memory:
    count: jax.Array  # [] int32, updates
    mean: jax.Array  # [] float32, moving average of the mean reward
    total: jax.Array  # [B] float32, reward of each worker
    slow: dict  # the agent's parameters, followed slowly
    key: jax.Array  # [] key, of the noise


@dataclass(frozen=True)
class Remembering:
    """Reinforces what pays more than a moving average, and what a target network prefers."""

    features = ("reward",)

    def heads(self, spec):
        return {"logits": spec.num_actions}

    def init(self, key):
        return {
            "rate": jnp.array(0.5, jnp.float32),
            "weight": jnp.array([1.0, 0.1]) + 0.01 * jax.random.normal(key, (2,)),
        }

    def init_state(self, key, agent, agent_params, num_workers):
        return Memory(jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(num_workers), agent_params, key)

    def targets(self, meta_params, state, predictions, trajectory, progress):
        reward, weight = trajectory.reward, meta_params["weight"]
        mean = state.mean + meta_params["rate"] * (jnp.mean(reward) - state.mean)
        total = state.total + jnp.sum(reward, axis=0)
        slow = predict(predictions.agent, state.slow, trajectory).now["logits"]
        preference = distributions.log_prob_categorical(slow, trajectory.action)
        noise = 0.01 * jax.random.normal(jax.random.fold_in(state.key, state.count), reward.shape)
        pi_hat = weight[0] * (reward - mean) + weight[1] * preference + 0.1 * jnp.tanh(total) + noise
        slow = jax.tree.map(lambda old, new: old + 0.5 * (new - old), state.slow, predictions.agent_params)
        return pi_hat, Memory(state.count + 1, mean, total, slow, state.key)

    def loss(self, meta_params, targets, outputs, trajectory, progress):
        return -jnp.mean(targets * distributions.log_prob_categorical(outputs["logits"], trajectory.action)), {}


def inner_loop(**options):
    """Sixteen rewards per update, each a multiple of 1/8: a moving average at rate 1/2 has no rounding."""
    return two_states.inner_loop(Remembering(), **({"num_steps": 4, "num_workers": 4} | options))


def tasks(lifetimes):
    return Task(jnp.tile(jnp.array([0.25, 1.0]), (len(lifetimes), 1)), jnp.array(lifetimes, jnp.int32))


@dataclass(frozen=True)
class ShortLives:
    """Tasks of one to five updates."""

    def sample(self, key):
        return jax.tree.map(lambda leaf: leaf[0], tasks([1])).replace(lifetime=jax.random.randint(key, (), 1, 6))
