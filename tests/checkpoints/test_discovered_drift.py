"""`Discovered.drift`: what an objective was trained with, as a function of the ratio for anyone's PPO."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import PPO, MirrorLearning

RULES = [PPODrift(), DPODrift(), LPODrift(), LPODrift(clip=None, temporal=True)]


def discovered(rule):
    params = jax.tree.map(lambda leaf: 30.0 * leaf, rule.init(jax.random.key(3)))  # far from PPO
    return Discovered(MirrorLearning(rule), params)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_drift_of_a_saved_objective_is_the_one_it_was_trained_with(rule, tmp_path):
    before = discovered(rule)
    after = checkpoint.load(checkpoint.save(before, tmp_path / "rule"))
    log_ratio, advantage = jnp.linspace(-2.0, 2.0, 9)[:, None], jnp.linspace(-3.0, 3.0, 7)
    expected = rule.penalty(before.meta_params, *jnp.broadcast_arrays(log_ratio, advantage), 0.5)
    drift = jax.jit(after.drift)(jnp.exp(log_ratio), advantage, 0.5)
    assert drift.shape == (9, 7)
    assert jnp.max(expected) > 0.5
    np.testing.assert_allclose(drift, expected, rtol=1e-4, atol=1e-5)


def test_progress_broadcasts_and_is_the_beginning_unless_told():
    drift = discovered(LPODrift(clip=None, temporal=True)).drift
    by_time = drift(2.0, 1.5, jnp.array([0.0, 0.25, 1.0]))
    assert by_time.shape == (3,)
    assert len(set(by_time.tolist())) == 3
    np.testing.assert_allclose(drift(2.0, 1.5), by_time[0], rtol=1e-6)
    assert discovered(PPODrift()).drift(2.0, 1.5, jnp.zeros(3)).shape == (3,)


def test_drift_is_the_same_function_every_time():
    """So that a jitted update that takes it as a static argument is compiled once."""
    one = discovered(DPODrift())
    assert one.drift is one.drift
    assert hash(one.drift) == hash(one.drift)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_drift_and_its_derivative_are_finite_for_every_ratio(rule):
    drift = discovered(rule).drift
    ratios = jnp.array([0.0, 1e-45, 1e-38, 1e-20, 0.5, 1.0, 2.0, 1e6, 1e9, 1e20, 3.4e38, jnp.inf], jnp.float32)
    grid = jnp.broadcast_arrays(ratios[:, None], jnp.array([-3.0, 0.0, 3.0]))
    derive = jax.value_and_grad(lambda *each: jnp.sum(drift(*each)), argnums=(0, 1))  # pointwise, hence separable
    values, (_, slopes) = jax.jit(lambda *each: (drift(*each), derive(*each)))(*grid)
    assert (values >= 0.0).all()
    for array in (values, *slopes):
        assert jnp.isfinite(array).all()


def test_drift_near_the_old_policy_is_exact_to_rounding():
    """(r - 1) A - tanh((r - 1) A) is about x^3 / 3 and would drown in the rounding of r = 1 + x."""
    away = np.float32(2.0) ** -np.arange(5, 20)
    x = away.astype(np.float64) * 2.0
    drift = discovered(DPODrift(alpha=1e-3)).drift(jnp.float32(1.0) + away, 2.0)
    np.testing.assert_allclose(drift, x - 1e-3 * np.tanh(x / 1e-3), rtol=1e-3, atol=1e-9)
    log_ratio = np.log1p(away.astype(np.float64))
    lpo = LPODrift(clip=None, threshold=1e-12)
    hidden, out = jnp.zeros((8, 128)).at[0, 0].set(1.0), jnp.zeros((128, 1)).at[0, 0].set(1.0)
    seen = Discovered(MirrorLearning(lpo), {"hidden": hidden, "out": out}).drift(jnp.float32(1.0) + away, 2.0)
    np.testing.assert_allclose(seen, np.tanh(log_ratio), rtol=1e-5)


@pytest.mark.parametrize("advantage", [-3.0, 2.0])
def test_far_away_the_agent_is_held_as_in_training(advantage):
    """In training log r is cut at 20: with A > 0 there is nothing to gain beyond, also not without a clip."""
    drift = discovered(LPODrift(clip=None)).drift
    slope = jax.grad(lambda ratio: ratio * advantage - drift(ratio, advantage))
    assert slope(jnp.float32(1e12)) == (0.0 if advantage > 0 else advantage)


@pytest.mark.parametrize("objective", [A2C(), LPG()], ids=str)
def test_an_objective_without_a_drift_says_what_it_is_and_what_has_one(objective):
    with pytest.raises(config.ConfigError, match=rf"{type(objective).__name__} has no drift: only a MirrorLearning"):
        _ = Discovered(objective, ()).drift


def test_ppo_by_name_has_its_drift():
    np.testing.assert_allclose(Discovered(PPO(clip=0.25), ()).drift(1.5, 2.0), 0.5, rtol=1e-6)
