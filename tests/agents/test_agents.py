"""Torsos and action distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.agents.networks import CNN, MLP, Table
from metadisco.envs.base import Box, Discrete, EnvSpec

IMAGE = EnvSpec(Box((4, 4, 3)), Discrete(5))
INDEX = EnvSpec(Discrete(6), Discrete(5))
HEADS = (("logits", 5), ("y", 3))


@pytest.mark.parametrize(
    ("torso", "spec"), [(Table(), INDEX), (MLP((8,)), INDEX), (MLP((8,)), IMAGE), (CNN((4,), (8,)), IMAGE)]
)
def test_outputs_keep_the_leading_axes_of_the_observations(torso, spec):
    agent = Agent(torso, spec, HEADS)
    params = agent.init(jax.random.key(0))
    shape = (2, 3)
    obs = jnp.ones(shape, jnp.int32) if spec is INDEX else jnp.ones((*shape, 4, 4, 3))
    outputs = agent.apply(params, obs)
    assert {name: output.shape for name, output in outputs.items()} == {"logits": (2, 3, 5), "y": (2, 3, 3)}
    alone = agent.apply(params, obs[1, 2])
    np.testing.assert_allclose(alone["y"], outputs["y"][1, 2], rtol=1e-5, atol=1e-6)


def test_a_table_is_a_lookup():
    table = {"logits": jnp.arange(30.0).reshape(6, 5)}
    assert Table().apply(table, jnp.array([4]))["logits"].tolist() == [[20, 21, 22, 23, 24]]


def test_a_fresh_network_is_nearly_indifferent():
    agent = Agent(MLP(), IMAGE, HEADS)
    logits = agent.apply(agent.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (50, 4, 4, 3)))["logits"]
    entropy = distributions.entropy_categorical(logits)
    assert jnp.all(entropy > 0.99 * jnp.log(5.0))


def test_actions_follow_their_probabilities():
    logits = jnp.array([0.0, 1.0, -1.0, 2.0])
    uniform = jax.random.uniform(jax.random.key(0), (20_000,))
    action, log_prob = distributions.sample_categorical(uniform, jnp.broadcast_to(logits, (20_000, 4)))
    probs = np.asarray(jax.nn.softmax(logits), np.float64)
    counts = np.bincount(action, minlength=4)
    assert stats.chisquare(counts, 20_000 * probs / probs.sum()).pvalue > 0.001
    np.testing.assert_allclose(log_prob, np.log(probs)[action], rtol=1e-4)


def test_the_largest_uniform_number_gives_a_legal_action():
    action, _ = distributions.sample_categorical(jnp.float32(1.0 - 2.0**-24), jnp.array([0.0, 0.0, -100.0]))
    assert 0 <= action <= 2


def test_entropy_and_kl_equal_their_sums():
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.1, 0.8])
    np.testing.assert_allclose(distributions.entropy_categorical(jnp.log(p)), -np.sum(p * np.log(p)), rtol=1e-5)
    np.testing.assert_allclose(
        distributions.kl_categorical(jnp.log(p), jnp.log(q)), np.sum(p * np.log(p / q)), rtol=1e-5
    )


@pytest.mark.parametrize("make", [lambda: MLP(()), lambda: MLP((0,)), lambda: CNN((0,))])
def test_empty_or_zero_widths_are_refused(make):
    with pytest.raises(ValueError, match="positive integers"):
        make()


def test_heads_must_fit_the_action_space():
    with pytest.raises(ValueError, match="heads must hold"):
        Agent(Table(), INDEX, (("logits", 4),))
    with pytest.raises(ValueError, match="discrete action spaces"):
        Agent(Table(), EnvSpec(Discrete(3), Box((2,))), HEADS)
