"""From a preset to a tested objective: meta-train, save, meta-test, report."""

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metadisco.checkpoints import checkpoint, stored_trees
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.checkpoints.disco103 import as_discovered
from metadisco.commands import start as starts
from metadisco.core import config, terminal
from metadisco.core.files import parse_json
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.processes import is_first, require_same
from metadisco.core.provenance import provenance
from metadisco.core.score_table import counted
from metadisco.core.sharding import check_even
from metadisco.core.types import Key, MetaParams
from metadisco.curricula.snapshots import level_keeper, save_snapshot, snapshot_interval
from metadisco.evaluation import evaluation, results, stats
from metadisco.evaluation.agents_under_test import (
    AgentUnderTest,
    PlannedTest,
    TrainedObjective,
    inner_loops,
    trained_with,
)
from metadisco.evaluation.meta_test import plan, run_tests, show
from metadisco.lives.life import InnerLoop
from metadisco.meta_training import memory_estimate
from metadisco.presets import registry
from metadisco.presets.base import Preset
from metadisco.presets.catalog import PRESETS as CATALOG
from metadisco.runs import loop, run_folder, trackers
from metadisco.runs.hooks import Hook, Measurement, Snapshot
from metadisco.runs.run_folder import clear_errors, modules_of
from metadisco.runs.train_state import Checkpoints

VALIDATION_SUITE = "grid-validation"


@dataclass(frozen=True, eq=False)
class Discovery:
    """Result of a run.

    Attributes:
        discovered: the objective, with its scores; None if the run was interrupted, and on processes other than 0.
        folder: of the run.
        exit_code: 0, or 128 + the number of the signal that interrupted the run.
    """

    discovered: Discovered | None
    folder: Path
    exit_code: int

    def __repr__(self) -> str:
        return f"{self.discovered or 'No objective yet'}\n  in {self.folder}, exit code {self.exit_code}"


@own_defaults
def discover(
    preset: Preset | str,
    out: str | Path | None = None,
    *,
    overrides: Mapping[str, object] = MappingProxyType({}),
    minutes: float | None = None,
    env_steps: float | None = None,
    seed: int = 0,
    resume: bool = False,
    other_code: bool = False,
    start: starts.Place | starts.Start | None = None,
    wandb: trackers.WandbMode | None = None,
    hooks: Sequence[Hook] = (),
    console: Any = None,
) -> Discovery:
    """Meta-train an objective from random weights or from one that exists, test it and write a report.

    Leaves in `out` what `metadisco.runs.loop` leaves there, the levels that a curriculum keeps (`levels/<meta-step>/`,
    see `curricula.snapshots`), and `objective/`, `evaluation.json`, `curves.npz` and `report.html`.

    Args:
        preset: what to run, or its name; see `metadisco.presets.registry`.
        out: run folder, new or empty unless `resume`; `runs/NAME` of the preset by default.
        overrides: settings by their paths, such as `{"meta_optimizer.sigma.start": 0.05}`.
        minutes: limit of meta-training, in place of the preset's.
        env_steps: limit on its environment steps, in place of the preset's.
        seed: of the whole run.
        resume: go on with the run in `out`.
        other_code: also if other code began it.
        start: begin at the meta-parameters of this objective: a name in the zoo, a folder, a run's folder, or what
            `metadisco.load` returned. A run that is resumed keeps its beginning, and refuses another.
        hooks: further ones than validation and snapshots of levels, see `metadisco.runs.hooks`.
        wandb: keep its curves as Weights & Biases does, too, in the run folder or online.
        console: `rich` console for progress and tables; a new one by default.

    Returns:
        The discovery. A run that was interrupted is not tested: resume it. Of several processes
        (`metadisco.core.processes`), 0 tests, on its own devices, and the others return at once without an objective.

    Raises:
        run_folder.RunError: where `out` cannot be used.
        ValueError: for settings that cannot work, before anything is compiled.

    Example:
        >>> discover("smoke", overrides={"num_steps": 10}).discovered  # doctest: +SKIP
    """
    preset = _asked_for(preset, overrides, minutes=minutes, env_steps=env_steps)
    config.check_seed(seed)
    console = terminal.console_for(console)
    trainer, folder = preset.trainer, Path(f"runs/{preset.name}" if out is None else out)
    check(preset)
    begins_at = starts.of_run(folder, start, resume=resume)
    init = starts.init_for(trainer, begins_at, trainer)
    require_same(starts.details(begins_at))
    if wandb is not None:
        trackers.check_wandb()
    announcement = f"metadisco discovers {preset.name}: {preset.description}"
    if begins_at is not None:
        announcement += f"\n{begins_at.describe(trainer)}"

    def begin(folder: Path) -> Callable[[Key], Any]:
        if begins_at is not None:
            begins_at.keep(folder)
        return init

    options = loop.RunOptions(
        seed,
        minutes=preset.minutes,
        env_steps=preset.env_steps,
        resume=resume,
        other_code=other_code,
        provenance={"preset": preset.name, **starts.details(begins_at)},
    )
    track: list[trackers.MakeTracker] = [trackers.tensorboard]
    if wandb is not None:
        track.append(functools.partial(trackers.Wandb, mode=wandb))
    run = loop.run(
        trainer,
        folder,
        options,
        [*usual_hooks(preset, seed), *hooks],
        track=track,
        begin=begin,
        announcement=announcement,
        console=console,
    )
    if not is_first():
        return Discovery(None, folder, run.exit_code)
    if run.status == "interrupted":
        console.print(f"Stopped after meta-step {run.step}; everything is saved. Go on with --resume.")
        return Discovery(None, folder, run.exit_code)
    if _is_finished(preset, folder, run.step):
        return _already_finished(preset, folder, run, console)
    meta_params = trainer.meta_params(run.state)
    with clear_errors(folder):
        discovered = finish(preset, folder, meta_params, seed=seed, step=run.step, seconds=run.seconds, console=console)
    return Discovery(discovered, folder, run.exit_code)


