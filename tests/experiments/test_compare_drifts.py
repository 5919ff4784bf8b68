"""The experiment that compares drifts: what it makes of its measurements, and what it refuses."""

import argparse
import io

import jax
import numpy as np
import pytest
from PIL import Image

import metadisco
from experiments import compare_drifts
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.evaluation import environments
from metadisco.objectives.drift import LPODrift, PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.presets import registry


def measured():
    """Two environments, all horizons and two agents, of which the second gets one more return everywhere."""
    rows = {}
    for env in ("Acrobot-v1", "Pendulum-v1"):
        for horizon in compare_drifts.HORIZONS:
            for bonus, agent in enumerate(("PPO", "lpo")):
                ends = -300.0 + bonus + np.array([0.0, 1.0, 2.0, 3.0])
                rows[env, horizon, agent] = {"returns": [[-500.0] * 4, ends.tolist()], "env_steps": 1000 * horizon}
    return rows


def test_means_and_scores_are_those_of_the_ends():
    summary = compare_drifts.summarize(measured())
    row = summary["environments"]["Acrobot-v1"]["16"]["lpo"]
    assert row["mean"] == -297.5
    assert row["low"] < -297.5 < row["high"]
    chosen = [environments.environment(name) for name in ("Acrobot-v1", "Pendulum-v1")]
    scores = [(-297.5 - each.random_return) / (each.upper_return - each.random_return) for each in chosen]
    np.testing.assert_allclose(summary["together"]["64"]["lpo"]["iqm"], np.mean(scores), atol=0.01)


def test_table_and_figure_show_every_agent():
    summary = compare_drifts.summarize(measured())
    table = compare_drifts.markdown(summary)
    assert "| Acrobot-v1 | 16 | -298.5 (" in table
    assert table.count("\n") == 1 + 2 * 3 + 3
    image = Image.open(io.BytesIO(compare_drifts.draw(measured(), num_seeds=4)))
    assert image.width > image.height > 300


def test_measurements_are_kept_and_told_apart(monkeypatch, tmp_path):
    calls = []

    def evaluate(inner, meta_params, test_set, **_):
        calls.append(inner.objective.drift)
        returns = np.zeros((compare_drifts.NUM_POINTS + 1, 1, 2))
        return argparse.Namespace(returns=returns, env_steps=7)

    monkeypatch.setattr(compare_drifts.evaluation, "evaluate", evaluate)
    known = argparse.Namespace(runs=tmp_path, seeds=2, seed=0, slots=1)
    for drift in (PPODrift(), PPODrift(), PPODrift(0.1)):
        row = compare_drifts.measure("Acrobot-v1", 16, "agent", MirrorLearning(drift), (), known)
        assert row["env_steps"] == 7
    assert calls == [PPODrift(), PPODrift(0.1)]


def saved(folder, trainer=None):
    """A checkpoint of a drift."""
    objective = MirrorLearning(LPODrift(width=4))
    data = config.to_data(trainer or registry.preset("lpo-quick").trainer)
    meta_params = objective.init(jax.random.key(0))
    metadisco.save(Discovered(objective, meta_params, {"trainer": data}), folder)
    return str(folder)


def test_a_drift_competes_with_ppo_and_dpo(tmp_path):
    found = compare_drifts.agents([saved(tmp_path / "mine" / "objective")], ["Acrobot-v1"])
    assert list(found) == ["PPO", "DPO", "mine"]


def test_environments_of_training_are_refused(tmp_path):
    with pytest.raises(config.ConfigError, match="was trained on"):
        compare_drifts.agents([saved(tmp_path / "mine")], ["CartPole-v1"])


def test_objectives_without_a_drift_and_equal_names_are_refused(tmp_path):
    with pytest.raises(config.ConfigError, match="has no drift"):
        compare_drifts.agents(["quickstart"], ["Acrobot-v1"])
    names = [saved(tmp_path / "a" / "mine"), saved(tmp_path / "b" / "mine")]
    with pytest.raises(config.ConfigError, match="called mine"):
        compare_drifts.agents(names, ["Acrobot-v1"])
