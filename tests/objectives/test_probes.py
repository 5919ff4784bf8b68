"""Hand-written algorithms on environments that need one skill each."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import SGD, Adam
from metadisco.lives.learner import Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.drift import DPODrift, LPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from tests.support import probes

ALGORITHMS = {
    "A2C": (A2C(gamma=0.5), Learner(SGD(5.0), SGD(1.0))),
    "PPO": (PPO(gamma=0.5), Learner(SGD(2.0), SGD(1.0), num_epochs=2, num_minibatches=2)),
}
every_algorithm = pytest.mark.parametrize(("objective", "learner"), ALGORITHMS.values(), ids=ALGORITHMS)


def _learned(env, objective, learner, **options):
    inner = probes.inner_loop(env, objective, learner, **options)
    return probes.outputs(inner, probes.learn(inner)[0])


@every_algorithm
def test_the_value_of_a_constant_reward_is_learned(objective, learner):
    value = _learned(probes.ConstantReward(), objective, learner)["value"][:, 0]
    np.testing.assert_allclose(value, 1.0, atol=0.02)


@every_algorithm
def test_the_value_depends_on_the_observation(objective, learner):
    value = _learned(probes.RewardByObservation(), objective, learner)["value"][:, 0]
    np.testing.assert_allclose(value, [-1.0, 1.0], atol=0.02)


@every_algorithm
def test_a_delayed_reward_is_discounted(objective, learner):
    value = _learned(probes.DelayedReward(), objective, learner)["value"][:, 0]
    np.testing.assert_allclose(value, [0.5, 1.0], atol=0.05)


@every_algorithm
def test_the_better_action_is_found(objective, learner):
    probs = jax.nn.softmax(_learned(probes.RewardByAction(), objective, learner)["logits"])
    assert jnp.all(probs[:, 1] > 0.9)


@every_algorithm
def test_the_better_action_of_each_observation_is_found(objective, learner):
    probs = jax.nn.softmax(_learned(probes.RewardByObservationAndAction(), objective, learner)["logits"])
    assert jnp.all(jnp.diag(probs) > 0.9)


@pytest.mark.parametrize("drift", [DPODrift(), LPODrift(width=8)])
def test_other_drifts_learn_too(drift):
    objective = MirrorLearning(drift)
    learner = ALGORITHMS["PPO"][1]
    inner = probes.inner_loop(probes.RewardByObservationAndAction(), objective, learner)
    life, _ = probes.learn(inner, meta_params=objective.init(jax.random.key(0)))
    assert jnp.all(jnp.diag(jax.nn.softmax(probes.outputs(inner, life)["logits"])) > 0.9)


@every_algorithm
def test_a_continuous_action_is_found_by_a_table(objective, learner):
    outputs = _learned(probes.RewardNearHalf(), objective, replace(learner, policy=SGD(0.1)))
    np.testing.assert_allclose(outputs["mean"], 0.5, atol=0.15)
    assert jnp.all(outputs["log_std"] < -0.5)


def test_a_continuous_action_is_found_by_a_network():
    learner = Learner(Adam(0.01), Adam(0.01), num_epochs=4, num_minibatches=2)
    outputs = _learned(probes.VectorRewardNearHalf(), PPO(), learner, torso=MLP((8,)))
    np.testing.assert_allclose(outputs["mean"], 0.5, atol=0.15)
    assert jnp.all(outputs["log_std"] < -0.5)
