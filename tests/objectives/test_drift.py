"""Drifts: the conditions of mirror learning, identities with published objectives, and contracts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core.lowrank import LowRank
from metadisco.objectives.drift import (
    DPODrift,
    LPODrift,
    PPODrift,
    drift,
    lpo_features,
    verdicts,
    violations,
)

LEARNED = [LPODrift(), LPODrift(clip=None), LPODrift(temporal=True), LPODrift(clip=None, temporal=True)]
DRIFTS = [PPODrift(), PPODrift(clip=0.5), DPODrift(), DPODrift(1.0, 2.0), *LEARNED]
RATIO, ADVANTAGE = (
    grid.ravel().astype(np.float32) for grid in np.meshgrid(np.linspace(0.02, 4.0, 40), np.linspace(-3.0, 3.0, 25))
)


def _random_params(rule, seed=0, scale=1.0):
    """Meta-parameters that are not near anything."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(rule.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), shapes)


_drift = jax.jit(drift, static_argnums=0)


def _clipped_objective(ratio, advantage, clip):
    return np.minimum(ratio * advantage, np.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


@pytest.mark.parametrize("rule", DRIFTS, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_conditions_of_mirror_learning_hold(rule, seed):
    report = violations(rule, _random_params(rule, seed))
    assert report["negative"] == report["at_one"] == 0.0
    assert report["slope_at_one"] < 1e-5


class _Broken:
    """Negative where A < 0, with a kink at r = 1 and an offset."""

    def penalty(self, meta_params, log_ratio, advantage, fraction):
        return advantage * jnp.abs(log_ratio) + 0.25


def test_violations_are_found():
    report = violations(_Broken(), (), largest_log_ratio=2.0, largest_advantage=3.0)
    np.testing.assert_allclose(report["negative"], 2.0 * 3.0 - 0.25, rtol=1e-6)
    np.testing.assert_allclose(report["at_one"], 0.25, rtol=1e-6)
    np.testing.assert_allclose(report["slope_at_one"], 3.0, rtol=0.5)  # 1e-7 is not far from rounding at 0.25
    assert verdicts(report) == {
        "D(r, A) >= 0": "broken by up to 5.75",
        "D(1, A) = 0": "broken by up to 0.25",
        "dD/dr (1, A) = 0": f"broken by up to {report['slope_at_one']:.3g}",
    }


def test_what_is_not_a_number_breaks_a_condition_and_rounding_does_not():
    broken, *held = verdicts({"negative": float("nan"), "at_one": 0.0, "slope_at_one": 1e-6}).values()
    assert broken == "broken by up to nan"
    assert held == ["holds", "holds"]


@pytest.mark.parametrize("clip", [0.1, 0.2, 0.5])
def test_ppo_as_a_drift_is_the_clipped_objective(clip):
    objective = RATIO * ADVANTAGE - np.asarray(_drift(PPODrift(clip), (), RATIO, ADVANTAGE))
    np.testing.assert_allclose(objective, _clipped_objective(RATIO, ADVANTAGE, clip), rtol=1e-5, atol=1e-5)


def test_dpo_equals_its_formula():
    ratio, advantage = np.asarray(RATIO, np.float64), np.asarray(ADVANTAGE, np.float64)
    good, bad = (ratio - 1.0) * advantage, np.log(ratio) * advantage
    slow = np.where(advantage >= 0, good - 2.0 * np.tanh(good / 2.0), bad - 0.6 * np.tanh(bad / 0.6))
    np.testing.assert_allclose(_drift(DPODrift(), (), RATIO, ADVANTAGE), np.maximum(slow, 0.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", LEARNED, ids=str)
def test_lpo_equals_its_formula(rule):
    meta_params = _random_params(rule)
    ratio, advantage = np.asarray(RATIO, np.float64), np.asarray(ADVANTAGE, np.float64)
    l, e = np.log(ratio), 1.0 - ratio
    x = np.stack([l, l**2, e, e**2, advantage * l, advantage * l**2, advantage * e, advantage * e**2], axis=-1)
    if rule.temporal:
        x = np.concatenate([x, 0.25 * x], axis=-1)
    f = (np.tanh(x @ np.asarray(meta_params["hidden"])) @ np.asarray(meta_params["out"]))[..., 0]
    base = np.maximum((ratio - np.clip(ratio, 0.8, 1.2)) * advantage, 0.0) if rule.clip else 0.0
    slow = np.maximum(base + f - 1e-4, 0.0)
    np.testing.assert_allclose(_drift(rule, meta_params, RATIO, ADVANTAGE, 0.25), slow, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", LEARNED, ids=str)
def test_lpo_begins_near_the_drift_below_it(rule):
    begun = np.asarray(_drift(rule, jax.jit(rule.init)(jax.random.key(0)), RATIO, ADVANTAGE, 0.5))
    below = np.asarray(_drift(PPODrift(rule.clip), (), RATIO, ADVANTAGE)) if rule.clip else 0.0
    assert np.max(np.abs(begun - below)) < 0.05


def test_features_name_the_inputs_in_order():
    assert LPODrift().features == ("l", "l^2", "e", "e^2", "A l", "A l^2", "A e", "A e^2")
    assert LPODrift(temporal=True).features[8:] == tuple(f"n/N {name}" for name in LPODrift().features)
    l, e, advantage = np.log(2.0), -1.0, 3.0
    expected = [l, l**2, e, e**2, 3 * l, 3 * l**2, 3 * e, 3 * e**2]
    np.testing.assert_allclose(lpo_features(jnp.float32(l), jnp.float32(advantage)), expected, rtol=1e-6)


@pytest.mark.parametrize(("rule", "matters"), [(LPODrift(), False), (LPODrift(temporal=True), True)])
def test_time_matters_only_where_asked_for(rule, matters):
    params = _random_params(rule)
    early, late = (np.asarray(_drift(rule, params, RATIO, ADVANTAGE, fraction)) for fraction in (0.1, 0.9))
    assert bool(np.any(early != late)) is matters


@pytest.mark.parametrize("rule", DRIFTS, ids=str)
def test_jit_and_vmap_change_nothing(rule):
    meta_params = _random_params(rule)

    def at(ratio, advantage):
        return drift(rule, meta_params, ratio, advantage, 0.5)

    eager = at(RATIO, ADVANTAGE)
    np.testing.assert_allclose(jax.jit(at)(RATIO, ADVANTAGE), eager, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(at)(RATIO, ADVANTAGE), eager, rtol=1e-5, atol=1e-5)
    assert eager.dtype == jnp.float32


@partial(jax.jit, static_argnums=0)
def _penalty_and_slope(rule, meta_params, log_ratio, advantage):
    return jax.value_and_grad(lambda log_ratio: rule.penalty(meta_params, log_ratio, advantage, 0.5))(log_ratio)


@pytest.mark.parametrize("rule", DRIFTS, ids=str)
@pytest.mark.parametrize("log_ratio", [-200.0, 0.0, 20.0])
def test_drifts_and_their_derivatives_are_finite_far_away(rule, log_ratio):
    meta_params = _random_params(rule)
    for advantage in (-3.0, 0.0, 3.0):
        value, slope = _penalty_and_slope(rule, meta_params, np.float32(log_ratio), np.float32(advantage))
        assert np.isfinite(value)
        assert np.isfinite(slope)


def test_a_low_rank_weight_gives_the_same_drift_as_its_full_matrix():
    rule = LPODrift(width=6, temporal=True)
    meta_params = _random_params(rule)
    hidden = meta_params["hidden"]
    left, right = (
        jnp.asarray(np.random.default_rng(i).normal(size=(size, 2)), jnp.float32) for i, size in enumerate(hidden.shape)
    )
    thin = meta_params | {"hidden": LowRank(hidden, left, right, jnp.float32(0.1))}
    full = meta_params | {"hidden": hidden + 0.1 * left @ right.T}
    by_thin, by_full = (_drift(rule, each, RATIO, ADVANTAGE, 0.5) for each in (thin, full))
    np.testing.assert_allclose(by_thin, by_full, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PPODrift(clip=0.0), "clip"),
        (lambda: DPODrift(alpha=-1.0), "alpha"),
        (lambda: DPODrift(beta=float("nan")), "beta"),
        (lambda: LPODrift(width=0), "width"),
        (lambda: LPODrift(clip=-0.1), "clip"),
        (lambda: LPODrift(threshold=0.0), "threshold"),
    ],
)
def test_wrong_settings_are_refused(make, name):
    with pytest.raises(ValueError, match=name):
        make()
