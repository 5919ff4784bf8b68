"""Agreement of two scores of the same levels: what correlations, their intervals and the lives behind them are."""

import argparse
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import score_noise
from metadisco.core.types import Task

RNG = np.random.default_rng(0)


def noisy(num, noise):
    level = RNG.normal(size=num)
    return [level + noise * RNG.normal(size=num) for _ in range(2)]


def test_correlations_are_those_of_scipy_and_inside_their_intervals():
    first, second = noisy(200, 0.7)
    row = score_noise.correlations(first, second, np.random.default_rng(1))
    for name, expected in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        np.testing.assert_allclose(row[name]["point"], expected(first, second).statistic, rtol=1e-6)
        assert row[name]["low"] < row[name]["point"] < row[name]["high"]
    # Variances 1 of the level and 0.49 of each life: correlation 1 / 1.49.
    assert row["pearson"]["low"] < 1 / 1.49 < row["pearson"]["high"]


def test_intervals_shrink_with_the_number_of_levels():
    widths = []
    for num in (20, 500):
        found = score_noise.correlations(*noisy(num, 1.0), np.random.default_rng(1))["pearson"]
        widths.append(found["high"] - found["low"])
    assert widths[1] < 0.5 * widths[0]


def test_scores_that_are_not_finite_are_left_out_and_counted():
    first, second = noisy(30, 0.5)
    spoiled = np.concatenate([[np.nan, 99.0], first]), np.concatenate([[0.0, np.inf], second])
    row, plain = (score_noise.correlations(*pair, np.random.default_rng(1)) for pair in (spoiled, (first, second)))
    assert (row["num_levels"], row["num_nonfinite"]) == (30, 2)
    assert row["pearson"] == plain["pearson"]


@pytest.mark.parametrize("second", [np.arange(9.0), np.zeros(9)])
def test_a_constant_score_has_no_correlation(second):
    row = score_noise.correlations(np.full(9, 1e-7), second, np.random.default_rng(1))
    assert row["pearson"] is row["spearman"] is None
    assert score_noise.cell(row["pearson"]) == "constant"


def test_the_ends_of_the_scale_are_in_order():
    tasks = jax.vmap(lambda key: Task(score_noise.LEVELS.sample(key), jnp.int32(1)))(
        jax.random.split(jax.random.key(0), 3)
    )
    lower, upper = score_noise.ends(tasks)
    assert (lower < upper).all()


@pytest.mark.slow
def test_the_script_writes_a_row_for_each_score(tmp_path, monkeypatch):
    out = tmp_path / "noise.json"
    sizes = ["--levels", "4", "--shortest", "2", "--longest", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["score_noise", "a2c", *sizes])
    score_noise.main()
    document = json.loads(out.read_text())
    assert set(document["rows"]["a2c"]) == set(score_noise.SCORES)
    assert document["provenance"]["commit"]
    # The antagonist is the agent itself: nothing is left of the regret.
    assert document["rows"]["a2c"]["regret, tuned A2C"]["pearson"] is None
    again = score_noise.measure("a2c", argparse.Namespace(levels=4, shortest=2, longest=3, seed=0))
    assert again == document["rows"]["a2c"]
