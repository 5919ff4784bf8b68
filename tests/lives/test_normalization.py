"""Normalisation of what an agent sees."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import pytest

from metadisco.agents import distributions
from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import Adam
from metadisco.core.types import Trajectory
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.lives.learner import Learner
from metadisco.lives.normalization import Normalizer, include, no_moments
from metadisco.objectives.mirror_learning import PPO
from tests.support import probes

VECTORS = EnvSpec(Box((3,)), Discrete(2))


def rollout(seed=0, num_steps=7, num_workers=4):
    """Random experience of large and shifted scale."""
    rng = np.random.default_rng(seed)
    obs = rng.normal([5.0, -100.0, 0.0], [1.0, 30.0, 1e-3], (num_steps, num_workers, 3)).astype(np.float32)
    ends = rng.random((2, num_steps, num_workers)) < 0.2
    reward = rng.normal(3.0, 20.0, (num_steps, num_workers)).astype(np.float32)
    action = np.zeros((num_steps, num_workers), np.int32)
    log_prob, next_obs = np.zeros(action.shape, np.float32), obs + np.float32(1.0)
    return Trajectory(obs, action, log_prob, reward, ends[0], ends[1] & ~ends[0], next_obs)


observe = jax.jit(lambda normalizer, state, obs: normalizer.observe(state, obs), static_argnums=0)
perceive = jax.jit(lambda normalizer, state, trajectory: normalizer.perceive(state, trajectory), static_argnums=0)


@partial(jax.jit, static_argnums=0)
def seen(normalizer, *trajectories):
    state = normalizer.init(VECTORS, num_workers=4)
    for trajectory in trajectories:
        state = normalizer.update(state, trajectory)
    return state


def test_moments_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(0).normal(1000.0, 3.0, (30, 4, 2)).astype(np.float32)

    @jax.jit
    def of_parts(*parts):
        moments = no_moments((2,))
        for part in parts:
            moments = include(moments, part)
        return moments.mean, moments.deviation

    mean, deviation = of_parts(*np.split(values, [1, 11]))
    np.testing.assert_allclose(mean, values.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(deviation, values.astype(np.float64).std((0, 1)), rtol=1e-4)


def test_deviation_is_one_of_what_never_varied():
    moments, more = no_moments(()), jax.jit(include)
    deviation = jax.jit(lambda moments: moments.deviation)
    assert float(deviation(moments)) == 1.0
    for _ in range(20):
        moments = more(moments, np.full((50, 3), 1000.1, np.float32))
    np.testing.assert_allclose(moments.mean, 1000.1, rtol=1e-6)
    assert float(deviation(moments)) == 1.0


def test_observations_seen_so_far_have_mean_zero_and_deviation_one():
    first, second = rollout(0), rollout(1)
    normalizer = Normalizer(clip=100.0)
    state = seen(normalizer, first, second)
    obs = np.concatenate([np.reshape(observe(normalizer, state, each.obs), (-1, 3)) for each in (first, second)])
    np.testing.assert_allclose(obs.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(obs.std(0), 1.0, rtol=1e-3)


def test_rewards_are_scaled_by_the_deviation_of_discounted_returns():
    first, second = rollout(0), rollout(1)
    so_far, running = [], np.zeros(4)
    for trajectory in (first, second):
        for reward, finished in zip(np.asarray(trajectory.reward), np.asarray(trajectory.finished), strict=True):
            running = reward + 0.9 * running
            so_far.append(running)
            running = np.where(finished, 0.0, running)
    normalizer = Normalizer(gamma=0.9)
    state = seen(normalizer, first, second)
    expected = np.clip(np.asarray(second.reward) / np.std(so_far), -10.0, 10.0)
    np.testing.assert_allclose(perceive(normalizer, state, second).reward, expected, rtol=1e-4)


def test_what_is_far_out_is_clipped():
    normalizer = Normalizer(clip=2.0)
    state = seen(normalizer, rollout())
    assert np.max(np.abs(observe(normalizer, state, np.full((1, 3), 1e6, np.float32)))) == 2.0


@pytest.mark.parametrize("change", [{"observations": False}, {"rewards": False}, {"gamma": 0.5}, {"clip": 0.5}])
def test_every_setting_matters(change):
    def perceived(normalizer):
        trajectory = perceive(normalizer, seen(normalizer, rollout()), rollout(1))
        return np.concatenate([np.ravel(trajectory.obs), np.ravel(trajectory.reward)])

    assert not np.allclose(perceived(Normalizer()), perceived(replace(Normalizer(), **change)))


@pytest.mark.parametrize("change", [{"gamma": 1.5}, {"clip": 0.0}, {"observations": False, "rewards": False}])
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match="Normalizer"):
        Normalizer(**change)


def test_an_index_cannot_be_normalized():
    with pytest.raises(ValueError, match="observations=False"):
        probes.inner_loop(probes.ConstantReward(), PPO(), normalizer=Normalizer())


@dataclass(frozen=True)
class Enlarged(probes.VectorRewardNearHalf):
    """Observations and rewards a thousand times as large."""

    def reset(self, noise, level):
        obs, state = super().reset(noise, level)
        return 1000.0 * obs, state

    def step(self, noise, state, action, level):
        obs, state, out = super().step(noise, state, action, level)
        return 1000.0 * obs, state, replace(out, reward=1000.0 * out.reward)


LEARNER = Learner(Adam(0.01), Adam(0.01), num_epochs=4, num_minibatches=2)


@pytest.fixture(scope="module")
def grown():
    """An agent that has learned in the enlarged environment, with a normalizer."""
    inner = probes.inner_loop(Enlarged(), PPO(), LEARNER, torso=MLP((8,)), normalizer=Normalizer())
    return inner, probes.learn(inner)[0]


def test_learning_does_not_depend_on_the_scale(grown):
    inner, life = grown
    obs = observe(inner.normalizer, life.normalizer, 1000.0 * np.eye(2, dtype=np.float32))
    outputs = jax.jit(inner.agent.apply)(life.agent_params, obs)
    np.testing.assert_allclose(outputs["mean"], 0.5, atol=0.15)
    assert np.all(np.asarray(outputs["log_std"]) < -0.5)


def test_an_agent_learns_from_what_it_saw_when_it_acted(grown):
    inner, life = grown

    @jax.jit
    def log_probs(life):
        _, update_batch, _ = inner.learn((), life)
        outputs = inner.agent.apply(life.agent_params, update_batch.trajectory.obs)
        return distributions.log_prob(outputs, update_batch.trajectory.action), update_batch.trajectory.log_prob

    log_prob, when_it_acted = log_probs(life)
    np.testing.assert_allclose(log_prob, when_it_acted, atol=1e-5)  # so the ratio begins at 1


def test_fitness_and_the_reported_reward_are_those_of_the_environment(grown):
    inner, life = grown

    @jax.jit
    def rewards(life):
        policy = inner.agent.init(jax.random.key(0))  # of mean about 0 and deviation 1
        life = replace(life, agent_params=policy)
        returns = inner.evaluate(jax.tree.map(lambda leaf: leaf[None], life), slots=1)
        return inner.update((), life)[1]["reward"], returns.mean()

    for reward in rewards(life):
        assert -6000.0 < float(reward) < -20.0  # -1000 (a - 1/2)^2


def test_a_life_without_a_normalizer_has_no_state_of_it():
    assert probes.begin(probes.inner_loop(probes.ConstantReward(), PPO())).normalizer is None
