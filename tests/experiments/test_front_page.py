"""The figure of the front page: `experiments/front_page.py`."""

import json

import numpy as np

from experiments import front_page


def test_a_panel_shows_each_agent_and_all_runs():
    agents = {name: [0.0, 0.5, 0.8] for name in front_page.DRAWN} | {"discovered": [[0.0, 0.4, 0.9], [0.0, 0.6, 0.7]]}
    panel = {"fractions": [0.0, 0.5, 1.0], "agents": agents}
    first, second = front_page.draw({"labyrinths@16": panel, "mazes@250": panel}).axes
    titles = [axes.get_title(loc="left") for axes in (first, second)]
    assert titles == ["labyrinths, 16 updates", "mazes, 250 updates"]
    *by_hand, discovered = first.get_lines()
    assert len(by_hand) == len(front_page.DRAWN)
    np.testing.assert_allclose(discovered.get_ydata(), [0.0, 0.5, 0.8])  # the mean of the runs
    assert discovered.get_label() == "discovered (2 runs)"


def test_what_is_drawn_is_what_the_table_beside_it_says():
    kept = json.loads(front_page.JSON.read_text())
    assert kept["setting"]["levels"] is None
    assert list(kept["panels"]) == list(front_page.PANELS)
    table = json.loads(front_page.JSON.with_name("exploration.json").read_text())["scores"]
    for suite, panel in kept["panels"].items():  # the same levels, agents and keys
        for agent in front_page.DRAWN:
            np.testing.assert_allclose(panel["agents"][agent][-1], table[suite][agent]["iqm"], atol=1e-5)
        runs = [run[-1] for run in panel["agents"]["discovered"]]
        np.testing.assert_allclose(runs, [table[suite][run.name]["iqm"] for run in front_page.RUNS], atol=1e-5)
