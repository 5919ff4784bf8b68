"""Write the tables of docs/reproduce.md anew: for each published number the command, the machine and the time.

    python -m experiments.reproduction

Numbers are those of docs/results/NAME.json, and origins those of the objective of that name in the zoo. Run it from the
root of the checkout, after `experiments/publish.py`.
"""

import json
from pathlib import Path

from experiments.pages import write_between
from metadisco.checkpoints import checkpoint
from metadisco.core import score_table

PAGE = Path("docs/reproduce.md")
RESULTS = Path("docs/results")
BEGIN, END = "<!-- written by experiments/reproduction.py -->", "<!-- end -->"
BASELINES = ("a2c", "a2c-count", "ppo", "dpo")


def section(name: str, scores: dict) -> str:
    """What one shipped objective reached on each suite, between those that it was compared with."""
    origin = checkpoint.load(name).provenance
    known = {each for agents in scores.values() for each in agents}
    baselines = [each for each in BASELINES if each in known]
    lines = [
        f"### {name}",
        "",
        f"    {origin['command']}",
        "",
        f"Seed {origin['seed']}, commit `{origin['commit'][:7]}`, {origin['meta_steps']:,} meta-steps; "
        f"{origin['minutes']:.0f} minutes on {origin['hardware']}.",
        "",
    ]
    rows = []
    for suite, agents in scores.items():
        row = agents["discovered"]
        size = f"{row['num_tasks']} x {row['num_seeds']}"
        found = [score_table.with_interval(agents[each]) if each in agents else "" for each in baselines]
        rows.append([suite, str(row["lifetime"]), size, score_table.with_interval(row), *found])
    head = ["suite", "lifetime", "tasks x agents", f"**{name}**", *baselines]
    return "\n".join([*lines, score_table.markdown(score_table.Table(head, rows))])


def sections(results: Path) -> str:
    """All shipped objectives whose scores are published."""
    found = {name: results / f"{name}.json" for name in checkpoint.zoo_names()}
    return "\n\n".join(section(name, json.loads(path.read_text())) for name, path in found.items() if path.exists())


def main() -> None:
    write_between(PAGE, BEGIN, END, sections(RESULTS))


if __name__ == "__main__":
    main()
