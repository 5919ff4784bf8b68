"""The derivative by hand is that of the same net, derived automatically."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.objectives.lpg import LPG
from metadisco.objectives.recurrent import read_backward

T, B = 5, 3


@pytest.fixture(scope="module")
def problem():
    return _problem()


@jax.jit
def _problem():
    objective = LPG(width=4, num_predictions=3)
    weights = objective.init(jax.random.key(0))
    weights = {name: weights[name] for name in ("gru", "out", "out_bias")}
    # Biases begin with zeros, where some of their gradients would vanish.
    weights = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), weights)
    x = jax.random.normal(jax.random.key(1), (T, B, 6))
    keeps = (jax.random.uniform(jax.random.key(2), (T, B)) > 0.3).astype(jnp.float32)
    slope = jax.random.normal(jax.random.key(3), (T, B, 4))
    return weights, x, keeps, slope


@jax.jit
def _derived(weights, x, keeps):
    """The same net step by step, with nothing of its derivative written down."""
    hidden, outs = jnp.zeros((B, 4)), []
    gru = weights["gru"]
    for t in reversed(range(T)):
        hidden = keeps[t][:, None] * hidden
        inputs, products = x[t] @ gru["input"] + gru["input_bias"], hidden @ gru["recurrent"]
        reset, update = jnp.split(jax.nn.sigmoid(inputs[:, :8] + products[:, :8]), 2, axis=1)
        candidate = jnp.tanh(inputs[:, 8:] + reset * (products[:, 8:] + gru["recurrent_bias"]))
        hidden = (1 - update) * candidate + update * hidden
        outs.append(jax.nn.relu(hidden) @ weights["out"] + weights["out_bias"])
    return jnp.stack(outs[::-1])


def test_values_are_those_of_the_net_step_by_step(problem):
    weights, x, keeps, _ = problem
    np.testing.assert_allclose(read_backward(weights, x, keeps), _derived(weights, x, keeps), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_that_are_derived_automatically(problem):
    weights, x, keeps, slope = problem

    def gradients(run):
        def total(weights, x):
            return jnp.sum(slope * run(weights, x, keeps))

        return jax.jit(jax.grad(total, argnums=(0, 1)))(weights, x)

    by_hand, derived = gradients(read_backward), gradients(_derived)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(by_hand), jax.tree.leaves(derived), strict=True):
        assert jnp.max(jnp.abs(theirs)) > 1e-3, path
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=str(path))


def test_gradients_of_a_population_are_those_of_its_members(problem):
    weights, x, keeps, slope = problem
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), weights)
    loss = jax.jit(jax.grad(lambda weights: jnp.sum(slope * read_backward(weights, x, keeps))))
    together = jax.jit(jax.vmap(loss))(many)
    for i in range(2):
        alone = loss(jax.tree.map(lambda leaf: leaf[i], many))  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), together, alone)  # noqa: B023
