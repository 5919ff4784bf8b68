"""Values over bins: exact round trips, and the two bins around a value."""

import jax.numpy as jnp
import numpy as np

from metadisco.core import value_bins

VALUES = np.array([-5000.0, -30.0, -1.0, -1e-3, 0.0, 1e-6, 0.02, 1.0, 7.5, 400.0, 20000.0])


def test_squashing_is_the_published_scale_and_unsquashing_loses_no_digits():
    squashed = np.sign(VALUES) * (np.sqrt(np.abs(VALUES) + 1.0) - 1.0) + 1e-3 * VALUES
    np.testing.assert_allclose(value_bins.squash(jnp.float32(VALUES)), squashed, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(value_bins.unsquash(jnp.float32(squashed)), VALUES, rtol=2e-6, atol=5e-7)


def test_two_bins_have_the_value_as_their_expectation():
    value = jnp.float32([-3.3, 0.0, 0.4, 2.6, 17.0])
    probs = value_bins.two_hot(value, 31, 15.0)
    assert np.all(np.asarray((probs > 0).sum(axis=-1)) <= 2)
    np.testing.assert_allclose(probs.sum(axis=-1), 1.0, rtol=1e-6)
    logits = jnp.log(probs + 1e-30)
    np.testing.assert_allclose(value_bins.expected_value(logits, 15.0), value, rtol=1e-5, atol=1e-5)


def test_values_off_the_scale_are_at_its_end():
    probs = value_bins.two_hot(jnp.float32([1e6, -1e6]), 7, 3.0)
    np.testing.assert_array_equal(probs, np.eye(7)[[6, 0]])
