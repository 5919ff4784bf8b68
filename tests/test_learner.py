"""Clipping: that of optax, but for its derivative at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metadisco.learner import clip_by_global_norm


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 100.0])
def test_clipping_is_that_of_optax(scale):
    tree = {"a": scale * jnp.array([0.3, -0.4]), "b": scale * jnp.ones((2, 2))}
    ours, theirs = (
        clip(0.5).update(tree, optax.EmptyState())[0] for clip in (clip_by_global_norm, optax.clip_by_global_norm)
    )
    for name in tree:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_the_derivative_at_a_zero_gradient_is_that_of_the_identity():
    jacobian = jax.jacobian(lambda x: clip_by_global_norm(0.5).update(x, optax.EmptyState())[0])(jnp.zeros(2))
    np.testing.assert_array_equal(jacobian, jnp.eye(2))
