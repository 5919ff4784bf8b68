"""Environments that need one skill each: whoever fails one lacks that skill. Levels are not used."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from metadisco.agents.networks import Table
from metadisco.agents.optimizers import SGD
from metadisco.core.types import Task
from metadisco.envs.base import Box, Discrete, EnvSpec, Step
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop

YES, NO = jnp.bool_(True), jnp.bool_(False)


class _OneStep:
    """An episode is one step; what is observed is 0 or 1, at random."""

    spec = EnvSpec(Discrete(2), Discrete(2))

    def noise(self, key, shape):
        return jax.random.bernoulli(key, shape=shape).astype(jnp.int32)

    def reset(self, noise, level):
        return noise, noise

    def step(self, noise, state, action, level):
        return state, state, Step(self.reward(state, action), YES, NO)


@dataclass(frozen=True)
class ConstantReward(_OneStep):
    """Value: V = 1."""

    def reward(self, obs, action):
        return jnp.float32(1.0)


@dataclass(frozen=True)
class RewardByObservation(_OneStep):
    """Value of a state: V(0) = -1, V(1) = 1."""

    def reward(self, obs, action):
        return 2.0 * obs - 1.0


@dataclass(frozen=True)
class RewardByAction(_OneStep):
    """Policy: action 1."""

    def reward(self, obs, action):
        return 2.0 * action - 1.0


@dataclass(frozen=True)
class RewardByObservationAndAction(_OneStep):
    """Policy of a state: the action of the observation's number."""

    def reward(self, obs, action):
        return jnp.where(action == obs, 1.0, -1.0)


@dataclass(frozen=True)
class RewardNearHalf(_OneStep):
    """Continuous policy: action 0.5. Actions within [-4, 4]."""

    spec = EnvSpec(Discrete(2), Box((1,), -4.0, 4.0))

    def reward(self, obs, action):
        return -jnp.square(action[0] - 0.5)


@dataclass(frozen=True)
class VectorRewardNearHalf(RewardNearHalf):
    """The same, observed as a vector of two numbers."""

    spec = EnvSpec(Box((2,)), Box((1,), -4.0, 4.0))

    def reset(self, noise, level):
        return jax.nn.one_hot(noise, 2), noise

    def step(self, noise, state, action, level):
        return jax.nn.one_hot(state, 2), state, Step(self.reward(state, action), YES, NO)


@dataclass(frozen=True)
class DelayedReward:
    """Credit and discount: two steps, the second pays 1. V(1) = 1, V(0) = gamma."""

    spec = EnvSpec(Discrete(2), Discrete(2))

    def noise(self, key, shape):
        return jnp.zeros(shape)

    def reset(self, noise, level):
        return jnp.int32(0), jnp.int32(0)

    def step(self, noise, state, action, level):
        return jnp.int32(1), jnp.int32(1), Step(state.astype(jnp.float32), state == 1, NO)


@dataclass(frozen=True)
class LongWalk:
    """Exploration: only the last of 16 places pays, and every step to the left leads back to the first."""

    spec = EnvSpec(Discrete(16), Discrete(2))

    def noise(self, key, shape):
        return jnp.zeros(shape)

    def reset(self, noise, level):
        return jnp.int32(0), jnp.int32(0)

    def step(self, noise, state, action, level):
        state = jnp.where(action == 1, state + 1, 0)
        arrives = state == 15
        return state, state, Step(arrives.astype(jnp.float32), arrives, NO)


def inner_loop(env, objective, learner=Learner(SGD(2.0), SGD(1.0)), torso=Table(), **options):
    settings = {"num_workers": 16, "num_steps": 4, "num_test_workers": 1} | options
    return InnerLoop(env, torso, objective, learner, **settings)


@partial(jax.jit, static_argnums=0)
def begin(inner, lifetime=100):
    return inner.begin(jax.random.key(0), Task(jnp.zeros(()), jnp.int32(lifetime)))


def learn(inner, num_updates=100, meta_params=()):
    """The life after `num_updates` updates, and the metrics of each."""

    @jax.jit
    def run(meta_params, life):
        return jax.lax.scan(lambda life, _: inner.update(meta_params, life), life, None, length=num_updates)

    return run(meta_params, begin(inner, num_updates))


def outputs(inner, life, obs=(0, 1)):
    """What the agent says to each observation, by head."""
    obs = jnp.array(obs) if isinstance(inner.env.spec.observation, Discrete) else jnp.eye(2)[jnp.array(obs)]
    return inner.agent.apply(life.agent_params, obs)
