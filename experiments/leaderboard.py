"""The leaderboard: who is where, by kind of environment, made of the files of results.

    python -m experiments.leaderboard

Writes docs/results/leaderboard.md. Nothing is measured.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claims import read
from experiments.compare_tables import called
from experiments.pages import write_between
from metadisco.core.score_table import DASH, Table, decimal, markdown, point
from metadisco.evaluation import stats

PAGE = Path("docs/results/leaderboard.md")
GRIDS = ("<!-- written by experiments/leaderboard.py: grids -->", "<!-- end of grids -->")
NETWORKS = ("<!-- written by experiments/leaderboard.py: networks -->", "<!-- end of networks -->")
DISCOVERED = "**{} (discovered)**"
KINDS = {  # at the usual budgets
    "classic control": ("CartPole-v1", "Acrobot-v1", "Pendulum-v1"),
    "bsuite": ("Catch-bsuite", "DeepSea-bsuite", "DiscountingChain-bsuite", "UmbrellaChain-bsuite"),
    "brax": ("brax-inverted_pendulum", "brax-reacher"),
}
NOT_AGENTS = ("random", "optimal", "reference")
Scores = Mapping[str, Mapping[str, Any]]


def grids(measured: Mapping[str, Scores], name: str) -> str:
    """Tabular agents: IQM on each suite, the best in the mean first; of what was discovered, an interval over runs."""
    runs = [each for each in next(iter(measured.values())) if each.startswith("seed")]
    means, cells = {}, {}
    for agent in [each for each in next(iter(measured.values())) if each not in runs]:
        values = [scores[agent]["iqm"] for scores in measured.values()]
        means[called(agent)], cells[called(agent)] = np.mean(values), [decimal(value) for value in values]
    ours = DISCOVERED.format(f"{name}, {len(runs)} runs")
    found = [stats.mean_interval(np.array([scores[run]["iqm"] for run in runs])) for scores in measured.values()]
    means[ours] = np.mean([each.point for each in found])
    cells[ours] = [point(each.point, each.low, each.high) for each in found]
    order = sorted(means, key=lambda agent: -means[agent])
    return markdown(Table(["", "mean", *measured], [[agent, decimal(means[agent]), *cells[agent]] for agent in order]))


def networks(measured: Mapping[str, Scores]) -> str:
    """Networks: mean over environments of the IQM at the usual budget, by kind; the best in the mean first."""
    kinds = {kind: [measured[suite] for suite in suites] for kind, suites in KINDS.items()}
    agents = {agent for suites in kinds.values() for scores in suites for agent in scores} - {*NOT_AGENTS}
    cells: dict[str, list[float | None]] = {}
    for agent in sorted(agents):
        name = agent.upper() if agent in ("ppo", "dpo") else DISCOVERED.format(agent)
        cells[name] = [
            float(np.mean([scores[agent]["iqm"] for scores in suites]))
            if all(agent in each for each in suites)
            else None
            for suites in kinds.values()
        ]
    order = sorted(cells, key=lambda name: -np.mean([value if value is not None else 0.0 for value in cells[name]]))
    rows = [[name, *(DASH if value is None else decimal(value, 2) for value in cells[name])] for name in order]
    return markdown(Table(["", *KINDS], rows))


def main() -> None:
    write_between(PAGE, *GRIDS, grids(read("exploration")["scores"], "quickstart"))
    write_between(PAGE, *NETWORKS, networks(read("zoo")["scores"]))


if __name__ == "__main__":
    main()
