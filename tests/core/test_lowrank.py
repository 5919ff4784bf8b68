"""Low-rank weights multiply like the matrices that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import lowrank
from metadisco.core.lowrank import LowRank


def _weight(*leading):
    keys = jax.random.split(jax.random.key(0), 3)
    return LowRank(
        jax.random.normal(keys[0], (4, 5)),
        jax.random.normal(keys[1], (*leading, 4, 2)),
        jax.random.normal(keys[2], (*leading, 5, 2)),
        jnp.full(leading, 0.3),
    )


def test_project_multiplies_by_the_full_matrix():
    x = jax.random.normal(jax.random.key(1), (3, 7, 4))
    expected = np.einsum("io,bci->bco", lowrank.dense(_weight()), x)
    np.testing.assert_allclose(lowrank.project(_weight(), x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(lowrank.project(lowrank.dense(_weight()), x), expected, rtol=1e-5, atol=1e-5)


def test_a_population_shares_its_base_and_differs_in_the_rest():
    population = {"w": _weight(6), "b": jnp.arange(6.0)}
    axes = lowrank.in_axes(population)
    matrices = jax.vmap(lambda member: lowrank.dense(member["w"]), in_axes=(axes,))(population)
    picked = lowrank.take(population, jnp.array([4, 1]))
    assert picked["w"].base is population["w"].base
    np.testing.assert_allclose(
        jax.vmap(lambda member: lowrank.dense(member["w"]), in_axes=(axes,))(picked),
        matrices[jnp.array([4, 1])],
        rtol=1e-6,
    )


def test_the_base_is_multiplied_once_for_the_whole_population():
    """The compiled product of a population has one large matrix product by the base, none of them batched."""
    x = jnp.ones((6, 3, 4))
    population = {"w": _weight(6)}
    project = jax.vmap(lambda member, x: lowrank.project(member["w"], x), in_axes=(lowrank.in_axes(population), 0))
    text = str(jax.make_jaxpr(project)(population, x))
    assert text.count("dot_general") == 3
    assert text.count("([], [])") == 1, text  # a product without batch axes
