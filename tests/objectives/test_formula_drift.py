"""Drifts that are formulas: PPO and DPO written down, the conditions of mirror learning, and settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.config import ConfigError
from metadisco.objectives.drift import DPODrift, PPODrift, drift, violations
from metadisco.objectives.formula_drift import FormulaDrift
from metadisco.objectives.mirror_learning import MirrorLearning

PPO = FormulaDrift("A * (r - 1.2)", "A * (r - 0.8)")
DPO = FormulaDrift(
    "A * (r - 1) - 2.0 * tanh(0.5 * A * (r - 1))", "A * l - 0.6 * tanh(1.6666666666666667 * A * l)", threshold=1e-7
)
RATIO, ADVANTAGE = (each.ravel() for each in np.meshgrid(np.linspace(0.1, 4.0, 30), np.linspace(-3.0, 3.0, 21)))


@pytest.mark.parametrize(("formula", "known"), [(PPO, PPODrift()), (DPO, DPODrift())], ids=["PPO", "DPO"])
def test_known_drifts_can_be_written_down(formula, known):
    found = drift(formula, formula.written, RATIO, ADVANTAGE)
    np.testing.assert_allclose(found, drift(known, (), RATIO, ADVANTAGE), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["r", "1.0 - r", "A + 0.7", "tanh(3.0 * l) * t - 2.0 * A", "exp(l)**2 - relu(A)"])
def test_any_formula_is_a_drift_of_mirror_learning(text):
    rule = FormulaDrift(text, text)
    found = violations(rule, rule.written)
    assert found == {"negative": 0.0, "at_one": 0.0, "slope_at_one": 0.0}
    moved = jax.tree.map(lambda leaf: leaf - 3.0, rule.written)  # as evolution might
    assert violations(rule, moved) == found


def test_one_formula_is_for_good_actions_and_one_for_bad_ones():
    rule = FormulaDrift("2.0 * relu(r - 1)", "3.0 * relu(r - 1)")
    values = drift(rule, rule.written, 2.0, np.array([1.0, 0.0, -1.0]))
    np.testing.assert_allclose(values, [2.0, 2.0, 3.0], atol=1e-5)


def test_it_is_finite_with_finite_derivatives_for_every_ratio():
    ratio = jnp.array([0.0, 1e-30, 1.0, 1e30, jnp.inf], jnp.float32)
    for advantage in (-3.0, 0.0, 3.0):
        slopes = jax.vmap(jax.grad(lambda r: drift(DPO, DPO.written, r, advantage)))(ratio)  # noqa: B023
        assert np.isfinite(drift(DPO, DPO.written, ratio, advantage)).all()
        assert np.isfinite(slopes).all()


def test_progress_counts_and_inputs_are_named():
    rule = FormulaDrift("t * (r - 1)", "r - 1")
    assert rule.features == ("r", "n/N")
    values = drift(rule, rule.written, 2.0, 1.0, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0], atol=1e-5)


def test_a_saved_formula_is_read_back(tmp_path):
    saved = Discovered(MirrorLearning(DPO), DPO.written)
    loaded = checkpoint.load(checkpoint.save(saved, tmp_path / "dpo"))
    assert loaded.objective == saved.objective
    assert loaded.drift(1.7, 2.0) == saved.drift(1.7, 2.0)


def test_a_wrong_formula_is_refused_where_it_is_written():
    with pytest.raises(ConfigError, match="unknown input 'ratio'"):
        FormulaDrift("ratio - 1", "r")
    with pytest.raises(ValueError, match=r"FormulaDrift.threshold must be positive"):
        FormulaDrift("r", "r", threshold=0.0)
