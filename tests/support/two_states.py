"""The smallest problem with something to learn, and an objective that hides nothing from a derivative."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metadisco.agents import distributions
from metadisco.agents.networks import Table
from metadisco.agents.optimizers import SGD
from metadisco.core.types import Task
from metadisco.envs.base import Discrete, EnvSpec, Step
from metadisco.lives.critic import Critic
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop


@dataclass(frozen=True)
class TwoStates:
    """An action leads to the state of its number; leaving a state pays what the level says."""

    spec = EnvSpec(Discrete(2), Discrete(2))

    def noise(self, key, shape):
        return jax.random.uniform(key, shape)

    def reset(self, noise, level):
        return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)

    def step(self, noise, state, action, level):
        return action, action, Step(level[state] + 0.5 * level[action], noise < 0.1, (noise >= 0.1) & (noise < 0.2))


@dataclass(frozen=True)
class Linear:
    """pi_hat and y_hat are linear in what an agent shows, which is not held constant."""

    def heads(self, spec):
        return {"logits": spec.num_actions, "y": 2}

    def init(self, key):
        return {"w": jnp.array([1.0, -0.7, 0.4, 0.3])}

    def targets(self, meta_params, predictions, trajectory, progress):
        w, y = meta_params["w"], jax.nn.softmax(predictions.now["y"])[..., 0]
        prob = jnp.exp(distributions.log_prob_categorical(predictions.now["logits"], trajectory.action))
        return w[0] * trajectory.reward + w[1] * prob + w[2] * y, jnp.tanh(w[3] * trajectory.reward + w[2] * prob)

    def loss(self, meta_params, targets, outputs, trajectory, progress):
        log_prob = distributions.log_prob_categorical(outputs["logits"], trajectory.action)
        square = jnp.square(jax.nn.softmax(outputs["y"])[..., 0] - targets[1])
        return jnp.mean(-log_prob * targets[0] + square), {}

    def regularizers(self, targets, outputs):
        return {
            "prediction_entropy": jnp.mean(distributions.entropy_categorical(outputs["y"])),
            "squared_pi_hat": jnp.mean(jnp.square(targets[0])),
            "squared_y_hat": jnp.mean(jnp.square(targets[1])),
        }


def inner_loop(objective=Linear(), learner=Learner(SGD(2.0, 0.5), SGD(1.0, 0.5)), **options):
    settings = {"num_workers": 4, "num_steps": 6, "num_test_workers": 2, "critic": Critic()} | options
    return InnerLoop(TwoStates(), Table(), objective, learner, **settings)


def task(lifetime=20):
    return Task(jnp.array([0.2, 1.0]), jnp.asarray(lifetime, jnp.int32))
