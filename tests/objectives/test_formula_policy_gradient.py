"""Policy gradients by a formula: A2C is one of them, inputs are what they are called, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core.config import ConfigError
from metadisco.envs.base import Box, EnvSpec
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import predict
from metadisco.objectives.formula_policy_gradient import INPUTS, FormulaPolicyGradient
from tests.support import two_states


@pytest.fixture(scope="module")
def experience():
    """Of one update of A2C: predictions, trajectory, progress, and outputs to be moved."""
    inner = two_states.inner_loop(A2C(), critic=None)
    life = inner.begin(jax.random.key(0), two_states.task())
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.arange(leaf.size).reshape(leaf.shape), life.agent_params)
    trajectory, _, _ = inner.act(life.replace(agent_params=params))
    return predict(inner.agent, params, trajectory), trajectory, life.progress


def loss_of(objective, meta_params, experience):
    predictions, trajectory, progress = experience
    targets, _ = objective.targets(meta_params, (), predictions, trajectory, progress)
    return targets, objective.loss(meta_params, targets, predictions.now, trajectory, progress)[0]


def test_with_the_advantage_as_its_formula_it_is_a2c(experience):
    objective = FormulaPolicyGradient("advantage", entropy_weight=0.01)
    ours, theirs = loss_of(objective, objective.written, experience), loss_of(A2C(), (), experience)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6), ours, theirs)


@pytest.mark.parametrize(("name", "place"), [("reward", "reward"), ("finished", "finished")])
def test_inputs_are_what_they_are_called(name, place, experience):
    objective = FormulaPolicyGradient(f"2.0 * {name}")
    targets, _ = loss_of(objective, objective.written, experience)
    np.testing.assert_allclose(targets.advantage, 2.0 * np.float32(getattr(experience[1], place)))


def test_every_input_has_a_value_of_its_own(experience):
    said = [loss_of(FormulaPolicyGradient(name), (), experience)[0].advantage for name in INPUTS]
    assert all(each.shape == experience[1].reward.shape for each in said)
    distinct = {np.asarray(each).tobytes() for each in said}
    assert len(distinct) == len(INPUTS)


def test_constants_are_meta_parameters(experience):
    objective = FormulaPolicyGradient("1.5 * reward + 0.25")
    assert objective.written["pi_hat"].tolist() == [1.5, 0.25]
    changed, _ = loss_of(objective, {"pi_hat": jnp.array([0.0, 2.0])}, experience)
    np.testing.assert_allclose(changed.advantage, 2.0)


def test_wrong_formulas_and_spaces_are_refused():
    with pytest.raises(ConfigError, match="is not a formula"):
        FormulaPolicyGradient("return")
    continuous = EnvSpec(Box((4,)), Box((2,), -1.0, 1.0))
    assert set(FormulaPolicyGradient("advantage").heads(continuous)) == {*A2C().heads(continuous)}
    with pytest.raises(ValueError, match="reads the probability of an action"):
        FormulaPolicyGradient("advantage * prob").heads(continuous)
