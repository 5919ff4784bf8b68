"""Torsos and action distributions."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.agents.networks import CNN, MLP, Separate, Swish, Table, Tanh, convolve, orthogonal
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import PPO
from tests.support import probes

IMAGE = EnvSpec(Box((4, 4, 3)), Discrete(5))
INDEX = EnvSpec(Discrete(6), Discrete(5))
HEADS = (("logits", 5), ("y", 3))
CONTINUOUS = EnvSpec(Box((3,)), Box((2,)))
GAUSSIAN = (("mean", 2), ("log_std", 2), ("value", 1))


@pytest.mark.parametrize(
    ("torso", "spec"), [(Table(), INDEX), (MLP((8,)), INDEX), (MLP((8,)), IMAGE), (CNN((4,), (8,)), IMAGE)]
)
def test_outputs_keep_the_leading_axes_of_the_observations(torso, spec):
    agent = Agent(torso, spec, HEADS)
    shape = (2, 3)
    obs = np.ones(shape, np.int32) if spec is INDEX else np.ones((*shape, 4, 4, 3), np.float32)

    @jax.jit
    def both():
        params = agent.init(jax.random.key(0))
        return agent.apply(params, jnp.asarray(obs)), agent.apply(params, jnp.asarray(obs[1, 2]))

    outputs, alone = jax.device_get(both())
    assert {name: output.shape for name, output in outputs.items()} == {"logits": (2, 3, 5), "y": (2, 3, 3)}
    np.testing.assert_allclose(alone["y"], outputs["y"][1, 2], rtol=1e-5, atol=1e-6)


def test_a_table_is_a_lookup():
    table = {"logits": jnp.arange(30.0).reshape(6, 5)}
    assert Table().apply(table, jnp.array([4]))["logits"].tolist() == [[20, 21, 22, 23, 24]]


def test_a_fresh_network_is_nearly_indifferent():
    agent = Agent(MLP(), IMAGE, HEADS)
    obs = np.random.default_rng(1).normal(size=(50, 4, 4, 3)).astype(np.float32)

    @jax.jit
    def entropies():
        return distributions.entropy_categorical(agent.apply(agent.init(jax.random.key(0)), obs)["logits"])

    assert np.all(np.asarray(entropies()) > 0.99 * np.log(5.0))


def test_actions_follow_their_probabilities():
    logits = np.array([0.0, 1.0, -1.0, 2.0], np.float32)

    @jax.jit
    def sample():
        uniform = jax.random.uniform(jax.random.key(0), (20_000,))
        return distributions.sample_categorical(uniform, jnp.broadcast_to(logits, (20_000, 4)))

    action, log_prob = sample()
    probs = np.exp(logits, dtype=np.float64) / np.exp(logits, dtype=np.float64).sum()
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


@pytest.mark.parametrize("activation", [Tanh(), Swish()])
def test_activations_of_an_mlp_follow_each_hidden_layer(activation):
    torso = MLP((8,), activation)

    @jax.jit
    def begin_and_apply():
        params = torso.init(jax.random.key(0), INDEX, {"logits": 5})
        return params, torso.apply(params, jnp.array([2]))["logits"]

    params, logits = jax.device_get(begin_and_apply())
    (layer,) = params["torso"]
    x = np.eye(6)[[2]] @ layer["kernel"] + layer["bias"]
    hidden = {Tanh(): np.tanh(x), Swish(): x / (1.0 + np.exp(-x))}[activation]
    np.testing.assert_allclose(logits, hidden @ params["logits"]["kernel"], atol=1e-6)


def test_a_convolution_equals_that_of_xla():
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 4, 3), (3, 3, 3, 6)))
    expected = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(jax.jit(convolve)(x, kernel), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (64, 64), (5, 1)])
def test_orthogonal_matrices_are_orthonormal_along_the_shorter_side(shape):
    matrix = np.asarray(jax.jit(lambda: orthogonal(jax.random.key(0), shape, 2.0))(), np.float64)
    gram = matrix @ matrix.T if shape[0] < shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, 4.0 * np.eye(min(shape)), atol=1e-4)


def test_orthogonal_matrices_are_uniform():
    """The first entry of a uniform unit vector of three entries is uniform in [-1, 1]."""
    make = jax.vmap(lambda key: orthogonal(key, (3, 2), 1.0))
    matrices = np.asarray(jax.jit(lambda: make(jax.random.split(jax.random.key(0), 2000)))())
    for row, column in ((0, 0), (2, 1)):
        assert stats.kstest(matrices[:, row, column], stats.uniform(-1.0, 2.0).cdf).pvalue > 0.001
    assert abs(np.mean(matrices[:, 0, 0] * matrices[:, 1, 1])) < 0.03


BEGIN_MANY = """
import jax
from metadisco.agents.agent import Agent
from metadisco.agents.networks import MLP, Separate
from metadisco.envs.base import Box, EnvSpec

