"""Lengths of episodes over several rollouts, against counting step by step."""

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.objectives import episodes
from tests.support.reference import scheduled_a2c as reference


def test_lengths_equal_counting_step_by_step():
    finished = np.random.default_rng(0).random((24, 3)) < 0.15
    finished[:, 2] = False  # one worker whose first episode goes on
    finished[[5, 6, 11], 0] = True  # an episode of one step, and ends with a rollout
    state, observe = episodes.none(3), jax.jit(episodes.observe)
    for begin in range(0, 24, 6):
        state = observe(state, jnp.asarray(finished[begin : begin + 6]))
        lengths = reference.lengths(finished[: begin + 6])
        assert state.longest == max(lengths)
        np.testing.assert_allclose(state.mean, np.mean(lengths), rtol=1e-6)
    assert state.longest == 24
    assert state.age[2] == 24


def test_inputs_are_0_for_a_hundred_steps_and_finite_for_one():
    state = episodes.none(2)
    hundred = episodes.inputs(episodes.observe(state, jnp.zeros((100, 2), bool)))
    assert all(abs(value) < 1e-6 for value in hundred.values())
    one = episodes.inputs(episodes.observe(state, jnp.ones((1, 2), bool)))
    assert all(-3.0 < value < -2.0 for value in one.values())
