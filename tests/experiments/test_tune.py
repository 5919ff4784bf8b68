"""Tuning of hand-written algorithms: `experiments/tune.py`."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import tune
from metadisco.agents.networks import Table
from metadisco.evaluation import environments, suites

LADDERS = {"a": (1.0, 2.0, 3.0, 4.0), "b": (1.0, 2.0, 3.0)}


def test_the_best_setting_is_no_worse_than_any_neighbor_and_nothing_is_tried_twice():
    rows = tune.climb(
        {"a": 1.0, "b": 1.0},
        LADDERS,
        lambda values: {"values": values, "mean": -((values["a"] - 3.0) ** 2) + values["b"]},
    )
    best = max(rows, key=lambda row: row["mean"])["values"]
    assert best == {"a": 3.0, "b": 3.0}
    tried = [row["values"] for row in rows]
    assert all(each in tried for each in tune.neighbors(best, LADDERS))
    assert len({tuple(each.items()) for each in tried}) == len(tried)


def test_agents_of_an_environment_keep_all_but_their_learner():
    (test_set,) = suites.build("CartPole-v1@8")
    usual = environments.environment("CartPole-v1").inner
    inner = tune.inner_loop(test_set, "dpo", "adam", 4, 2)
    assert (inner.torso, inner.normalizer, inner.num_steps) == (usual.torso, usual.normalizer, usual.num_steps)
    assert inner.objective.objective.value_weight == usual.objective.value_weight
    assert inner.learner.num_gradient_steps == 8
    assert inner.learner.policy.learning_rate == 1.0
    assert not inner.learner.policy.anneal  # it is traced
    one_step = tune.inner_loop(test_set, "a2c", "adam", 1, 1)
    assert one_step.normalizer == environments.with_objective(tune.ALGORITHMS["a2c"], usual).normalizer


@pytest.mark.parametrize("algorithm", ["a2c", pytest.param("ppo", marks=pytest.mark.slow)])
def test_agents_of_an_environment_are_tuned(algorithm):
    (test_set,) = suites.build("CartPole-v1@1")
    inner = tune.inner_loop(test_set, algorithm, "adam", 1, 1)
    inner = replace(inner, num_workers=2, num_steps=4, num_test_workers=2, max_test_steps=20)
    rates = tune.RATES["networks", 1]
    row = tune.assess(inner, tune.START | rates, {1: replace(test_set, inner=inner)}, seed=0, num_seeds=2)
    assert np.isfinite(row["mean"])


def test_settings_reach_the_objective_inside_a_bonus():
    (test_set,) = suites.build("grid-tiny")
    inner = tune.inner_loop(test_set, "ppo-count", "rmsprop", 1, 1)
    values = tune.as_meta_params({"bonus": 0.25, "gamma": 0.5, "policy_rate": 1.0, "prediction_rate": 1.0})
    made = inner.objective._with(values)
    assert (made.bonus, made.power, made.objective.gamma) == (0.25, tune.START["power"], 0.5)
    assert made.objective.entropy_weight == np.float32(tune.START["entropy_weight"])


def test_a_bonus_of_counts_is_tuned_on_several_suites():
    levels = {name: suites.build(name, 2)[0] for name in ("grid-tiny@1", "labyrinths-validation@1")}
    inner = tune.inner_loop(levels["grid-tiny@1"], "a2c-count", "rmsprop", 1, 1)
    inner = replace(inner, num_workers=2, num_steps=4, num_test_workers=2)
    row = tune.assess(inner, tune.START | tune.RATES["rmsprop", 1], levels, seed=0, num_seeds=1)
    assert set(row["iqm"]) == set(levels)
    assert np.isfinite(row["mean"])


def test_agents_of_a_grid_are_tables():
    (test_set,) = suites.build("grid-tiny")
    assert tune.inner_loop(test_set, "a2c", "rmsprop", 1, 1).torso == Table()