def _asked_for(preset: Preset | str, overrides: Mapping[str, object], **limits: float | None) -> Preset:
    """The preset with its settings and limits exchanged. Raises ConfigError or ValueError for what it cannot have."""
    if isinstance(preset, str):
        preset = registry.preset(preset)
    if not isinstance(preset, Preset):
        raise ValueError(f"a preset is a name of metadisco list presets or a Preset, got {type(preset).__name__}")
    changes: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    for name, value in changes.items():
        if not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
            raise ValueError(f"{name} must be a number above 0, or None for the preset's own, got {value!r}")
    return replace(preset, trainer=config.replace_fields(preset.trainer, overrides), **changes)


@own_defaults
def preview(
    preset: Preset,
    out: str | Path,
    *,
    seed: int = 0,
    resume: bool = False,
    other_code: bool = False,
    start: starts.Place | None = None,
) -> list[tuple[str, str]]:
    """Say what `discover` would do with the same arguments, and start nothing.

    Returns:
        What is said, and the name of it: folder, end, lives, memory, cost, tests.

    Raises:
        As `discover`, as far as it can be known before it runs.
    """
    trainer, folder = preset.trainer, Path(out)
    check(preset)
    begins_at = starts.of_run(folder, start, resume=resume)
    starts.init_for(trainer, begins_at, trainer)
    run_folder.check(folder, trainer, seed, resume, other_code=other_code)
    steps = Checkpoints(folder / "checkpoints").steps()
    run_folder.require_checkpoints(folder, steps)
    limits = [
        counted(trainer.num_steps, "meta-step"),
        *([f"{preset.minutes:g} minute{'' if preset.minutes == 1 else 's'}"] if preset.minutes is not None else []),
        *([f"{preset.env_steps:,.0f} environment steps"] if preset.env_steps is not None else []),
    ]
    lives = [
        f"{counted(domain.num_tasks, 'task')} x {trainer.replicas} = "
        f"{counted(domain.num_tasks * trainer.replicas, 'life', 'lives')}"
        f"{f' in {domain.name}' if len(trainer.domains) > 1 else ''}"
        for domain in trainer.domains
    ]
    entry = CATALOG.get(preset.name)
    base = None if entry is None else registry.preset(preset.name).trainer
    changed = [] if base is None else [str(each) for each in config.diff(base, trainer)]
    tested = [f"{test.name} ({', '.join(agent.name for agent in test.agents)})" for test in _tests(preset)]
    return [
        ("preset", f"{preset.name}: {preset.description}"),
        ("changed", "; ".join(changed) or "nothing: the settings are those of the preset"),
        ("folder", f"{folder}, {f'goes on at meta-step {steps[-1]}' if steps else 'new'}; seed {seed}"),
        *([] if begins_at is None else [("start", begins_at.describe(trainer))]),
        ("ends after", ", or ".join(limits)),
        ("meta-step", "; ".join(lives)),
        ("memory", memory_estimate.in_words(trainer)),
        *([] if entry is None else [("cost", f"{entry.cost} on 2 CPU cores, of the preset as it is")]),
        ("tests", "; ".join(tested) or "none"),
    ]


