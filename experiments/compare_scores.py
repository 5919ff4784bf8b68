"""Which levels should a learned objective be trained on? Scores of levels compared at equal environment steps.

    python -m experiments.compare_scores

Every arm is a preset: LPG by meta-gradients on levels drawn anew, and on levels replayed by each of seven scores. All
arms of a seed begin with the same objective and stop after the same number of environment steps, those of antagonists
included. Each is then tested on unseen levels. The script can be stopped at any time and goes on where
it was; what is finished so far is in the table and the figure.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.pages import image_of, png
from metadisco.commands import discovery
from metadisco.core.config import replace_fields
from metadisco.core.devices import prepare_jax
from metadisco.core.files import write_atomically
from metadisco.core.provenance import provenance
from metadisco.evaluation import results, stats
from metadisco.presets import grid_worlds, registry
from metadisco.presets.base import Preset
from metadisco.runs import run_folder

ARMS = {"lpg-grid-gradient": "new levels", **{name: words for name, (words, _) in grid_worlds.SCORES.items()}}
SUITES = {
    "grid-unseen": "general distribution",
    "grid-designed": "hand-designed, five",
    "grid-random": "hand-designed, their twins",
    "mazes@1000": "mazes, lifetime 1000",
}


def build(arm: str, known: argparse.Namespace) -> Preset:
    """The preset of an arm at the size of the comparison."""
    preset = registry.preset(arm)
    settings = {"num_tasks": known.tasks}
    if arm != "lpg-grid-gradient":
        settings["curriculum.capacity"] = known.capacity
    return replace(
        preset,
        trainer=replace_fields(preset.trainer, settings),
        env_steps=known.env_steps,
        suites=tuple(SUITES),
        num_seeds=known.agents,
        validate_every=0,
    )


def run(arm: str, seed: int, known: argparse.Namespace) -> None:
    """Do one run to its end, unless that was done before. A signal ends the script, which can be started again."""
    folder = known.runs / f"{arm}-{seed}"
    if (folder / "evaluation.json").exists():
        return
    outcome = discovery.discover(build(arm, known), folder, seed=seed, resume=True)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


def summarize(seeds: list[int], known: argparse.Namespace) -> dict:
    """What the finished runs of these seeds came to: suite -> arm -> row."""
    table: dict = {suite: {} for suite in SUITES}
    for arm in (*ARMS, "a2c"):
        # A2C is not meta-trained: its agents are those that were tested beside the first arm.
        agent, source = ("a2c", next(iter(ARMS))) if arm == "a2c" else ("discovered", arm)
        curves = [results.load_curves(known.runs / f"{source}-{seed}" / "curves.npz") for seed in seeds]
        for suite in SUITES:
            scores = [each[suite][agent].scores[-1].mean(axis=-1, keepdims=True) for each in curves]
            table[suite][arm] = as_row([float(stats.iqm(each)) for each in scores])
    return table


def as_row(by_seed: list[float]) -> dict:
    """One row of the table. The unit is a run of meta-training: its agents on all levels share its luck."""
    interval = stats.mean_interval(np.array(by_seed))
    return {"iqm": interval.point, "iqm_low": interval.low, "iqm_high": interval.high, "by_seed": by_seed}


def budget(seeds: list[int], known: argparse.Namespace) -> dict:
    """Means over seeds of what each arm took."""
    rows = {}
    for arm in ARMS:
        logs = [run_folder.read_metrics(known.runs / f"{arm}-{seed}" / "metrics.jsonl") for seed in seeds]
        rows[arm] = {
            "meta_steps": float(np.mean([log[-1]["step"] for log in logs])),
            "env_steps": float(np.mean([sum(row["env_steps"] for row in log) for log in logs])),
            "minutes": float(np.mean([log[-1]["seconds"] / 60 for log in logs])),
        }
    return rows


def draw(table: dict, num_seeds: int, env_steps: float) -> bytes:
    """A panel for each suite, an interval for each arm, as a PNG."""

    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(SUITES), figsize=(13, 4.2), sharey=True, layout="constrained")
    arms = list(ARMS)[::-1]
    for panel, (suite, words) in zip(panels, SUITES.items(), strict=True):
        rows = table[suite]
        for height, arm in enumerate(arms):
            row, color = rows[arm], {"groove-grid": "#c2410c", "lpg-grid-gradient": "#444444"}.get(arm, "#2563a8")
            panel.plot([row["iqm_low"], row["iqm_high"]], [height, height], color=color, lw=5, alpha=0.35)
            panel.plot(row["by_seed"], [height] * num_seeds, "|", color=color, ms=9, mew=1.2)
            panel.plot(row["iqm"], height, "o", color=color, ms=6)
        panel.axvline(rows["a2c"]["iqm"], color="#777777", ls=":", lw=1.2)
        top = panel.get_xaxis_transform()
        panel.text(rows["a2c"]["iqm"], 1.01, "A2C", color="#777777", fontsize=8, ha="center", transform=top)
        panel.set_title(words, fontsize=10, loc="left", pad=16)
        panel.set_xlabel("IQM of normalized scores", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="x", color="#e5e5e5")
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(arms)), [ARMS[arm] for arm in arms])
    panels[0].set_ylim(-0.6, len(arms) - 0.2)
    figure.suptitle(
        f"LPG by meta-gradients, {env_steps:.2g} environment steps. Ticks: {num_seeds} seeds; "
        "dots and bars: their means, with 95% intervals.",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    content = png(image_of(figure, dpi=110))
    plt.close(figure)
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare_scores"), help="where the runs go")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where table and figure go")
    parser.add_argument("--seeds", type=int, default=3, help="of meta-training, from 0 [default: 3]")
    parser.add_argument("--env-steps", type=float, default=1.5e8, help="of each run [default: 1.5e8]")
    parser.add_argument("--tasks", type=int, default=64, help="lives at a time [default: 64]")
    parser.add_argument("--capacity", type=int, default=512, help="of the level buffer [default: 512]")
    parser.add_argument("--agents", type=int, default=2, help="per test level and run [default: 2]")
    known = parser.parse_args()
    prepare_jax()
    for seed in range(known.seeds):
        for arm in ARMS:
            run(arm, seed, known)
        seeds = list(range(seed + 1))
        table = summarize(seeds, known)
        document = {
            "seeds": seeds,
            "env_steps": known.env_steps,
            "num_tasks": known.tasks,
            "capacity": known.capacity,
            "scores": table,
            "budget": budget(seeds, known),
            "provenance": provenance(),
        }
        known.out.mkdir(parents=True, exist_ok=True)
        results.write_json(known.out / "compare_scores.json", document)
        write_atomically(known.out / "compare_scores.png", draw(table, len(seeds), known.env_steps))
        for suite, rows in table.items():
            print(suite, {arm: f"{row['iqm']:.3f}" for arm, row in rows.items()}, flush=True)


if __name__ == "__main__":
    main()
