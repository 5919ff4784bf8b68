"""LPG against a slow reference, and what it must and must not depend on."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core.lowrank import LowRank, dense
from metadisco.core.types import Progress, Trajectory
from metadisco.objectives.base import Predictions
from metadisco.objectives.lpg import LPG
from tests.support.reference import lpg as reference

T, B, A = 7, 3, 4
PLAIN = LPG(width=5, num_predictions=3, embedding_width=4)
AWARE = replace(PLAIN, lifetime_features=True)
PROGRESS = Progress(jnp.int32(3), jnp.int32(20))


def _experience(seed=0):
    rng = np.random.default_rng(seed)
    terminated = rng.random((T, B)) < 0.2
    truncated = ~terminated & (rng.random((T, B)) < 0.2)
    index = jnp.zeros((T, B), jnp.int32)
    trajectory = Trajectory(
        obs=index,
        action=jnp.asarray(rng.integers(0, A, (T, B)), jnp.int32),
        log_prob=jnp.zeros((T, B)),
        reward=jnp.asarray(rng.normal(size=(T, B)), jnp.float32),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        next_obs=index,
    )
    draw = lambda width: jnp.asarray(rng.normal(size=(T, B, width)), jnp.float32)  # noqa: E731
    return trajectory, Predictions({"logits": draw(A), "y": draw(3)}, {"logits": draw(A), "y": draw(3)})


targets_of = jax.jit(lambda objective, *rest: objective.targets(*rest), static_argnums=0)
loss_of = jax.jit(lambda objective, *rest: objective.loss(*rest)[0], static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _random_params(objective, seed=1):
    """Initial parameters with every zero bias replaced, so that each one matters."""
    leaves, structure = jax.tree.flatten(objective.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noisy)


@pytest.mark.parametrize("objective", [PLAIN, AWARE])
def test_targets_and_loss_equal_the_numpy_reference(objective):
    trajectory, predictions = _experience()
    meta_params = _random_params(objective)

    @jax.jit
    def told(meta_params, predictions, trajectory):
        targets, _ = objective.targets(meta_params, (), predictions, trajectory, PROGRESS)
        return targets, objective.loss(meta_params, targets, predictions.now, trajectory, PROGRESS)[0]

    targets, loss = told(meta_params, predictions, trajectory)
    as_numpy = lambda tree: jax.tree.map(np.asarray, tree)  # noqa: E731
    pi_hat, y_hat = reference.targets(
        as_numpy(meta_params),
        *as_numpy((predictions.now["logits"], predictions.now["y"], predictions.next["y"])),
        *as_numpy((trajectory.action, trajectory.reward, trajectory.terminated, trajectory.truncated)),
        gamma=objective.gamma,
        lifetime_features=(3, 20) if objective.lifetime_features else None,
    )
    np.testing.assert_allclose(targets.pi_hat, pi_hat, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(targets.log_y_hat), y_hat, rtol=1e-4, atol=1e-5)
    slow = reference.loss(
        *as_numpy((predictions.now["logits"], predictions.now["y"], trajectory.action)),
        pi_hat,
        y_hat,
        prediction_weight=0.5,
    )
    np.testing.assert_allclose(loss, slow, rtol=1e-4)


def test_features_name_the_inputs_in_order():
    for objective, num_features in ((PLAIN, 6), (AWARE, 8)):
        shapes = jax.eval_shape(objective.init, jax.random.key(0))
        assert len(objective.features) == shapes["gru"]["input"].shape[0] == num_features


def test_targets_pass_no_gradient_to_the_predictions():
    trajectory, predictions = _experience()
    meta_params = _random_params(AWARE)

    def total(predictions):
        targets, _ = targets_of(AWARE, meta_params, (), predictions, trajectory, PROGRESS)
        return jnp.sum(targets.pi_hat) + jnp.sum(targets.log_y_hat[..., 0])

    assert all(not np.any(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(predictions)))


def test_every_meta_parameter_receives_a_gradient():
    trajectory, predictions = _experience()

    def total(meta_params):
        targets, _ = targets_of(AWARE, meta_params, (), predictions, trajectory, PROGRESS)
        return jnp.sum(targets.pi_hat**2) + jnp.sum(targets.log_y_hat[..., 0])

    gradients = jax.jit(jax.grad(total))(_random_params(AWARE))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_nothing_flows_back_across_the_end_of_an_episode():
    trajectory, predictions = _experience()
    meta_params = _random_params(AWARE)
    cut, late = (np.repeat(np.arange(T) == 3, B).reshape(T, B), np.repeat(np.arange(T) >= 4, B).reshape(T, B))
    trajectory = trajectory.replace(terminated=np.zeros((T, B), bool), truncated=cut)
    later = trajectory.replace(reward=trajectory.reward + late.astype(np.float32))
    before = targets_of(AWARE, meta_params, (), predictions, trajectory, PROGRESS)[0].pi_hat
    after = targets_of(AWARE, meta_params, (), predictions, later, PROGRESS)[0].pi_hat
    before, after = np.asarray(before), np.asarray(after)
    assert np.array_equal(before[:4], after[:4])
    assert np.all(before[4:] != after[4:])


def test_the_next_prediction_counts_after_truncation_but_not_after_termination():
    trajectory, predictions = _experience()
    meta_params = _random_params(PLAIN)
    other = Predictions(predictions.now, {"y": predictions.next["y"] + np.arange(3, dtype=np.float32)})
    ends, none = np.ones((T, B), bool), np.zeros((T, B), bool)
    cut = trajectory.replace(terminated=none, truncated=ends)
    ended = trajectory.replace(terminated=ends, truncated=none)

    def pi_hat(trajectory, predictions):
        return targets_of(PLAIN, meta_params, (), predictions, trajectory, PROGRESS)[0].pi_hat

    assert np.all(np.asarray(pi_hat(cut, predictions)) != pi_hat(cut, other))
    assert np.array_equal(pi_hat(ended, predictions), pi_hat(ended, other))


@pytest.mark.parametrize("progress", [Progress(jnp.int32(4), jnp.int32(20)), Progress(jnp.int32(6), jnp.int32(40))])
def test_lifetime_features_matter_only_where_asked_for(progress):
    trajectory, predictions = _experience()
    for objective, differs in ((AWARE, True), (PLAIN, False)):
        meta_params = _random_params(objective)
        now = targets_of(objective, meta_params, (), predictions, trajectory, PROGRESS)[0].pi_hat
        then = targets_of(objective, meta_params, (), predictions, trajectory, progress)[0].pi_hat
        assert bool(np.any(np.asarray(now) != then)) is differs


@pytest.mark.parametrize(
    ("field", "value"), [("gamma", 0.5), ("prediction_weight", 0.1), ("lifetime_features", False), ("width", 6)]
)
def test_every_setting_changes_the_loss(field, value):
    trajectory, predictions = _experience()
    losses = []
    for objective in (AWARE, replace(AWARE, **{field: value})):
        meta_params = _random_params(objective)
        targets, _ = targets_of(objective, meta_params, (), predictions, trajectory, PROGRESS)
        losses.append(loss_of(objective, meta_params, targets, predictions.now, trajectory, PROGRESS))
    assert losses[0] != losses[1]


def test_a_low_rank_weight_gives_the_same_targets_as_its_full_matrix():
    trajectory, predictions = _experience()
    thin = _random_params(AWARE)
    recurrent, rng = thin["gru"]["recurrent"], np.random.default_rng(5)
    left, right = (jnp.asarray(rng.normal(size=(size, 2)), jnp.float32) for size in recurrent.shape)
    thin["gru"] = thin["gru"] | {"recurrent": LowRank(recurrent, left, right, jnp.float32(0.1))}
    full = jax.tree.map(dense, thin, is_leaf=lambda leaf: isinstance(leaf, LowRank))
    for left, right in zip(
        jax.tree.leaves(targets_of(AWARE, thin, (), predictions, trajectory, PROGRESS)),
        jax.tree.leaves(targets_of(AWARE, full, (), predictions, trajectory, PROGRESS)),
        strict=True,
    ):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"width": 0}, {"num_predictions": 1}, {"gamma": 1.5}, {"prediction_weight": -1.0}, {"embedding_width": 0}],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LPG(**settings)


INVARIANT = replace(AWARE, scale_rewards=True, center_pi_hat=True)


def _two_updates(objective, scale):
    """Targets and states of two updates on rewards times a constant, the second rollout's smaller by 32."""
    state, found = objective.init_state(jax.random.key(0), None, (), B), []
    for seed, smaller in ((0, 1.0), (1, 32.0)):
        trajectory, predictions = _experience(seed)
        trajectory = replace(trajectory, reward=trajectory.reward * (scale / smaller))
        targets, state = targets_of(objective, _random_params(objective), state, predictions, trajectory, PROGRESS)
        found.append((targets, state, trajectory))
    return found


