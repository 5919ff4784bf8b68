"""Gradient estimators for one objective compared at equal environment steps and lifetimes: which one to use when.

    python experiments/compare_estimators.py

Every arm meta-trains the schedule of A2C that `scheduled-a2c-quick` does, from the same start, with tasks of one
lifetime: by evolution over whole lives, by truncated, persistent, noise-reuse and guided (noise-reuse) ES told after
every unroll, and by meta-gradients. All stop after the same number of environment steps; evaluations by which evolution
is told are not in it, so the minutes are in the table, too. Learning rates begin alike and have shrunk to the same
share at the end. Each result is then tested on unseen levels at that lifetime. The script
can be stopped at any time and goes on where it was; what is finished so far is in the JSON file.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from metadisco.commands import discovery
from metadisco.core.config import replace_fields
from metadisco.core.devices import prepare_jax
from metadisco.core.provenance import provenance
from metadisco.core.score_table import Table, decimal, markdown
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import FixedLifetime, Tasks
from metadisco.evaluation import results, stats
from metadisco.lives.critic import Critic
from metadisco.meta_optimizers.gradient import MetaGradient
from metadisco.meta_optimizers.online_evolution import (
    GuidedES,
    NoiseReuseES,
    OnlineEvolution,
    PersistentES,
    TruncatedES,
)
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.meta_training.online_trainer import OnlineEvolutionTrainer
from metadisco.meta_training.trainer import Trainer
from metadisco.meta_training.truncation import Unroll
from metadisco.presets import registry
from metadisco.presets.base import Preset
from metadisco.runs import run_folder

WHOLE, GRADIENT = "whole-life ES", "meta-gradients"
ONLINE = {
    "truncated ES": OnlineEvolution(TruncatedES()),
    "persistent ES": OnlineEvolution(PersistentES()),
    "noise-reuse ES": OnlineEvolution(NoiseReuseES()),
    "guided ES": OnlineEvolution(NoiseReuseES(), guidance=GuidedES()),
}
ARMS = (WHOLE, *ONLINE, GRADIENT)
LAST_SHARE = 0.2  # of the learning rate, at the end
GUIDE = 5  # updates of a meta-gradient


def rollouts_per_step(arm: str, lifetime: int, known: argparse.Namespace) -> float:
    """Rollouts of agents in a meta-step, but for those that evaluate them."""
    if arm == GRADIENT:
        return known.tasks * (GUIDE + 1)
    guided = known.tasks * (GUIDE + 1) if arm in ONLINE and ONLINE[arm].guidance is not None else 0
    return 2 * known.tasks * (lifetime if arm == WHOLE else min(known.unroll, lifetime)) + guided


def trainer(arm: str, lifetime: int, known: argparse.Namespace) -> Trainer:
    """The trainer of an arm, whose meta-steps take the environment steps that there are."""
    (usual,) = registry.preset("scheduled-a2c-quick").trainer.domains
    inner = usual.inner
    if arm == GRADIENT or (arm in ONLINE and ONLINE[arm].guidance is not None):
        inner = replace(inner, critic=Critic())
    tasks = Tasks(usual.curriculum.tasks.levels, FixedLifetime(lifetime))
    domains = (Domain(inner, DomainRandomization(tasks), known.tasks),)
    steps = known.env_steps / (rollouts_per_step(arm, lifetime, known) * inner.num_workers * inner.num_steps)
    steps = max(1, round(steps))
    rate = Decay(known.learning_rate, rate=LAST_SHARE ** (1.0 / steps))
    if arm == GRADIENT:
        return GradientTrainer(domains, MetaGradient(learning_rate=rate), Unroll(GUIDE), num_steps=steps)
    if arm == WHOLE:
        usual_evolution = registry.preset("scheduled-a2c-quick").trainer.meta_optimizer
        return EvolutionTrainer(domains, replace(usual_evolution, learning_rate=rate), num_steps=steps)
    estimator = replace(ONLINE[arm], learning_rate=rate)
    return OnlineEvolutionTrainer(
        domains, estimator, num_updates=min(known.unroll, lifetime), guide=Unroll(GUIDE), num_steps=steps
    )


def build(arm: str, lifetime: int, known: argparse.Namespace) -> Preset:
    """The run of an arm."""
    preset = replace(
        registry.preset("scheduled-a2c-quick"),
        trainer=trainer(arm, lifetime, known),
        minutes=None,
        suites=(f"grid-unseen@{lifetime}",),
        num_seeds=known.agents,
        validate_every=0,
    )
    return replace(preset, trainer=replace_fields(preset.trainer, {"slots": known.slots})) if known.slots else preset


def folder_of(arm: str, lifetime: int, seed: int, known: argparse.Namespace) -> Path:
    """Where its run is."""
    return known.runs / f"{arm.replace(' ', '-')}-{lifetime}-{seed}"


def run(arm: str, lifetime: int, seed: int, known: argparse.Namespace) -> None:
    """Do one run to its end, unless that was done before. A signal ends the script, which can be started again."""
    folder = folder_of(arm, lifetime, seed, known)
    if (folder / "evaluation.json").exists():
        return
    outcome = discovery.discover(build(arm, lifetime, known), folder, seed=seed, resume=True)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


def row_of(arm: str, lifetime: int, known: argparse.Namespace) -> dict | None:
    """What the finished runs of an arm came to; None where there is none."""
    folders = [folder_of(arm, lifetime, seed, known) for seed in range(known.seeds)]
    folders = [folder for folder in folders if (folder / "evaluation.json").exists()]
    if not folders:
        return None
    by_seed = []
    for folder in folders:
        (of_suite,) = results.load_curves(folder / "curves.npz").values()
        by_seed.append(float(stats.iqm(of_suite["discovered"].scores[-1])))
    logs = [run_folder.read_metrics(folder / "metrics.jsonl") for folder in folders]
    row = {
        "arm": arm,
        "lifetime": lifetime,
        "by_seed": by_seed,
        "iqm": float(np.mean(by_seed)),
        "meta_steps": float(np.mean([log[-1]["step"] for log in logs])),
        "env_steps": float(np.mean([sum(each["env_steps"] for each in log) for log in logs])),
        "minutes": float(np.mean([log[-1]["seconds"] / 60 for log in logs])),
    }
    if len(by_seed) > 1:  # the unit is a run of meta-training
        interval = stats.mean_interval(np.array(by_seed))
        row |= {"iqm_low": interval.low, "iqm_high": interval.high}
    return row


def as_table(rows: list[dict]) -> str:
    """The rows as Markdown, a column for each lifetime."""
    lifetimes = sorted({row["lifetime"] for row in rows})
    cells = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        found = {row["lifetime"]: row for row in rows if row["arm"] == arm}
        scores = [decimal(found[each]["iqm"]) if each in found else "" for each in lifetimes]
        minutes = [decimal(found[each]["minutes"]) if each in found else "" for each in lifetimes]
        cells.append([arm, *scores, *minutes])
    head = ["estimator", *(f"{each} updates" for each in lifetimes), *(f"minutes at {each}" for each in lifetimes)]
    return markdown(Table(head, cells))


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=Path, default=Path("runs/compare_estimators"), help="where the runs go")
    made.add_argument("--out", type=Path, default=Path("runs/compare_estimators.json"), help="the JSON file")
    made.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS, help="estimators [default: all]")
    made.add_argument("--lifetimes", nargs="*", type=int, default=[64, 250, 1000], help="[default: 64 250 1000]")
    made.add_argument("--seeds", type=int, default=5, help="of meta-training, from 0 [default: 5]")
    made.add_argument("--env-steps", type=float, default=5e8, help="of each run [default: 5e8]")
    made.add_argument("--tasks", type=int, default=32, help="pairs, or lives, at a time [default: 32]")
    made.add_argument("--unroll", type=int, default=32, help="updates of an unroll [default: 32]")
    made.add_argument("--learning-rate", type=float, default=0.03, help="of Adam at the start [default: 0.03]")
    made.add_argument("--agents", type=int, default=2, help="per test level and run [default: 2]")
    made.add_argument("--slots", type=int, help="lives side by side on one device [default: chosen]")
    return made


def main() -> None:
    """Do all runs, seed by seed, and write what is finished after each."""
    known = parser().parse_args()
    prepare_jax()
    for seed in range(known.seeds):
        for lifetime in known.lifetimes:
            for arm in known.arms:
                run(arm, lifetime, seed, known)
                rows = [row for each in known.lifetimes for one in known.arms if (row := row_of(one, each, known))]
                settings = {name: value for name, value in vars(known).items() if name not in ("runs", "out")}
                known.out.parent.mkdir(parents=True, exist_ok=True)
                results.write_json(known.out, {"settings": settings, "rows": rows, "provenance": provenance()})
                print(as_table(rows), flush=True)


if __name__ == "__main__":
    main()
