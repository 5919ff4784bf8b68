"""The smallest problem with something to learn, and an objective that hides nothing from a derivative."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.agents import distributions
from metadisco.agents.networks import Table
from metadisco.agents.optimizers import SGD
from metadisco.core.jax_defaults import follow_process
from metadisco.core.types import Task
from metadisco.envs.base import Discrete, EnvSpec, Step
from metadisco.lives.critic import Critic
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from tests.support import traced


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

    def init_state(self, key, agent, agent_params, num_workers):
        return ()

    def targets(self, meta_params, state, predictions, trajectory, progress):
        w, y = meta_params["w"], jax.nn.softmax(predictions.now["y"])[..., 0]
        prob = jnp.exp(distributions.log_prob_categorical(predictions.now["logits"], trajectory.action))
        pi_hat, y_hat = w[0] * trajectory.reward + w[1] * prob + w[2] * y, w[3] * trajectory.reward + w[2] * prob
        return (pi_hat, jnp.tanh(y_hat)), state

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


@partial(jax.jit, static_argnums=0)
def params_after_updates(inner, num_updates=3, values=None):
    """The parameters of an agent that has done so many updates. Settings in `values` are arguments of the program."""
    inner = traced.with_values(inner, values or {})
    meta_params = inner.objective.init(jax.random.key(0))
    life = inner.begin(jax.random.key(0), task())
    return jax.lax.fori_loop(0, num_updates, lambda _, life: inner.update(meta_params, life)[0], life).agent_params


def assert_different(one, other):
    """Agents of two inner loops learn something else."""
    left, right = params_after_updates(one), params_after_updates(other)
    assert _differ(left, right)


def assert_matters(inner, path, value, known):
    """Agents learn something else where a number is another one; `known` are the numbers that have the same program."""
    known = traced.values_of(inner, known)
    left, right = (params_after_updates(inner, values=values) for values in (known, known | {path: value}))
    assert _differ(left, right)


def _differ(left, right):
    return any(np.any(np.asarray(left[name]) != right[name]) for name in left)


def check_slope(inner, meta_params, unroll):
    """Compare the meta-gradient of an unroll with central differences along random directions, in float64."""
    with jax.enable_x64(True), follow_process():
        meta_params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), meta_params)
        pair = jax.jit(lambda: unroll.begin(inner, jax.random.key(0), task()))()
        loss_fn = jax.jit(lambda meta_params: unroll.advance(inner, meta_params, pair)[0])
        gradient = jax.jit(jax.grad(loss_fn))(meta_params)
        rng = np.random.default_rng(0)
        for _ in range(4):
            direction = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), meta_params)
            above, below = (
                loss_fn(jax.tree.map(lambda m, d: np.asarray(m) + step * d, meta_params, direction))  # noqa: B023
                for step in (1e-6, -1e-6)
            )
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), gradient, direction)))
            assert abs(slope) > 1e-5
            np.testing.assert_allclose((above - below) / 2e-6, slope, rtol=1e-5, atol=1e-9)