@pytest.mark.parametrize("scale", [2.0**-7, 2.0**7])  # powers of two, so that no digit is rounded
def test_rewards_times_a_constant_give_the_same_targets_only_where_they_are_scaled(scale):
    for (targets, state, _), (other, larger, _) in zip(
        _two_updates(INVARIANT, 1.0), _two_updates(INVARIANT, scale), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, targets, other)
        assert larger.largest == scale * state.largest
    raw = replace(INVARIANT, scale_rewards=False)
    (targets, *_), (other, *_) = _two_updates(raw, 1.0)[0], _two_updates(raw, scale)[0]
    assert np.max(np.abs(targets.pi_hat - other.pi_hat)) > 1e-3


def test_the_scale_is_that_of_the_largest_reward_and_is_forgotten_slowly():
    (_, first, trajectory), (_, second, _) = _two_updates(INVARIANT, 1.0)
    assert first.largest == np.max(np.abs(trajectory.reward))
    np.testing.assert_allclose(second.largest, 0.8 * first.largest, rtol=1e-6)


def test_scaled_targets_are_those_of_the_scaled_rewards():
    unscaled, (_, (targets, state, trajectory)) = replace(INVARIANT, scale_rewards=False), _two_updates(INVARIANT, 1.0)
    _, predictions = _experience(1)
    by_hand = replace(trajectory, reward=trajectory.reward / state.largest)
    wanted, _ = targets_of(unscaled, _random_params(unscaled), (), predictions, by_hand, PROGRESS)
    jax.tree.map(np.testing.assert_array_equal, targets, wanted)


def test_no_reward_leaves_the_targets_finite():
    trajectory, predictions = _experience()
    trajectory = replace(trajectory, reward=np.zeros((T, B), np.float32))
    state = INVARIANT.init_state(jax.random.key(0), None, (), B)
    targets, state = targets_of(INVARIANT, _random_params(INVARIANT), state, predictions, trajectory, PROGRESS)
    assert state.largest == 0.0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(targets))


def test_centering_takes_the_mean_of_pi_hat_and_nothing_else():
    centered, plain = (
        np.asarray(_two_updates(replace(INVARIANT, center_pi_hat=center), 1.0)[0][0].pi_hat) for center in (True, False)
    )
    assert abs(np.mean(plain)) > 1e-3
    np.testing.assert_allclose(centered, plain - np.mean(plain), atol=1e-6)
