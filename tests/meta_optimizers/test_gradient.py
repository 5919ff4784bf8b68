"""Meta-gradients over toy lives: means over finite ones, clipped, down the slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.meta_optimizers.gradient import MetaGradient
from metadisco.meta_optimizers.schedules import Decay

START = {"w": jnp.array([2.0, -1.0])}


def _loss(meta_params, life):
    loss = 0.5 * jnp.sum((meta_params["w"] - life) ** 2)
    return loss, (life + 1.0, {"distance": loss})


def _step(lives, optimizer=MetaGradient(learning_rate=Decay(0.1))):
    state = optimizer.init(jax.random.key(0), START, len(lives))
    return optimizer.descend(state, jnp.asarray(lives), _loss)


def test_it_descends_to_the_mean_of_the_lives():
    optimizer = MetaGradient(learning_rate=Decay(0.05))
    state, step = optimizer.init(jax.random.key(0), START, 2), jax.jit(lambda s, x: optimizer.descend(s, x, _loss))
    for _ in range(200):
        state, _, _ = step(state, jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(state.meta_params["w"], 0.5, atol=0.02)


def test_lives_go_on():
    assert _step([0.0, 3.0])[1].tolist() == [1.0, 4.0]


def test_the_gradient_is_the_mean_over_lives():
    _, _, metrics = _step([1.0, 3.0])
    np.testing.assert_allclose(metrics["meta_gradient_norm"], 3.0, rtol=1e-6)  # w - 2 = (0, -3)


def test_a_life_that_is_not_a_number_is_left_out_and_counted():
    state, _, metrics = _step([1.0, jnp.nan, 3.0, 2.0])
    alone, _, without = _step([1.0, 3.0, 2.0])
    np.testing.assert_allclose(state.meta_params["w"], alone.meta_params["w"], rtol=1e-6)
    assert metrics["finite_fraction"] == 0.75
    np.testing.assert_allclose(metrics["distance"], without["distance"], rtol=1e-6)


@pytest.mark.parametrize("change", [{"learning_rate": Decay(0.2)}, {"max_grad_norm": 1e-7}])
def test_every_setting_matters(change):
    moved, _, _ = _step([1.0, 3.0], MetaGradient(**({"learning_rate": Decay(0.1)} | change)))
    assert jnp.any(moved.meta_params["w"] != _step([1.0, 3.0])[0].meta_params["w"])


def test_a_clip_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="max_grad_norm"):
        MetaGradient(max_grad_norm=0.0)


def test_a_life_that_is_not_trained_on_goes_on_without_a_say():
    optimizer = MetaGradient(learning_rate=Decay(0.1))
    state = optimizer.init(jax.random.key(0), START, 2)
    train_mask = jnp.array([True, False])
    moved, lives, metrics = optimizer.descend(state, jnp.array([1.0, 90.0]), _loss, train_mask=train_mask)
    np.testing.assert_allclose(moved.meta_params["w"], _step([1.0])[0].meta_params["w"], rtol=1e-6)
    assert lives.tolist() == [2.0, 91.0]
    assert metrics["finite_fraction"] == 1.0
