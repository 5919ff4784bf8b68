"""Scores are written alike wherever they are shown."""

import io

import pytest
from rich.console import Console

from metadisco.checkpoints.card import card
from metadisco.core import score_table
from metadisco.core.score_table import Table, cell, markdown, with_interval
from metadisco.evaluation import meta_test
from metadisco.reports import tables

ROW = {
    "iqm": 0.8401,
    "iqm_low": -0.0004,
    "iqm_high": 0.864,
    "mean_return": 1.5,
    "is_exact": False,
    "num_tasks": 16,
    "num_seeds": 2,
    "lifetime": 64,
    "env_steps": 40960,
}
AGENTS = {"discovered": ROW, "optimal": ROW | {"is_exact": True}}


def terminal() -> str:
    shown = io.StringIO()
    meta_test.show({"grid": AGENTS}, Console(width=100, file=shown))
    return shown.getvalue()


def of_card() -> str:
    document = {"provenance": {}, "objective": {}, "features": [], "meta_params": {}, "evaluation": {"grid": AGENTS}}
    return card(document, "mine", "path/to/mine", {}, is_shipped=False)


@pytest.mark.parametrize(
    "shown",
    [
        terminal,
        of_card,
        lambda: markdown(score_table.score_table(AGENTS)),
        lambda: tables.html_score_table("grid", AGENTS),
    ],
    ids=["terminal", "card", "markdown", "html"],
)
def test_a_score_and_its_interval_read_alike_everywhere(shown):
    text = shown()
    assert "0.840" in text
    assert "0.000 to 0.864" in text  # never a negative zero
    assert "1.500" in text


def test_an_exact_score_has_no_interval():
    assert with_interval(AGENTS["optimal"]) == "0.840"


def test_columns_that_no_row_has_are_left_out_and_what_one_row_lacks_is_empty():
    table = score_table.score_table({"a": ROW, "b": {"iqm": 1.0, "seed": 7}}, ("iqm", "cvar", "env_steps", "seed"))
    assert table.head == ["agent", "IQM", "environment steps", "seed"]
    assert table.rows[1] == ["b", "1.000", "", "7"]


def test_large_numbers_are_grouped_and_missing_ones_are_dashes():
    assert cell(ROW, "env_steps") == "40,960"
    assert score_table.decimal(float("nan")) == score_table.decimal(None) == score_table.DASH


def test_a_name_cannot_end_a_cell_of_markdown():
    assert markdown(Table(["agent"], [["a|b"]])).splitlines()[-1] == "| a\\|b |"