agent = Agent(Separate(MLP((64, 64)), MLP((64, 64))), EnvSpec(Box((3,)), Box((2,))), (("mean", 2), ("log_std", 2)))
params = jax.jit(jax.vmap(agent.init))(jax.random.split(jax.random.key(0), 2))
assert params["mean"]["kernel"].shape == (2, 64, 2)
"""


def test_many_agents_begin_at_once():
    """Several decompositions by LAPACK in one program, each of a batch, would wait for each other forever.

    In a process of its own: a wait inside LAPACK cannot be interrupted, but its process can be killed.
    """
    subprocess.run([sys.executable, "-c", BEGIN_MANY], check=True, timeout=100, cwd=Path(__file__).parents[2])


def test_separate_networks_share_nothing():
    torso = Separate(MLP((8,)), CNN((4,), (8,)))
    agent = Agent(torso, IMAGE, (("logits", 5), ("value", 1)))
    params, obs = jax.jit(agent.init)(jax.random.key(0)), jnp.ones((2, 4, 4, 3))

    def reached(head):
        slope = jax.grad(lambda params: jnp.sum(jnp.square(1.0 + agent.apply(params, obs)[head])))
        slopes = jax.jit(slope)(params)
        return {name for name, tree in slopes.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))}

    assert reached("logits") == {"torso", "logits"}
    assert reached("value") == {"prediction_torso", "value"}


def test_separate_networks_do_not_nest():
    with pytest.raises(ValueError, match="not Separate themselves"):
        Separate(MLP(), Separate(MLP(), MLP()))


def test_heads_must_fit_the_action_space():
    with pytest.raises(ValueError, match="heads must hold"):
        Agent(Table(), INDEX, (("logits", 4),))
    with pytest.raises(ValueError, match="discrete action spaces"):
        Agent(Table(), EnvSpec(Discrete(3), Box((2,))), HEADS)


def test_heads_of_a_gaussian_must_be_there():
    with pytest.raises(ValueError, match="heads must hold"):
        Agent(MLP(), CONTINUOUS, (("mean", 2), ("value", 1)))
    with pytest.raises(ValueError, match="must be vectors"):
        Agent(MLP(), EnvSpec(Box((3,)), Box((2, 2))), GAUSSIAN)


@pytest.mark.parametrize("objective", [A2C(), PPO()])
def test_the_action_space_decides_the_distribution(objective):
    assert objective.heads(INDEX) == {"logits": 5, "value": 1}
    assert objective.heads(CONTINUOUS) == dict(GAUSSIAN)
    assert Agent(MLP(), CONTINUOUS, GAUSSIAN).distribution == distributions.Gaussian(2)
    assert Agent(Table(), INDEX, HEADS).distribution == distributions.Categorical(5)


def test_lpg_on_continuous_actions_is_refused_at_construction_with_the_reason():
    with pytest.raises(ValueError, match="LPG reads the probability of an action"):
        probes.inner_loop(probes.RewardNearHalf(), LPG(width=4))


def test_gaussian_actions_follow_their_density():
    mean, log_std = np.array([0.5, -2.0], np.float32), np.array([-1.0, 0.7], np.float32)
    agent = Agent(MLP(), CONTINUOUS, GAUSSIAN)

    @jax.jit
    def sample():
        noise = agent.noise(jax.random.key(0), (5000,))
        return noise, distributions.sample_gaussian(noise, jnp.asarray(mean), jnp.asarray(log_std))

    noise, (action, log_prob) = jax.device_get(sample())
    assert noise.shape == (5000, 2)
    for i in range(2):
        normal = stats.norm(float(mean[i]), float(np.exp(log_std[i])))
        assert stats.kstest(action[:, i], normal.cdf).pvalue > 0.001
    density = stats.norm(np.asarray(mean), np.exp(log_std)).logpdf(np.asarray(action)).sum(axis=1)
    np.testing.assert_allclose(log_prob, density, rtol=1e-4, atol=1e-4)


def test_gaussian_entropy_and_kl_equal_their_formulas():
    mean, log_std = jnp.array([0.5, -2.0]), jnp.array([-1.0, 0.7])
    other = jnp.array([0.0, -1.0]), jnp.array([0.2, 0.1])
    kl = jax.jit(distributions.kl_gaussian)

    @jax.jit
    def differences():
        action, log_prob = distributions.sample_gaussian(
            jax.random.normal(jax.random.key(0), (200_000, 2)), mean, log_std
        )
        return log_prob - distributions.log_prob_gaussian(*other, action)

    entropy = jax.jit(distributions.entropy_gaussian)(log_std)
    np.testing.assert_allclose(entropy, stats.norm(0.0, np.exp(log_std)).entropy().sum(), rtol=1e-5)
    np.testing.assert_allclose(kl(mean, log_std, *other), np.mean(differences()), rtol=0.02)
    np.testing.assert_allclose(kl(mean, log_std, mean, log_std), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "outputs"),
    [
        (distributions.Categorical(3), {"logits": jnp.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])}),
        (distributions.Gaussian(2), {"mean": jnp.array([[0.0, 1.0], [2.0, 3.0]]), "log_std": jnp.zeros((2, 2)) - 0.5}),
    ],
)
def test_every_family_keeps_the_contract(family, outputs):
    assert {name: output.shape[-1] for name, output in outputs.items()} == family.heads()
    assert distributions.of_outputs(outputs) == family

    @jax.jit
    def sample(outputs):
        action, log_prob = family.sample(family.noise(jax.random.key(0), (2,)), outputs)
        return log_prob, distributions.log_prob(outputs, action), distributions.entropy(outputs)

    log_prob, again, entropy = sample(outputs)
    np.testing.assert_allclose(again, log_prob, rtol=1e-6)
    assert entropy.shape == log_prob.shape == (2,)
    kl, other = jax.jit(family.kl), jax.tree.map(lambda leaf: np.asarray(leaf) * np.float32(0.5), outputs)
    np.testing.assert_allclose(kl(outputs, outputs), 0.0, atol=1e-6)
    assert np.all(np.asarray(kl(outputs, other)) > 0.0)


def test_the_deviation_of_a_network_is_the_same_everywhere_and_one_at_first():
    agent = Agent(MLP((8,)), CONTINUOUS, GAUSSIAN)
    params = jax.jit(agent.init)(jax.random.key(0))
    assert set(params["log_std"]) == {"bias"}
    obs = np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32)
    outputs = jax.jit(agent.apply)(params, obs)
    assert outputs["log_std"].shape == (4, 5, 2)
    assert not np.any(outputs["log_std"])


def test_networks_begin_orthogonal_with_a_small_policy_and_a_full_value():
    params = jax.jit(Agent(MLP((8,)), CONTINUOUS, GAUSSIAN).init)(jax.random.key(0))
    singular = lambda kernel: np.linalg.svd(kernel, compute_uv=False)  # noqa: E731
    np.testing.assert_allclose(singular(params["torso"][0]["kernel"]), 2.0**0.5, rtol=1e-5)
    np.testing.assert_allclose(singular(params["mean"]["kernel"]), 0.01, rtol=1e-5)
    np.testing.assert_allclose(singular(params["value"]["kernel"]), 1.0, rtol=1e-5)


def test_actions_are_clipped_on_their_way_to_the_environment_only():
    inner = probes.inner_loop(probes.RewardNearHalf(), A2C(), num_workers=64)
    life = probes.begin(inner)
    far = {"mean": jnp.full((2, 1), 3.0), "log_std": jnp.zeros((2, 1)), "value": jnp.zeros((2, 1))}
    trajectory, _, _ = jax.jit(inner.act)(life.replace(agent_params=far))
    assert np.any(np.asarray(trajectory.action) > 4.0)
    assert np.min(trajectory.reward) == -(3.5**2)
    expected = jax.jit(distributions.log_prob_gaussian)(jnp.array([3.0]), jnp.zeros(1), trajectory.action)
    np.testing.assert_allclose(trajectory.log_prob, expected, rtol=1e-6)
