"""Discovered exploration beside hand-written algorithms with and without a bonus of counts, over meta-training runs.

    python -m experiments.compare_exploration runs/exploring/quickstart/seed* --json docs/results/exploration.json

A2C, PPO and DPO are those that were tuned on general grid worlds. `a2c-count` and `ppo-count` are A2C and PPO with a
bonus of counts by hand (`metadisco.WithCountBonus`), all settings tuned anew on general grid worlds and labyrinths
together (`experiments/tune.py`): one setting for everything, as a discovered objective is. The runs named are of one
setting and different seeds; intervals are over them. Levels and the agents' keys are the same for everybody. What the
JSON file has already is not measured again.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from experiments import compare_tables
from experiments.compare_tables import Agents, as_tuned, fill, go_on, load, summarize
from experiments.pages import write_between
from metadisco.core.devices import prepare_jax
from metadisco.evaluation import suites
from metadisco.evaluation.agents_under_test import FOR_TABLES
from metadisco.evaluation.test_sets import TestSet
from metadisco.lives.life import InnerLoop

SUITES = (
    *("grid-heldout@16", "grid-heldout@64", "grid-heldout@256"),
    *("labyrinths@16", "labyrinths@64", "labyrinths@256"),
    *("mazes@64", "mazes@250", "mazes@1000"),
    *("grid-designed@62", "grid-designed@250"),
)
PPO_COUNT = Path("docs/results/tune_ppo_count.json")
FEWEST_LIVES = 128  # on each suite; small suites have several agents on each level
IN_SHORT = ("grid-heldout@16", "grid-heldout@64", "grid-heldout@256", "labyrinths@16", "labyrinths@64", "mazes@250")
PAGES = {Path("README.md"): IN_SHORT, Path("docs/results/grid-worlds.md"): SUITES}
BEGIN, END = "<!-- written by experiments/compare_exploration.py -->", "<!-- end of exploration -->"
MEASURES = {"iqm": "IQM", "cvar": "worst 10%"}


def by_hand(like: InnerLoop, test_set: TestSet) -> Agents:
    """Hand-written algorithms, with rollouts and test episodes as those of a discovered one."""
    found: Agents = {name: (tuned(like), ()) for name, tuned in FOR_TABLES.items()}
    document = json.loads(PPO_COUNT.read_text())
    best = document["best"]["values"]
    return found | {"ppo-count": as_tuned(document, best, test_set, like.num_test_workers)}


def num_agents(test_set: TestSet) -> int:
    """Agents on each level."""
    return max(2, int(np.ceil(FEWEST_LIVES / test_set.num_tasks)))


def overview(rows: list[dict]) -> str:
    """The table as Markdown."""
    return compare_tables.overview(rows, by="suite", measures=MEASURES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, or checkpoints")
    parser.add_argument("--suites", nargs="+", default=list(SUITES), help="grid suites, NAME@LIFETIME")
    parser.add_argument("--levels", type=int, help="only the first so many levels of each")
    parser.add_argument("--seed", type=int, default=0, help="of the agents [default: 0]")
    parser.add_argument("--json", type=Path, help="write what was measured and the rows")
    parser.add_argument(
        "--pages", action="store_true", help="write the overview into the results page, and in short into README.md"
    )
    known = parser.parse_args()
    prepare_jax()
    setting = {"seed": known.seed, "levels": known.levels, "fewest_lives": FEWEST_LIVES}
    table, keep = go_on(parser, known.json, setting)
    discovered = load(known.runs)
    for name in known.suites:
        (test_set,) = suites.build(name, known.levels)
        agents = by_hand(next(iter(discovered.values()))[0], test_set) | discovered
        fill(table.setdefault(name, {}), agents, test_set, known.seed, num_agents(test_set), keep)
    rows = summarize({name: table[name] for name in known.suites}, list(discovered))
    print(overview(rows))
    keep(rows=rows)
    if known.pages:
        for page, shown in PAGES.items():
            write_between(page, BEGIN, END, overview([row for row in rows if row["suite"] in shown]))


if __name__ == "__main__":
    main()
