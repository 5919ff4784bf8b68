"""The table of exploration by hand and discovered, from numbers whose answer is known."""

from experiments.compare_exploration import overview
from experiments.compare_tables import summarize

TABLE = {
    "labyrinths@64": {
        "a2c": {"iqm": 0.1, "cvar": 0.0},
        "a2c-count": {"iqm": 0.9, "cvar": 0.3},
        "seed0": {"iqm": 0.96, "cvar": 0.2},
        "seed1": {"iqm": 0.94, "cvar": 0.2},
    }
}


def test_the_lead_is_over_the_best_by_hand():
    lines = overview(summarize(TABLE, ["seed0", "seed1"])).splitlines()
    assert "| A2C | A2C + bonus of counts | ahead of the best of them by |" in lines[0]
    assert lines[2].startswith("| labyrinths@64 | IQM | **0.950** | 0.100 | 0.900 | 0.050 (")
    assert lines[3].startswith("| labyrinths@64 | worst 10% | 0.200 | 0.000 | 0.300 | -0.100 (")
