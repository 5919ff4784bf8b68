"""Optimizers of agents, against the equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.optimizers import RMSProp

GRADIENTS = np.array([[0.3, -0.02, 0.0], [0.1, 0.04, 0.0], [-0.2, 0.0, 0.0]], np.float32)


def updates(optimizer):
    """Of three steps, [3, 3]."""
    transformation = optimizer.transformation()
    state, found = transformation.init({"w": jnp.zeros(3)}), []
    for gradient in GRADIENTS:
        update, state = transformation.update({"w": jnp.asarray(gradient)}, state, {"w": jnp.zeros(3)})
        found.append(update["w"])
    return np.stack(found)


def by_hand(learning_rate, decay, eps, max_grad_norm=np.inf):
    mean, found = np.zeros(3), []
    for n, gradient in enumerate(GRADIENTS, start=1):
        clipped = gradient * min(1.0, max_grad_norm / np.linalg.norm(gradient))
        mean = decay * mean + (1 - decay) * clipped**2
        found.append(-learning_rate * clipped / np.sqrt(mean / (1 - decay**n) + eps))
    return np.stack(found)


@pytest.mark.parametrize(
    ("settings", "max_grad_norm"), [((0.3, 0.9, 1e-8), 9.0), ((0.1, 0.5, 1e-4), 9.0), ((0.3, 0.9, 1e-8), 0.15)]
)
def test_rmsprop_is_its_equation(settings, max_grad_norm):
    learning_rate, decay, eps = settings
    found = updates(RMSProp(learning_rate, max_grad_norm, decay=decay, eps=eps))
    np.testing.assert_allclose(found, by_hand(*settings, max_grad_norm), rtol=1e-4, atol=1e-7)


def test_the_first_step_is_as_large_for_rare_gradients_as_for_common_ones():
    first = updates(RMSProp(0.3, 9.0))[0]
    np.testing.assert_allclose(first, [-0.3, 0.3, 0.0], atol=1e-4)


def test_a_gradient_of_zero_has_a_derivative():
    def moved(w):
        transformation = RMSProp().transformation()
        return transformation.update({"w": w}, transformation.init({"w": w}), {"w": w})[0]["w"][0]

    assert jnp.all(jnp.isfinite(jax.grad(moved)(jnp.zeros(3))))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        RMSProp(decay=1.0)
    with pytest.raises(ValueError, match="eps must be"):
        RMSProp(eps=0.0)