def _is_finished(preset: Preset, folder: Path, step: int) -> bool:
    """Whether the folder has the objective of this meta-step with the scores that are asked for, and can be read."""
    try:
        discovered = checkpoint.load(folder / "objective")
        scores = parse_json((folder / "evaluation.json").read_bytes())
    except (OSError, ValueError):
        return False
    of_this_step = discovered.provenance.get("meta_steps") == step and discovered.evaluation == scores
    return of_this_step and bool(scores or not preset.suites) and (folder / "curves.npz").exists()


def _already_finished(preset: Preset, folder: Path, run: loop.Result, console: Any) -> Discovery:
    """Say that nothing is done to a run that is finished, and how to go on; its report is written if it is gone."""
    from metadisco import reports

    page = folder / "report.html"
    if not page.exists():
        reports.write(folder)
    how = {
        "out_of_time": "Its time is used up: more --minutes with --resume train on.",
        "spent": "Its environment steps are used up: more --env-steps with --resume train on.",
    }.get(run.status, f"To train on from its objective: metadisco discover {preset.name} --from {folder} --out NEW.")
    console.print(
        f"{folder} is finished{' and tested' if preset.suites else ''}, and stays as it is. {how}\nreport:    {page}",
        soft_wrap=True,
        highlight=False,
    )
    return Discovery(checkpoint.load(folder / "objective"), folder, run.exit_code)


@own_defaults
def finish(
    preset: Preset, folder: Path, meta_params: MetaParams, *, seed: int, step: int, seconds: float, console: Any
) -> Discovered:
    """Save the objective of a run, test it and write the report.

    Args:
        preset: what was run.
        folder: of the run.
        meta_params: at its end.
        seed: of the run.
        step: meta-steps done.
        seconds: how long they took.
        console: `rich` console.
    """
    from metadisco import reports

    begun, trainer = time.perf_counter(), preset.trainer
    lineage = starts.lineage_of(folder)
    began = {} if lineage is None else {starts.FOLDER: lineage}
    origin = provenance(preset=preset.name, seed=seed, meta_steps=step, **began, trainer=config.to_data(trainer))
    untested = Discovered(inner_loops(trainer)[0].objective, meta_params, origin)
    checkpoint.save(untested, folder / "objective", overwrite=True)  # whatever becomes of the test
    then = "Now the meta-test:" if preset.suites else "It is not tested."
    console.print(f"Meta-training is done after {counted(step, 'meta-step')}. {then}")
    tests = plan([_objective(preset, meta_params)], preset.suites, baselines=preset.baselines)
    outcome = run_tests(tests, num_seeds=preset.num_seeds, seed=seed, console=console)
    origin["minutes"] = round((seconds + time.perf_counter() - begun) / 60, 2)
    scores = results.table(outcome)
    discovered = replace(untested, provenance=origin, evaluation=scores)
    checkpoint.save(discovered, folder / "objective", overwrite=True)
    results.write_json(folder / "evaluation.json", scores)
    results.save_curves(folder / "curves.npz", outcome)
    page = reports.write(folder)
    show(scores, console)
    console.print(f"objective: {folder / 'objective'}\nreport:    {page}", soft_wrap=True)
    return discovered


