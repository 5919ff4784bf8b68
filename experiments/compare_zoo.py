"""Every shipped objective against tuned A2C, PPO and DPO, on every suite that a CPU finishes, at three horizons.

    python -m experiments.compare_zoo
    python -m experiments.compare_zoo --cards    # writes the zoo anew from what was measured before
    python -m experiments.compare_zoo --only quickstart --suites grid-tiny grid-unseen    # one of them

Writes docs/results/zoo.json, the table of docs/results/zoo.md and the scores of the cards. Nothing is tuned here.
The `objective.json` of a shipped objective keeps its headline suites: those of its own meta-test, which are in
docs/results/NAME.json, and the small one by which a test sees that the numbers come out again. Its card has them all.
Each suite is measured once and kept in a folder, so the script can be stopped at any time and goes on where it was; a
change of the code or of what it depends on is not noticed, so give it another `--runs` then.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from experiments.pages import write_between, write_json
from metadisco.checkpoints import checkpoint
from metadisco.core import score_table
from metadisco.core.devices import prepare_jax
from metadisco.core.provenance import provenance
from metadisco.evaluation import agents_under_test, meta_test
from metadisco.reports import comparison

RESULTS = Path("docs/results")
PAGE = RESULTS / "zoo.md"
QUICK = "grid-tiny"  # quick enough for a test to see whether it is so
BEGIN, END = "<!-- written by experiments/compare_zoo.py -->", "<!-- end of the table -->"
GRIDS, NETWORKS = ("a2c", "ppo", "dpo"), ("ppo", "dpo")


class Row(NamedTuple):
    """A suite at some horizons; A2C is tuned for tables only."""

    suite: str
    horizons: tuple[str, ...]
    baselines: tuple[str, ...]
    num_seeds: int
    num_levels: int | None = None

    @property
    def names(self) -> list[str]:
        """On the command line of `metadisco evaluate`."""
        return [f"{self.suite}@{horizon}" for horizon in self.horizons]


LONG, SHORT = ("x1/4", "x1", "x4"), ("x1/16", "x1/4", "x1")
ROWS = (
    Row(QUICK, ("x1",), GRIDS, 1),
    Row("grid-unseen", LONG, GRIDS, 1, 64),
    Row("grid-designed", SHORT, GRIDS, 1),
    Row("grid-random", SHORT, GRIDS, 1),
    Row("mazes", SHORT, GRIDS, 1),
    *(Row(name, LONG, NETWORKS, 4) for name in ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")),
    *(Row(f"{name}-bsuite", LONG, NETWORKS, 4) for name in ("Catch", "DeepSea", "DiscountingChain", "UmbrellaChain")),
    *(Row(f"brax-{name}", SHORT, NETWORKS, 2) for name in ("inverted_pendulum", "reacher")),
    Row("Breakout-MinAtar", ("x1/16", "x1/8", "x1/4"), NETWORKS, 2),  # the others take as long again, each
)


def beside_by_hand(improvement: dict) -> dict:
    """Suite -> objective -> hand-written one -> who beats whom: all pairs would be most of the file."""
    return {
        suite: {one: {other: pairs[other] for other in GRIDS if other in pairs} for one, pairs in found.items()}
        for suite, found in improvement.items()
    }


def measure(row: Row, name: str, runs: Path, seed: int, only: list[str]) -> dict:
    """The comparison on one suite at one horizon, from the folder where it is there; `only` some, or all of the zoo."""
    path = runs / f"{'+'.join([name, *only]).replace('/', '_')}.json"
    if path.exists():
        return json.loads(path.read_text())
    named = {each: checkpoint.load(each) for each in only or checkpoint.zoo_names()}
    named = {each: discovered for each, discovered in named.items() if fits(discovered, name)}
    found = meta_test.run(
        named,
        [name],
        num_seeds=row.num_seeds,
        seed=seed,
        num_levels=row.num_levels,
        baselines=() if only else row.baselines,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, comparison.document(named, found, seed=seed))
    return json.loads(path.read_text())


def fits(discovered: checkpoint.Discovered, name: str) -> bool:
    """Whether an objective can teach the agents of a suite; LPG cannot where actions are continuous."""
    try:
        meta_test.plan(agents_under_test.trained_objectives({"discovered": discovered}), [name], baselines=())
    except ValueError:
        return False
    return True


def table(scores: dict[str, dict]) -> str:
    """A line for each suite and horizon: the interquartile means of all agents, the best in bold."""
    agents = [*GRIDS, *checkpoint.zoo_names()]
    lines = []
    for suite, rows in scores.items():
        best = max(rows[agent]["iqm"] for agent in agents if agent in rows)
        cells = [_cell(rows[agent], best) if agent in rows else "" for agent in agents]
        lifetime = next(iter(rows.values()))["lifetime"]
        lines.append([suite.partition("@")[0], str(lifetime), *cells])
    return score_table.markdown(score_table.Table(["suite", "updates", *agents], lines))


def _cell(row: dict, best: float) -> str:
    point = score_table.decimal(row["iqm"], 2)
    between = score_table.interval(row["iqm_low"], row["iqm_high"], 2)
    return f"{f'**{point}**' if row['iqm'] == best else point}<br>({between})"  # in two lines, so that all fit


def write_cards(scores: dict[str, dict], seed: int, names: Sequence[str]) -> None:
    """Write objectives of the zoo anew: headline suites in `objective.json`, all suites in the card."""
    for name in names:
        discovered = checkpoint.load(name)
        found = {
            suite: {
                "discovered" if agent == name else agent: row | ({} if row["is_exact"] else {"seed": seed})
                for agent, row in rows.items()
                if agent == name or agent not in checkpoint.zoo_names()
            }
            for suite, rows in scores.items()
            if name in rows
        }
        meta_test = json.loads((RESULTS / f"{name}.json").read_text())
        headline = meta_test | {suite: found[suite] for suite in (QUICK,) if suite in found}
        further = {suite: rows for suite, rows in found.items() if suite not in headline}
        changed = replace(discovered, evaluation=headline)
        checkpoint.save(changed, checkpoint.ZOO / name, overwrite=True, card_scores=further)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="*", default=[row.suite for row in ROWS], help="[default: all]")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare_zoo"), help="where measurements are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "zoo.json")
    parser.add_argument("--seed", type=int, default=2000, help="of the agents [default: 2000]")
    parser.add_argument("--only", nargs="*", default=[], help="objectives of the zoo to measure, without baselines")
    parser.add_argument("--cards", action="store_true", help="measure nothing: write the zoo anew from --out")
    known = parser.parse_args()
    if known.cards:
        measured = json.loads(known.out.read_text())
        write_cards(measured["scores"], measured["seed"], known.only or checkpoint.zoo_names())
        return
    unknown = set(known.suites) - {row.suite for row in ROWS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(row.suite for row in ROWS)}")
    prepare_jax()
    kept = json.loads(known.out.read_text()) if known.only else {}
    scores: dict = kept.get("scores", {})
    improvement: dict = kept.get("improvement", {})
    differences: list[str] = kept.get("differences", [])
    measured_later = kept.get("measured_later", {}) | {name: provenance() for name in known.only}
    for row in ROWS:
        for name in row.names if row.suite in known.suites else ():
            found = measure(row, name, known.runs, known.seed, known.only)
            for suite, rows in found["scores"].items():
                scores[suite] = scores.get(suite, {}) | rows
            improvement = improvement | ({} if known.only else beside_by_hand(found["improvement"]))
            differences = list(dict.fromkeys([*differences, *found["differences"]]))
            ((suite, agents),) = found["scores"].items()
            print(suite, {agent: round(each["iqm"], 2) for agent, each in agents.items()}, flush=True)
            document = {"scores": scores, "improvement": improvement, "differences": differences}
            origin = {"provenance": kept.get("provenance") or provenance(), "measured_later": measured_later}
            write_json(known.out, document | {"seed": known.seed} | origin)
    write_cards(scores, known.seed, known.only or checkpoint.zoo_names())
    write_between(PAGE, BEGIN, END, table(scores))


if __name__ == "__main__":
    main()
