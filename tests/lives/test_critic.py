"""A critic: advantages by hand, and parameters that move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.optimizers import SGD
from metadisco.core.types import Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.lives.critic import Critic

SPEC = EnvSpec(Discrete(2), Discrete(2))
PARAMS = {"value": jnp.array([[1.0], [4.0]])}


def _step(*, terminated=False, truncated=False):
    """One step from state 0 to state 1 for reward 0.5."""
    flags = jnp.full((1, 1), terminated), jnp.full((1, 1), truncated)
    index = jnp.zeros((1, 1), jnp.int32)
    return Trajectory(index, index, jnp.zeros((1, 1)), jnp.full((1, 1), 0.5), *flags, index + 1)


def test_after_termination_there_is_no_value():
    np.testing.assert_allclose(Critic().advantages(SPEC, PARAMS, _step(terminated=True)), 0.5 - 1.0)


def test_after_truncation_there_is():
    np.testing.assert_allclose(Critic().advantages(SPEC, PARAMS, _step(truncated=True)), 0.5 + 0.99 * 4.0 - 1.0)


def test_a_critic_moves_toward_its_returns():
    critic = Critic(optimizer=SGD(0.1))
    state = critic.init(jax.random.key(0), SPEC, 1)
    after, loss = critic.update(SPEC, state, _step(terminated=True))
    np.testing.assert_allclose(after.params["value"][:, 0], [0.1 * 0.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(loss, 0.5 * 0.5**2)


def test_the_best_return_is_that_of_the_best_episode_discounted_to_its_start():
    """Workers: an episode of 1 + 0.5 * 2 = 2 ends and 3 begins; another of 1 goes on over both rollouts with -4."""
    critic = Critic(gamma=0.5)
    index = jnp.zeros((3, 2), jnp.int32)
    reward = jnp.array([[1.0, 1.0], [2.0, 0.0], [3.0, 0.0]])
    ends = jnp.array([[False, False], [True, False], [False, False]])
    trajectory = Trajectory(index, index, jnp.zeros((3, 2)), reward, ends, jnp.zeros((3, 2), bool), index)
    state, _ = critic.update(SPEC, critic.init(jax.random.key(0), SPEC, 2), trajectory)
    assert state.best_return == 2.0
    assert state.running_return.tolist() == [3.0, 1.0]
    assert critic.assess(SPEC, state, trajectory).best_return == 3.0  # were it cut now
    state, _ = critic.update(SPEC, state, trajectory.replace(reward=jnp.full((3, 2), -4.0), terminated=ends & False))
    assert state.best_return == 2.0
    np.testing.assert_allclose(state.running_return[1], 1.0 - 4.0 * (0.5**3 + 0.5**4 + 0.5**5))


def test_a_critic_output_is_of_the_parameters_as_they_are():
    state = Critic().init(jax.random.key(0), SPEC, 1).replace(params=PARAMS)
    critic_output = Critic().assess(SPEC, state, _step(terminated=True))
    np.testing.assert_allclose(critic_output.value, [[1.0]])
    np.testing.assert_allclose(critic_output.advantage, [[-0.5]])


def test_no_gradient_passes_through_advantages():
    slope = jax.grad(lambda params: jnp.sum(Critic().advantages(SPEC, params, _step())))(PARAMS)
    assert not jnp.any(slope["value"])


@pytest.mark.parametrize("change", [{"gamma": 1.5}, {"gae_lambda": -0.1}])
def test_discounts_outside_the_unit_interval_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Critic(**change)