@own_defaults
def inner_loop(discovered: Discovered | str | os.PathLike) -> InnerLoop:
    """The inner loop that an objective, or one of this name, was meta-trained with; of several, the first."""
    return trained_with(as_discovered(discovered))[0]


@own_defaults
def check(preset: Preset) -> None:
    """Raise ValueError or ConfigError for a preset that cannot run or be tested, or leaves devices idle."""
    trainer = preset.trainer
    _check_modules(trainer)
    stored_trees.check_init(trainer.domains[0].inner.objective)
    for i, domain in enumerate(trainer.domains):
        where = "" if len(trainer.domains) == 1 else f"domains.{i}."
        check_even(domain.num_tasks, trainer.replicas, name=f"{where}num_tasks")
    _tests(preset)
    if preset.validate_every:
        plan([_objective(preset)], [VALIDATION_SUITE], baselines=preset.baselines)
    try:
        memory_estimate.check(trainer)  # which traces whole lives
    except (TypeError, AttributeError) as error:
        raise config.ConfigError(
            f"these settings do not fit together: {str(error).splitlines()[0]}. Are inner.env and the levels of the "
            "curriculum of the same sizes?"
        ) from error


def _tests(preset: Preset) -> list[PlannedTest]:
    """Tests of the objective of a run."""
    return plan([_objective(preset)], preset.suites, baselines=preset.baselines)


def _check_modules(trainer: Any) -> None:
    """Raise ConfigError for a component of a script, which the checkpoint of the run would name in vain.

    A class of a notebook or of an interactive session is what its user works with there; only that session knows it.
    """
    if hasattr(sys.modules["__main__"], "__file__") and "__main__" in modules_of(config.to_data(trainer)):
        raise config.ConfigError(
            "a component is defined in the script that runs (__main__), where nothing that reads the checkpoint later "
            "would find it: move its class into a module of its own, and import it from there"
        )


def _objective(preset: Preset, meta_params: MetaParams = ()) -> TrainedObjective:
    """The objective of a run for planning tests, which do not depend on the meta-parameters."""
    return TrainedObjective("discovered", inner_loops(preset.trainer), meta_params)


def usual_hooks(preset: Preset, seed: int) -> list[Hook]:
    """Validation and snapshots of levels, as far as a preset has them."""
    found: list[Hook] = []
    if preset.validate_every:
        found.append(Measurement("validation", preset.validate_every, validation(preset)))
    leave = snapshots(preset, seed)
    if leave is not None:
        found.append(Snapshot("levels", snapshot_interval(preset.trainer.num_steps), leave))
    return found


def snapshots(preset: Preset, seed: int) -> Callable[[Path, Any], None] | None:
    """Function that saves the levels of a train state in the run folder; None for a curriculum without a buffer."""
    keepers = [level_keeper(domain.curriculum) for domain in preset.trainer.domains]
    if len(keepers) > 1 or keepers[0] is None:  # files of levels are of one domain
        return None
    keeper = keepers[0]

    def leave(folder: Path, state: Any) -> None:
        save_snapshot(folder, int(state.step), keeper, state.curricula[0], {"preset": preset.name, "seed": seed})

    return leave


def validation(preset: Preset) -> Callable[[Any], dict[str, Any]]:
    """Scores of a train state on the validation levels, next to those of the baselines; built when first called."""
    (test,) = plan([_objective(preset)], [VALIDATION_SUITE], preset.num_validation_levels, preset.baselines)
    *hand_written, learned = test.agents
    build = functools.cache(test.suite.build)

    def iqm(agent: AgentUnderTest) -> float:
        found = evaluation.evaluate(agent.inner, agent.meta_params, build(), seed=0, num_points=1)
        return float(stats.iqm(found.scores[-1]))

    @functools.cache
    def baselines() -> dict[str, float]:
        return {f"{agent.name}_iqm": iqm(agent) for agent in hand_written}

    def validate(state: Any) -> dict[str, Any]:
        return {"iqm": iqm(replace(learned, meta_params=preset.trainer.meta_params(state)))} | baselines()

    return validate
