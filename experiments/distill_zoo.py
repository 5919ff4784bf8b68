"""The rules of the zoo as formulas, and how the formulas do beside their originals: the numbers of docs/formulas.md.

    python -m experiments.distill_zoo lpo-quick ta-lpo-quick

The script can be stopped at any time and goes on where it was: formulas and scores are kept in `--runs`.
"""

import argparse
import json
from pathlib import Path

from experiments.pages import write_json
from metadisco import cli
from metadisco.checkpoints import checkpoint
from metadisco.core import score_table
from metadisco.core.provenance import provenance

# name in the zoo -> options of `metadisco distill`, and of `metadisco evaluate`
DRIFT = ["--suite", "Acrobot-v1", "--suite", "Pendulum-v1", "--seeds", "8"]
GRID = ["--suite", "grid-unseen", "--levels", "16", "--seeds", "2", "--against", "a2c", "a2c-count"]
PLAN = {
    "lpo-quick": ([], DRIFT),
    "ta-lpo-quick": ([], DRIFT),
    "quickstart": (["--lives", "24", "--restarts", "1", "--tolerance", "0.02"], GRID),
    "lpg-grid": ([], GRID),
}


def measure(name: str, runs: Path, seed: int) -> dict:
    """What is written down of one rule, from the folder of runs where it is there."""
    to_distill, to_evaluate = PLAN[name]
    folder, scores = runs / f"{name}-formula", runs / f"{name}-scores.json"
    if not folder.exists():
        run(["distill", name, "--out", str(folder), "--seed", str(seed), *to_distill])
    if not scores.exists():
        run(["evaluate", name, f"formula={folder}", *to_evaluate, "--seed", "1000", "--json", str(scores)])
    told = checkpoint.load(folder).provenance["distillation"]
    return {"distillation": told, "evaluation": json.loads(scores.read_text())["scores"]}


def run(arguments: list[str]) -> None:
    """One command of metadisco."""
    print("metadisco", *arguments, flush=True)
    if cli.main(arguments):
        raise SystemExit(f"metadisco {' '.join(arguments)} failed")


def markdown(name: str, measured: dict) -> str:
    """The formulas of a rule and its scores, as the page has them."""
    told = measured["distillation"]
    rows = [[each["name"], f"`{each['formula']}`", f"{each['r2']:.2f}"] for each in told["parts"]]
    tables = [score_table.markdown(score_table.Table([name, "formula", "R²"], rows))]
    for suite, agents in measured["evaluation"].items():
        columns = ("iqm", "mean_return")
        table = score_table.score_table(agents, columns=columns)
        tables.append(f"{suite}\n\n{score_table.markdown(table)}")
    return "\n\n".join(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"rules of the zoo [default: {' '.join(PLAN)}]")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/distill_zoo"), help="where formulas and scores are kept"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where distill_zoo.json goes")
    parser.add_argument("--seed", type=int, default=0, help="of lives and searches [default: 0]")
    known = parser.parse_args()
    names = known.names or list(PLAN)
    if unknown := set(names) - set(PLAN):
        parser.error(f"{', '.join(sorted(unknown))}: known are {', '.join(PLAN)}")
    known.runs.mkdir(parents=True, exist_ok=True)
    document = known.out / "distill_zoo.json"
    for name in names:  # one after the other, beside what the document has of others
        measured = measure(name, known.runs, known.seed) | {"provenance": provenance()}
        print(markdown(name, measured), flush=True)
        before = json.loads(document.read_text()) if document.exists() else {}
        write_json(document, before | {name: measured})


if __name__ == "__main__":
    main()
