"""The figure of the front page: `experiments/front_page.py`."""

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
