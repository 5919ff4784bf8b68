"""The figure of the front page: `experiments/front_page.py`."""

import json

import numpy as np

from experiments import front_page


def test_a_panel_shows_each_agent_and_all_runs():
    agents = {name: [0.0, 0.5, 0.8] for name in front_page.DRAWN} | {"discovered": [[0.0, 0.4, 0.9], [0.0, 0.6, 0.7]]}
    panel = {"fractions": [0.0, 0.5, 1.0], "agents": agents}
    first, second = front_page.draw({"16": panel, "64": panel}).axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["16 agent updates", "64 agent updates"]
    *by_hand, discovered = first.get_lines()
    assert len(by_hand) == len(front_page.DRAWN)
    np.testing.assert_allclose(discovered.get_ydata(), [0.0, 0.5, 0.8])  # the mean of the runs
    assert discovered.get_label() == "discovered (2 runs)"


def test_what_is_drawn_is_what_was_measured_on_levels_that_nothing_was_chosen_on():
    kept = json.loads(front_page.JSON.read_text())
    assert kept["setting"]["suite"] == front_page.SUITE
    assert kept["setting"]["levels"] is None
    assert list(kept["panels"]) == [str(lifetime) for lifetime in front_page.LIFETIMES]
    tables = json.loads(front_page.JSON.with_name("tables.json").read_text())["scores"]
    for lifetime, panel in kept["panels"].items():  # the same levels, agents and keys as the table beside it
        for agent in front_page.DRAWN:
            np.testing.assert_allclose(panel["agents"][agent][-1], tables[lifetime][agent]["iqm"], atol=1e-5)
        runs = [run[-1] for run in panel["agents"]["discovered"]]
        expected = [tables[lifetime][run.name]["iqm"] for run in front_page.RUNS]
        np.testing.assert_allclose(runs, expected, atol=1e-5)
