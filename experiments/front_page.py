"""The figure of the front page: learning curves of what was discovered beside what was written by hand.

    python -m experiments.front_page
    python -m experiments.front_page --draw    # measures nothing: the figure of what was measured before

A panel is a test set at one lifetime. A line is the IQM of normalized scores over its levels and agents; of what was
discovered the mean over meta-training runs, with the lowest and the highest run as a band. Each panel is measured once
and kept in docs/results/front_page.json, so the script can be stopped at any time.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.compare_exploration import by_hand, num_agents
from experiments.compare_tables import load
from metadisco.core.devices import prepare_jax
from metadisco.core.files import write_atomically
from metadisco.core.provenance import provenance
from metadisco.evaluation import evaluation, stats, suites
from metadisco.reports.chart_style import STYLE, color, name
from metadisco.reports.plots import Curve, draw_curves

RUNS = sorted(Path("experiments/campaigns/exploring/quickstart").glob("seed*"))
PANELS = {
    "grid-heldout@64": "general grid worlds, 64 updates",
    "labyrinths@16": "labyrinths, 16 updates",
    "mazes@250": "mazes, 250 updates",
}
NUM_POINTS, SEED = 8, 0
DRAWN = ("a2c", "a2c-count", "ppo")
JSON, FIGURE = Path("docs/results/front_page.json"), Path("docs/images/found.svg")


def measure(suite: str, levels: int | None) -> dict[str, Any]:
    """Agent -> IQM at each point, and the points, of one panel; `discovered` has a row for each run."""
    discovered = load(RUNS)
    (test_set,) = suites.build(suite, levels)
    panel: dict[str, Any] = {"agents": {}}
    like = next(iter(discovered.values()))[0]
    for agent, (inner, meta_params) in (by_hand(like, test_set) | discovered).items():
        if agent in DRAWN or agent in discovered:
            found = evaluation.evaluate(
                inner, meta_params, test_set, seed=SEED, num_seeds=num_agents(test_set), num_points=NUM_POINTS
            )
            panel["fractions"] = found.fractions.tolist()
            panel["agents"][agent] = [float(stats.iqm(scores)) for scores in found.scores]
            print(f"{suite} {agent}: {panel['agents'][agent][-1]:.3f}", flush=True)
    panel["agents"]["discovered"] = [panel["agents"].pop(run) for run in discovered]
    return panel


def draw(panels: dict[str, dict[str, Any]]) -> Figure:
    """One panel for each suite, side by side, with one legend in the first, where there is room."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True)
    for axes, (suite, panel) in zip(every, panels.items(), strict=True):
        runs = {agent: np.atleast_2d(panel["agents"][agent]) for agent in (*DRAWN, "discovered")}
        called = {agent: name(agent) for agent in DRAWN}
        called |= {"discovered": f"discovered ({len(runs['discovered'])} runs)"}
        x = np.array(panel["fractions"])
        curves = {called[agent]: Curve(x, each.mean(0), each.min(0), each.max(0)) for agent, each in runs.items()}
        draw_curves(axes, curves, {called[agent]: color(agent) for agent in runs})
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="fraction of the lifetime")
        axes.set_title(PANELS[suite], loc="left", fontsize=10)
    every[0].set_ylabel("IQM of normalised scores")
    every[0].legend(loc="lower right", frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, help="only the first so many levels, for a try")
    parser.add_argument("--json", type=Path, default=JSON, help=f"what was measured [default: {JSON}]")
    parser.add_argument("--figure", type=Path, default=FIGURE, help=f"[default: {FIGURE}]")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    known = parser.parse_args()
    kept = json.loads(known.json.read_text()) if known.json.exists() else {"panels": {}}
    prepare_jax()
    for suite in PANELS:
        if suite not in kept["panels"] and not known.draw:
            kept["panels"][suite] = measure(suite, known.levels)
            setting = {"levels": known.levels, "seed": SEED}
            kept |= {"setting": setting, "provenance": provenance()}
            write_atomically(known.json, (json.dumps(kept, indent=1) + "\n").encode())
    with matplotlib.rc_context(STYLE):
        draw(kept["panels"]).savefig(known.figure, metadata={"Date": None})


if __name__ == "__main__":
    main()
