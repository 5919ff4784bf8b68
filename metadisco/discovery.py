"""From a preset to a tested objective: meta-train, save, meta-test, report."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metadisco import checkpoint, config, evaluation, loop, memory, results, stats
from metadisco.battery import Battery, GridSuite
from metadisco.checkpoint import Discovered
from metadisco.contestants import Trainer, batteries, contestants, find_suites, home_of, inner_loops
from metadisco.curricula.snapshots import level_keeper, save_snapshot, snapshot_interval
from metadisco.life import InnerLoop
from metadisco.mixed_trainer import MixedTrainer
from metadisco.presets import Preset
from metadisco.progress import Bars
from metadisco.provenance import provenance
from metadisco.results import Results
from metadisco.types import MetaParams

VALIDATION_SUITE = "grid-validation"


@dataclass(frozen=True, eq=False)
class Discovery:
    """What came of a run.

    Attributes:
        discovered: the objective, with its scores; None where the run stopped before its end.
        folder: of the run.
        exit_code: 0, or 128 + the number of the signal that interrupted the run.
    """

    discovered: Discovered | None
    folder: Path
    exit_code: int


def discover(preset: Preset, out: str | Path, *, seed: int = 0, resume: bool = False, console: Any = None) -> Discovery:
    """Meta-train an objective from random weights, test it and write a report.

    Leaves in `out` what `metadisco.loop` leaves there, the levels that a curriculum keeps (`levels/<meta-step>/`, see
    `curricula.snapshots`), and `objective/`, `evaluation.json`, `curves.npz` and `report.html`.

    Args:
        preset: what to run; see `metadisco.presets`.
        out: run folder, new or empty unless `resume`.
        seed: of the whole run.
        resume: go on with the run in `out`.
        console: `rich` console for progress and tables; a new one by default.

    Returns:
        The discovery. A run that was interrupted is not tested: resume it.

    Raises:
        run_folder.RunError: where `out` cannot be used.
        ValueError: for settings that cannot work, before anything is compiled.
    """
    from rich.console import Console

    from metadisco import report

    console = console or Console()
    trainer, folder = preset.trainer, Path(out)
    _check(preset)
    memory.check(trainer)
    console.print(f"[bold]metadisco[/bold] discovers {preset.name}: {preset.description}")
    validate = _validation(preset) if preset.validate_every else None
    run = loop.run(
        trainer,
        folder,
        seed=seed,
        minutes=preset.minutes,
        env_steps=preset.env_steps,
        resume=resume,
        evaluate_fn=validate,
        evaluate_every=max(preset.validate_every, 1),
        snapshot_fn=_snapshots(preset, seed),
        snapshot_every=snapshot_interval(trainer.num_steps),
        provenance={"preset": preset.name},
        console=console,
    )
    begun = time.perf_counter()
    if run.status == "interrupted":
        console.print(f"Stopped after meta-step {run.step}; everything is saved. Go on with --resume.")
        return Discovery(None, folder, run.exit_code)
    meta_params = trainer.meta_params(run.state)
    origin = provenance(preset=preset.name, seed=seed, meta_steps=run.step, trainer=config.to_data(trainer))
    untested = Discovered(inner_loops(trainer)[0].objective, meta_params, origin)
    checkpoint.save(untested, folder / "objective", overwrite=True)  # whatever becomes of the test
    then = "Now the meta-test:" if preset.suites else "There is no suite to test it on."
    console.print(f"Meta-training is done after {run.step} meta-steps. {then}")
    outcome = compare(
        inner_loops(trainer),
        meta_params,
        [each for name in preset.suites for each in batteries(name)],
        num_seeds=preset.num_seeds,
        seed=seed,
        console=console,
    )
    origin["minutes"] = round((run.seconds + time.perf_counter() - begun) / 60, 2)
    scores = results.table(outcome)
    discovered = replace(untested, provenance=origin, evaluation=scores)
    checkpoint.save(discovered, folder / "objective", overwrite=True)
    results.write_json(folder / "evaluation.json", scores)
    results.save_curves(folder / "curves.npz", outcome)
    page = report.write(folder)
    show(scores, console)
    console.print(f"objective: {folder / 'objective'}\nreport:    {page}", soft_wrap=True)
    return Discovery(discovered, folder, run.exit_code)


def meta_test(
    discovered: Discovered,
    suite_names: Sequence[str] = ("grid-unseen",),
    *,
    num_seeds: int = 2,
    seed: int = 0,
    num_levels: int | None = None,
    baselines: Sequence[str] | None = None,
    console: Any = None,
) -> Results:
    """Test a discovered objective next to baselines.

    Grid suites test on the tabular agents that it was meta-trained with, others on networks of their own.

    Args:
        discovered: from `metadisco.load`.
        suite_names: each `NAME` or `NAME@LIFETIME`, of a suite or of a group of suites.
        num_seeds: agents per task.
        seed: of the agents.
        num_levels: only the first so many tasks of each suite.
        baselines: names of hand-written objectives; by default those that are usual for each suite.
        console: `rich` console for progress and the table.

    Raises:
        config.ConfigError: for unknown suites or baselines, or a checkpoint that does not say what agents it was
            trained with.
    """
    candidates = trained_with(discovered)
    _check_suites(candidates, suite_names, baselines)
    outcome = compare(
        candidates,
        discovered.meta_params,
        [each for name in suite_names for each in batteries(name, num_levels)],
        num_seeds=num_seeds,
        seed=seed,
        baselines=baselines,
        console=console,
    )
    if console is not None:
        show(results.table(outcome), console)
    return outcome


def inner_loop(discovered: Discovered) -> InnerLoop:
    """The inner loop that an objective was meta-trained with; of several, the first."""
    return trained_with(discovered)[0]


def trained_with(discovered: Discovered) -> tuple[InnerLoop, ...]:
    """How agents lived in the meta-training of an objective, for each environment of it.

    Raises:
        config.ConfigError: where the checkpoint does not say.
    """
    data = discovered.provenance.get("trainer")
    if data is None:
        raise config.ConfigError(
            "this checkpoint does not say what agents it was meta-trained with: no provenance.trainer"
        )
    trainer = config.from_data(data)
    if not isinstance(trainer, Trainer):
        raise config.ConfigError(
            f"provenance.trainer is a {type(trainer).__name__}, not a MetaTrainer, GradientTrainer or MixedTrainer"
        )
    return tuple(replace(inner, objective=discovered.objective) for inner in inner_loops(trainer))


def compare(
    candidates: Sequence[InnerLoop],
    meta_params: MetaParams,
    batteries: Sequence[Battery],
    *,
    num_seeds: int,
    seed: int,
    baselines: Sequence[str] | None = None,
    console: Any = None,
) -> Results:
    """Evaluate an objective and baselines on the same lives, showing progress."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    names = [each.name for each in batteries]
    if len(set(names)) < len(names):
        raise config.ConfigError(f"each suite can be tested once, got {', '.join(names)}; leave the repeated one out")
    rosters = [contestants(candidates, meta_params, each.inner, baselines, suite=each.name) for each in batteries]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(console, *columns, is_shown=console is not None) as bars:
        places = {
            (each.name, agent): bars.add(f"{each.name}: {agent}", 1.0, start=False)
            for each, roster in zip(batteries, rosters, strict=True)
            for agent in roster
        }

        def advance(suite: str, agent: str, fraction: float) -> None:
            bars.update(places[suite, agent], fraction)

        results: Results = {}
        for each, roster in zip(batteries, rosters, strict=True):
            results |= evaluation.compare(
                roster, [each], seed=seed, num_seeds=num_seeds, num_points=8, on_progress=advance
            )
        return results


