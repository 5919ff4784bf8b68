"""Rows of the comparison on tables, from a table whose answer is known."""

import pytest

from experiments.compare_tables import as_table, overview, summarize

TABLE = {
    "16": {
        "a2c": {"iqm": 0.7, "cvar": 0.1},
        "ppo": {"iqm": 0.9, "cvar": 0.3},
        "seed0": {"iqm": 0.8, "cvar": 0.2},
        "seed1": {"iqm": 0.84, "cvar": 0.2},
    }
}


def test_a_row_is_the_mean_over_runs_and_its_difference_to_one_algorithm():
    rows = {(row["measure"], row["other"]): row for row in summarize(TABLE, ["seed0", "seed1"])}
    assert set(rows) == {(measure, other) for measure in ("iqm", "cvar") for other in ("a2c", "ppo")}
    row = rows["iqm", "a2c"]
    assert (row["discovered"], row["difference"]) == pytest.approx((0.82, 0.12))
    assert row["low"] < 0.12 < row["high"]
    assert rows["iqm", "ppo"]["difference"] == pytest.approx(-0.08)
    assert rows["cvar", "a2c"]["low"] == pytest.approx(0.1)  # both runs are equal there


def test_the_overview_has_the_lead_over_the_best():
    lines = overview(summarize(TABLE, ["seed0", "seed1"])).splitlines()
    assert lines[0].startswith("| updates | measure | discovered, mean of 2 runs | A2C | PPO |")
    assert lines[2].startswith("| 16 | IQM | 0.820 | 0.700 | 0.900 | -0.080 (")
    assert len(lines) == 4


def test_an_algorithm_that_is_tuned_for_one_lifetime_has_a_column_and_can_be_the_best():
    table = {"16": TABLE["16"] | {"a2c for it": {"iqm": 0.95, "cvar": 0.2}}, "1000": TABLE["16"]}
    lines = overview(summarize(table, ["seed0", "seed1"])).splitlines()
    assert "| PPO | A2C tuned for this lifetime |" in lines[0]
    assert lines[2].startswith("| 16 | IQM | 0.820 | 0.700 | 0.900 | 0.950 | -0.130 (")
    assert lines[4].startswith("| 1000 | IQM | 0.820 | 0.700 | 0.900 |  | -0.080 (")


def test_the_table_says_which_is_which():
    text = as_table(summarize(TABLE, ["seed0", "seed1"]))
    assert "worst 10% of levels" in text
    assert "0.820" in text
