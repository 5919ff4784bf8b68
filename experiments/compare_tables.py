"""Discovered objectives for tables beside tuned A2C, PPO and DPO, over meta-training runs, at several lifetimes.

    python -m experiments.compare_tables runs/tables/scheduled-a2c-quick/seed* --json docs/results/tables.json

The runs named are of one setting and different seeds; intervals are over them. Hand-written algorithms need no
meta-training: the levels and the agents' keys are the same for everybody, so a difference is that of each run to one
number of theirs. Their hyper-parameters are those of `metadisco.lives.tuned`, one setting for all lifetimes, and, as a
stronger yardstick, the best that was found for this lifetime alone (`a2c for it`). What the JSON file has already is
not measured again, so runs can join later.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments import tune
from experiments.pages import write_between, write_json
from metadisco.checkpoints import checkpoint
from metadisco.core.devices import prepare_jax
from metadisco.core.provenance import provenance
from metadisco.core.score_table import Table, decimal, interval, markdown
from metadisco.evaluation import evaluation, stats, suites
from metadisco.evaluation.agents_under_test import FOR_TABLES, trained_with
from metadisco.evaluation.test_sets import TestSet

LIFETIMES = (16, 64, 256)
TUNED = {algorithm: Path(f"docs/results/tune_{algorithm}.json") for algorithm in ("a2c", "ppo")}
NUM_AGENTS = 2  # on each level
MEASURES = {"iqm": stats.iqm, "cvar": stats.cvar}
CALLED = {"iqm": "IQM", "cvar": "worst 10% of levels"}
PAGE = Path("docs/results/grid-worlds.md")
BEGIN, END = "<!-- written by experiments/compare_tables.py -->", "<!-- end of what was found -->"


Agents = dict[str, tuple]  # name -> (inner loop, meta-parameters)


def load(runs: list[Path]) -> Agents:
    """The agents of discovered objectives, as they were meta-trained."""
    found = {run.name: checkpoint.load(run) for run in runs}
    return {name: (trained_with(each)[0], each.meta_params) for name, each in found.items()}


def agents(discovered: Agents, test_set: TestSet) -> Agents:
    """All that is tested on some levels at some lifetime."""
    inner = next(iter(discovered.values()))[0]
    by_hand = {name: (tuned(inner), ()) for name, tuned in FOR_TABLES.items()}
    return by_hand | tuned_for(test_set, inner.num_test_workers) | discovered


def tuned_for(test_set: TestSet, num_test_workers: int) -> Agents:
    """Hand-written algorithms with the best setting that tuning tried at this lifetime alone, where it tried any."""
    found = {}
    for algorithm, path in TUNED.items():
        document = json.loads(path.read_text())
        best = document["best_by_lifetime"].get(str(test_set.lifetime))
        if best is not None:
            found[f"{algorithm} for it"] = as_tuned(document, best["values"], test_set, num_test_workers)
    return found


def as_tuned(document: dict, values: dict, test_set: TestSet, num_test_workers: int) -> tuple:
    """The agents of a hand-written algorithm, with values that a record of `experiments.tune` has."""
    how = (document[part] for part in ("algorithm", "optimizer", "epochs", "minibatches"))
    inner = replace(tune.inner_loop(test_set, *how), num_test_workers=num_test_workers)
    return inner, tune.as_meta_params(values)


def go_on(parser: argparse.ArgumentParser, path: Path | None, setting: dict) -> tuple[dict, Callable[..., None]]:
    """The table that a file has, and a function that writes the file with the table as it is then, and further rows.

    The parser ends the script where the file was measured with another setting.
    """
    before = json.loads(path.read_text()) if path and path.exists() else {}
    if before and before["setting"] != setting:
        parser.error(f"{path} was measured otherwise, {before['setting']}: name another file")
    table = before.get("scores", {})

    def keep(**rows: list[dict]) -> None:
        if path:
            document = {"setting": setting, "provenance": provenance(), "scores": table, **rows}
            write_json(path, document)

    return table, keep


def measure(known: argparse.Namespace, kept: Callable[[], None], table: dict) -> None:
    """Fill in lifetime -> agent -> measures, beside what is in the table already; `kept` is called after each."""
    discovered = load(known.runs)
    for lifetime in known.lifetimes:
        rows = table.setdefault(str(lifetime), {})
        (test_set,) = suites.build(f"{known.suite}@{lifetime}", known.levels)
        fill(rows, agents(discovered, test_set), test_set, known.seed, NUM_AGENTS, kept)


def fill(rows: dict, agents: Agents, test_set: TestSet, seed: int, num_agents: int, kept: Callable[[], None]) -> None:
    """Measure those agents that are not in the rows; `kept` is called after each."""
    for name, (inner, meta_params) in agents.items():
        if name in rows:
            continue
        found = evaluation.evaluate(inner, meta_params, test_set, seed=seed, num_seeds=num_agents, num_points=1)
        rows[name] = {measure: float(of(found.scores[-1])) for measure, of in MEASURES.items()}
        values = "  ".join(f"{measure} {value:.3f}" for measure, value in rows[name].items())
        print(f"{test_set.name:20} {name:10} {values}", flush=True)
        kept()


def summarize(table: dict, runs: list[str]) -> list[dict]:
    """Means over the runs, and their differences to each hand-written algorithm, with 95% intervals over runs.

    Keys of the table are lifetimes or names of test sets.
    """
    rows = []
    for key, found in table.items():
        where = {"lifetime": int(key)} if key.isdigit() else {"suite": key}
        for measure in MEASURES:
            ours = np.array([found[run][measure] for run in runs])
            for other in [name for name in found if name not in runs]:
                difference = stats.mean_interval(ours - found[other][measure])
                rows.append(
                    {
                        **where,
                        "measure": measure,
                        "runs": len(runs),
                        "discovered": float(ours.mean()),
                        "other": other,
                        "of other": found[other][measure],
                        "difference": difference.point,
                        "low": difference.low,
                        "high": difference.high,
                    }
                )
    return rows


def overview(rows: list[dict], by: str = "lifetime", measures: dict[str, str] = CALLED) -> str:
    """As Markdown: the discovered rule, every other, and its lead over the best of them, a line for each measure.

    Args:
        rows: of `summarize`.
        by: `lifetime`, or `suite` where the table was by names of test sets.
        measures: what to call them.
    """
    others = list(dict.fromkeys(row["other"] for row in rows))
    cells = []
    for where, measure in dict.fromkeys((row[by], row["measure"]) for row in rows):
        here = {row["other"]: row for row in rows if (row[by], row["measure"]) == (where, measure)}
        best = max(here.values(), key=lambda row: row["of other"])
        lead = f"{decimal(best['difference'])} ({interval(best['low'], best['high'])})"
        theirs = [decimal(here[other]["of other"]) if other in here else "" for other in others]
        ours = decimal(best["discovered"])
        ours = f"**{ours}**" if best["difference"] > 0 else ours
        cells.append([str(where), measures[measure], ours, *theirs, lead])
    runs = rows[0]["runs"]
    head = [
        {"lifetime": "updates", "suite": "suite@updates"}[by],
        "measure",
        f"discovered, mean of {runs} runs",
        *map(called, others),
    ]
    return markdown(Table([*head, "ahead of the best of them by"], cells))


def called(other: str) -> str:
    """A hand-written algorithm in the head of a table."""
    name, _, is_for_it = other.partition(" ")
    name, _, has_bonus = name.partition("-")
    return name.upper() + " + bonus of counts" * bool(has_bonus) + " tuned for this lifetime" * bool(is_for_it)


def as_table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    head = ["lifetime", "measure", "runs", "discovered", "other", "of other", "difference", "over runs"]
    cells = [
        [
            *(str(row["lifetime"]), CALLED[row["measure"]], str(row["runs"]), decimal(row["discovered"]), row["other"]),
            *(decimal(row["of other"]), decimal(row["difference"]), interval(row["low"], row["high"])),
        ]
        for row in rows
    ]
    return markdown(Table(head, cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, or checkpoints")
    parser.add_argument("--suite", default="grid-heldout", help="grid suite [default: grid-heldout]")
    parser.add_argument("--lifetimes", type=int, nargs="+", default=list(LIFETIMES), help="agent updates")
    parser.add_argument("--levels", type=int, help="only the first so many levels")
    parser.add_argument("--seed", type=int, default=0, help="of the agents [default: 0]")
    parser.add_argument("--json", type=Path, help="write what was measured and the rows")
    parser.add_argument("--page", action="store_true", help="write the overview into the results page")
    known = parser.parse_args()
    prepare_jax()
    setting = {"suite": known.suite, "seed": known.seed, "levels": known.levels, "agents_per_level": NUM_AGENTS}
    table, keep = go_on(parser, known.json, setting)
    measure(known, keep, table)
    rows = summarize(table, [run.name for run in known.runs])
    print(as_table(rows))
    keep(rows=rows)
    if known.page:
        write_between(PAGE, BEGIN, END, overview(rows))


if __name__ == "__main__":
    main()
