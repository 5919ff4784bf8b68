"""A stretch of a life: its gradient is the slope of its loss, and masks and remat change nothing."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.optimizers import SGD, Adam
from metadisco.core.keys import KeyPurpose
from metadisco.lives.learner import Learner
from metadisco.meta_training.truncation import Unroll
from metadisco.objectives.lpg import LPG
from tests.support import small, traced, two_states
from tests.support.two_states import Linear, inner_loop, task

THREE = Unroll(num_updates=3)
INNER = inner_loop()
META_PARAMS = Linear().init(None)
WEIGHTS = ("policy_entropy_weight", "prediction_entropy_weight", "pi_hat_weight", "y_hat_weight")
CRITIC = {"gamma": 0.5, "gae_lambda": 0.5, "optimizer.learning_rate": 1.0, "optimizer.max_grad_norm": 0.01}


def _pair(inner=INNER, unroll=THREE, seed=0, lifetime=20):
    return unroll.begin(inner, jax.random.key(seed), task(lifetime))


@partial(jax.jit, static_argnums=(0, 1))
def _advance(unroll, inner, meta_params, pair):
    return jax.value_and_grad(partial(unroll.advance, inner), has_aux=True)(meta_params, pair)


def _run(unroll=THREE, inner=INNER, meta_params=META_PARAMS, pair=None):
    """((loss, (pair, metrics)), gradient)"""
    return _advance(unroll, inner, meta_params, _pair(inner, unroll) if pair is None else pair)


@pytest.fixture(scope="module")
def three():
    return _run()


@pytest.mark.parametrize("optimizer", [SGD(2.0, 0.5), pytest.param(Adam(0.3), marks=pytest.mark.slow)])
@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_meta_gradient_is_the_slope_of_the_loss(optimizer, remat):
    """Actions do not change within so small a step, so the loss has a slope; through all three updates."""
    two_states.check_slope(inner_loop(learner=Learner(optimizer, optimizer)), META_PARAMS, replace(THREE, remat=remat))


def test_the_meta_gradient_through_an_update_of_lpg_is_the_slope_of_the_loss():
    """One update: later ones take what the agent shows for a constant, as published."""
    objective = LPG(width=4, num_predictions=3, embedding_width=4)
    inner = inner_loop(objective, Learner(SGD(40.0), SGD(4.0)))
    two_states.check_slope(inner, jax.jit(objective.init)(jax.random.key(3)), Unroll(num_updates=1))


def test_agent_and_critic_move(three):
    (_, ((after, _), _)), _ = three
    before = _pair()
    for left, right in (
        (before.life.agent_params, after.life.agent_params),
        (before.life.critic.params, after.life.critic.params),
    ):
        assert all(np.any(np.asarray(left[name]) != right[name]) for name in left)


def test_a_life_is_lived_as_without_meta_gradients(three):
    life = _pair().life
    for _ in range(3):
        life, _ = jax.jit(INNER.update)(META_PARAMS, life)
    small.assert_trees_close(three[0][1][0][0].life, life, rtol=1e-5, atol=1e-6)


def test_the_last_stretch_equals_one_without_masked_updates(three):
    masked = _run(replace(THREE, num_updates=5), pair=_pair(lifetime=3))
    exact = _run(pair=_pair(lifetime=3))
    assert masked[0][1][0][0].life.num_updates == 3
    small.assert_trees_close(masked, exact, rtol=1e-5, atol=1e-7)


def test_remat_changes_nothing(three):
    small.assert_trees_close(_run(replace(THREE, remat=True)), three, rtol=1e-5, atol=1e-7)


def test_the_number_of_updates_changes_the_gradient(three):
    _, gradient = _run(replace(THREE, num_updates=5))
    assert np.max(np.abs(np.asarray(gradient["w"]) - three[1]["w"])) > 1e-5


@pytest.fixture(scope="module")
def weighted():
    """The gradient as a function of settings that are numbers: one program for all their values."""
    critic = traced.values_of(INNER, [f"critic.{name}" for name in CRITIC])

    @jax.jit
    def gradient(weights, critic, pair):
        unroll, inner = traced.with_values(THREE, weights), traced.with_values(INNER, critic)
        return jax.grad(lambda meta_params: unroll.advance(inner, meta_params, pair)[0])(META_PARAMS)["w"]

    def change(of_critic=None, **weights):
        return np.asarray(gradient(traced.values_of(THREE, WEIGHTS) | weights, critic | (of_critic or {}), _pair()))

    return change


def test_numbers_that_are_traced_give_the_gradient_that_settings_give(weighted, three):
    np.testing.assert_allclose(weighted(), three[1]["w"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_weight_changes_the_gradient(name, weighted):
    assert np.max(np.abs(weighted(**{name: 0.5}) - weighted())) > 1e-5


@pytest.mark.parametrize("name", CRITIC)
def test_every_setting_of_the_critic_changes_the_gradient(name, weighted):
    assert np.max(np.abs(weighted({f"critic.{name}": CRITIC[name]}) - weighted())) > 1e-5


def test_the_critic_output_is_of_the_validation_rollout(three):
    (unroll_state, critic_output), _ = three[0][1]
    expected = jax.jit(lambda life: INNER.assess(life, INNER.act(life, KeyPurpose.VALIDATE)[0]))(unroll_state.life)
    small.assert_trees_close(critic_output, expected, rtol=1e-5, atol=1e-6)
    assert np.std(critic_output.advantage) > 0


def test_the_meta_gradient_through_adam_is_finite_where_agents_have_no_gradient():
    _, gradient = _run(inner=inner_loop(learner=Learner(Adam(), Adam())), meta_params={"w": jnp.zeros(4)})
    assert np.all(np.isfinite(gradient["w"]))


@pytest.mark.parametrize("change", [{"num_updates": 0}, {"pi_hat_weight": -1.0}, {"y_hat_weight": float("nan")}])
def test_bad_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Unroll(**change)
