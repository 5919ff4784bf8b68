"""Discovered exploration beside hand-written algorithms with and without a bonus of counts, over meta-training runs.

    python -m experiments.compare_exploration runs/exploring/exploring-a2c/seed* --json docs/results/exploration.json

A2C, PPO and DPO are those that were tuned on general grid worlds. `a2c-count` and `ppo-count` are A2C and PPO with a
bonus of counts by hand (`metadisco.WithCountBonus`), all settings tuned anew on general grid worlds and labyrinths
together (`experiments/tune.py`): one setting for everything, as a discovered objective is. The runs named are of one
setting and different seeds; intervals are over them. Levels and the agents' keys are the same for everybody. What the
JSON file has already is not measured again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments import tune
from experiments.compare_tables import Agents, called, fill, load, summarize
from experiments.pages import write_between
from metadisco.core.devices import prepare_jax
from metadisco.core.files import write_atomically
from metadisco.core.provenance import provenance
from metadisco.core.score_table import Table, decimal, interval, markdown
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
PAGES = {Path("README.md"): IN_SHORT, Path("docs/results/index.md"): SUITES}
BEGIN, END = "<!-- written by experiments/compare_exploration.py -->", "<!-- end of exploration -->"
MEASURES = {"iqm": "IQM", "cvar": "worst 10%"}


def by_hand(like: InnerLoop, test_set: TestSet) -> Agents:
    """Hand-written algorithms, with rollouts and test episodes as those of a discovered one."""
    found: Agents = {name: (tuned(like), ()) for name, tuned in FOR_TABLES.items()}
    document = json.loads(PPO_COUNT.read_text())
    how = (document[part] for part in ("optimizer", "epochs", "minibatches"))
    inner = replace(tune.inner_loop(test_set, "ppo-count", *how), num_test_workers=like.num_test_workers)
    return found | {"ppo-count": (inner, tune.as_meta_params(document["best"]["values"]))}


def num_agents(test_set: TestSet) -> int:
    """Agents on each level."""
    return max(2, int(np.ceil(FEWEST_LIVES / test_set.num_tasks)))


def overview(rows: list[dict]) -> str:
    """Suites and measures as Markdown: the discovered rule, every other, and its lead over the best of them."""
    others = list(dict.fromkeys(row["other"] for row in rows))
    cells = []
    for suite, measure in dict.fromkeys((row["suite"], row["measure"]) for row in rows):
        here = {row["other"]: row for row in rows if (row["suite"], row["measure"]) == (suite, measure)}
        best = max(here.values(), key=lambda row: row["of other"])
        ours = decimal(best["discovered"])
        lead = f"{decimal(best['difference'])} ({interval(best['low'], best['high'])})"
        theirs = (decimal(here[other]["of other"]) for other in others)
        cells.append([suite, MEASURES[measure], f"**{ours}**" if best["difference"] > 0 else ours, *theirs, lead])
    head = ["suite@updates", "measure", f"discovered, mean of {rows[0]['runs']} runs", *map(called, others)]
    return markdown(Table([*head, "ahead of the best of them by"], cells))


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
    before = json.loads(known.json.read_text()) if known.json and known.json.exists() else {}
    if before and before["setting"] != setting:
        parser.error(f"{known.json} was measured otherwise, {before['setting']}: name another file")

    def keep(**rows: list[dict]) -> None:
        if known.json:
            document = {"setting": setting, "provenance": provenance(), "scores": table, **rows}
            write_atomically(known.json, (json.dumps(document, indent=2) + "\n").encode())

    table, discovered = before.get("scores", {}), load(known.runs)
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