def show(scores: dict[str, dict[str, dict[str, Any]]], console: Any) -> None:
    """Print a table for each suite."""
    from rich.table import Table

    for suite, agents in scores.items():
        first = next(iter(agents.values()))
        place = results.tested_on(first["num_tasks"], agents)
        title = f"{suite}: normalised score on {place} at lifetime {first['lifetime']}"
        table = Table(title=title, title_justify="left")
        table.add_column("agent")
        for column in ("IQM", "95% interval", "mean return"):
            table.add_column(column, justify="right")
        for agent, row in agents.items():
            interval = f"{row['iqm_low']:.3f} to {row['iqm_high']:.3f}"
            table.add_row(agent, f"{row['iqm']:.3f}", interval, f"{row['mean_return']:.3f}")
        console.print(table)


def _check(preset: Preset) -> None:
    """Refuse what could not be tested after it has been trained, or on the way."""
    _check_suites(inner_loops(preset.trainer), [*preset.suites, *([VALIDATION_SUITE] if preset.validate_every else [])])


def _check_suites(
    candidates: Sequence[InnerLoop], names: Sequence[str], baselines: Sequence[str] | None = None
) -> None:
    """Mistakes are known before levels are solved."""
    found = [suite for name in names for suite in find_suites(name)[0]]
    for suite in found:
        home = home_of(suite)
        roster = contestants(candidates, (), home, baselines, suite=suite.name)
        if isinstance(suite, GridSuite):
            for inner, _ in roster.values():
                replace(inner, env=suite.env)  # raises where the agent does not fit


def _snapshots(preset: Preset, seed: int) -> Callable[[Path, Any], None] | None:
    """What leaves the levels of a train state in the run folder; None for a curriculum that keeps none."""
    trainer = preset.trainer
    keeper = None if isinstance(trainer, MixedTrainer) else level_keeper(trainer.curriculum)
    if keeper is None:
        return None

    def leave(folder: Path, state: Any) -> None:
        save_snapshot(folder, int(state.step), keeper, state.curriculum, {"preset": preset.name, "seed": seed})

    return leave


def _validation(preset: Preset) -> Callable[[Any], dict[str, Any]]:
    """Scores of a train state on the validation levels, next to those of the baselines; built when first called."""
    roster = contestants(inner_loops(preset.trainer), (), None, suite=VALIDATION_SUITE)
    inner, _ = roster.pop("discovered")

    @functools.cache
    def levels() -> Battery:
        return batteries(VALIDATION_SUITE, preset.num_validation_levels)[0]

    def iqm(inner: InnerLoop, meta_params: MetaParams) -> float:
        return float(stats.iqm(evaluation.evaluate(inner, meta_params, levels(), seed=0, num_points=1).scores[-1]))

    @functools.cache
    def baselines() -> dict[str, float]:
        return {f"{name}_iqm": iqm(*each) for name, each in roster.items()}

    def validate(state: Any) -> dict[str, Any]:
        return {"iqm": iqm(inner, preset.trainer.meta_params(state))} | baselines()

    return validate
