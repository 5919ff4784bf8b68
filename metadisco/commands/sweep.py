"""Sweeps: every combination of swept values, each with several seeds, and one table of scores.

`plan` raises errors before anything runs. A run has a folder `SETTING/seed<k>` as
`metadisco.commands.discovery` leaves it. Seeds of one setting have the same shapes and are trained by one program
(`metadisco.meta_training.batched_seeds`) where that is possible; settings are part of a program, so they come one after
the other. What has been done is noted in `sweep.json` (`metadisco.commands.sweep_table`), so a sweep can be stopped or
killed at any moment and resumed.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from metadisco.commands import discovery
from metadisco.commands import start as starts
from metadisco.commands.sweep_table import DONE, FAILED, TRAINED, Manifest, Run, write_table
from metadisco.core import config, devices, nan_checks, terminal
from metadisco.core.files import write_atomically
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.processes import is_first, of_first, require_same
from metadisco.core.score_table import counted
from metadisco.curricula.snapshots import snapshot_interval
from metadisco.meta_training import memory_estimate
from metadisco.meta_training.batched_seeds import BatchedSeeds, SeedLogs, label, log_of_seed
from metadisco.presets.base import Preset
from metadisco.runs import loop, trackers
from metadisco.runs.compiled_steps import on_all_processes, on_this_process, shared_shapes
from metadisco.runs.hooks import Hook, Measurement, Snapshot
from metadisco.runs.run_folder import Row, RunError, clear_errors, opened, read_metrics
from metadisco.runs.train_state import Checkpoints

MAX_RUNS = 10_000
MAX_NAME = 150  # characters of a setting's folder


@dataclass(frozen=True)
class Setting:
    """One combination of values.

    Attributes:
        name: of its folder.
        values: dotted path of each swept field, and its value as it was written.
        preset: what is run.
    """

    name: str
    values: Mapping[str, str]
    preset: Preset


@dataclass(frozen=True)
class Sweep:
    """The plan: every setting with every seed."""

    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]


def parse(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read `FIELD=A,B,C` of the command line; commas within brackets belong to a value.

    Raises:
        config.ConfigError: where a word is not of this form, or a field or value comes twice.
    """
    fields: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name, values = name.lstrip("-").replace("-", "_"), tuple(part.strip() for part in _split(text))
        if not equals or not name or not all(values):
            raise config.ConfigError(f"--sweep {word!r}: write FIELD=VALUE,VALUE,... such as num_tasks=64,128")
        if name in fields:
            raise config.ConfigError(f"--sweep names {name} twice: give all its values at once, {name}=A,B,C")
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise config.ConfigError(f"--sweep {name} has the value {', '.join(twice)} twice: leave one out")
        fields[name] = values
    return fields


def _split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


@own_defaults
def plan(preset: Preset, fields: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> Sweep:
    """Build every setting, so that a mistake is known before anything runs.

    Args:
        preset: what the swept fields are replaced in.
        fields: dotted path in the trainer -> its values, as text.
        seeds: of every setting.

    Raises:
        config.ConfigError: for an unknown field, a value that does not belong there, two equal settings, too many runs.
        ValueError: whatever the components' own checks raise, or where a setting does not fit into memory.
    """
    if not seeds:
        raise config.ConfigError("--seeds must be at least 1, got 0")
    num_runs = len(seeds)
    for options in fields.values():
        num_runs *= len(options)
    if num_runs > MAX_RUNS:
        raise config.ConfigError(f"a sweep of {num_runs:,} runs: at most {MAX_RUNS:,}; leave out values or seeds")
    settings: list[Setting] = []
    for number, combination in enumerate(itertools.product(*fields.values())):
        values = dict(zip(fields, combination, strict=True))
        trainer = config.replace_fields(preset.trainer, values) if values else preset.trainer
        equal = next((each for each in settings if each.preset.trainer == trainer), None)
        if equal is not None:
            raise config.ConfigError(f"{_words(values)} and {_words(equal.values)} are the same setting: leave one out")
        changed = replace(preset, trainer=trainer)
        discovery.check(changed)
        settings.append(Setting(_folder_name(values, number), values, changed))
    return Sweep(tuple(settings), tuple(seeds))


def _words(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _folder_name(values: Mapping[str, str], number: int) -> str:
    name = re.sub(r"[^A-Za-z0-9._=,+-]", "_", ",".join(f"{name}={value}" for name, value in values.items()))
    if not values:
        return "preset"
    # Values that differ in replaced letters, and names that a file system may refuse, go by their number.
    return name if len(name) <= MAX_NAME and name == _words(values).replace(", ", ",") else f"setting{number}"


@own_defaults
def run(
    sweep: Sweep, out: str | Path, *, start: starts.Place | None = None, resume: bool = False, console: Any = None
) -> int:
    """Run or resume a sweep, and write its table.

    Leaves `sweep.json`, `sweep.md` and a run folder `SETTING/seed<k>` for each run in `out`. A run that fails, because
    no candidate of a meta-step is finite, is noted as failed, and the others go on. Several processes call this alike,
    as they do `loop.run`; process 0 tests and writes, for which the others wait.

    Args:
        sweep: from `plan`.
        out: folder, new or empty unless `resume`.
        start: begin every run at the meta-parameters of this objective, see `discovery.discover`; a resumed sweep
            keeps its start.
        resume: go on with the sweep in `out`, which must be the same, or have some of its settings and seeds.
        console: `rich` console for progress and the table.

    Returns:
        The exit code: 0, or 128 + the number of the signal that interrupted it.

    Raises:
        run_folder.RunError: where `out` cannot be used, or holds another sweep.
        processes.DistributedError: where processes were started with different sweeps, or one of them is gone.
    """
    from rich.console import Console

    if not is_first():
        console = Console(quiet=True)
    with clear_errors(out):
        begins_at = starts.of_sweep(Path(out).absolute(), start, resume=resume)
        return _run(sweep, Path(out).absolute(), begins_at, resume, terminal.console_for(console))


def _run(sweep: Sweep, folder: Path, start: starts.Start | None, resume: bool, console: Any) -> int:
    if start is not None:
        for setting in sweep.settings:
            start.meta_params_for(setting.preset.trainer)  # which raises where they do not fit
    plan = _describe(sweep) | starts.details(start)
    require_same(plan)
    manifest = Manifest.shared(folder, plan, resume)
    if start is not None:
        start.keep(folder)
    for setting in sweep.settings:
        begun = _begun(folder / setting.name, sweep.seeds)
        for seeds in map(tuple, of_first(_groups(setting.preset, sweep.seeds, begun))):
            pending = [seed for seed in seeds if not manifest.is_over(setting.name, seed)]
            if pending:
                console.print(f"[bold]{setting.name}[/bold], seeds {', '.join(map(str, pending))}")
                train = _one_by_one if len(seeds) == 1 else _batched
                exit_code = train(setting, seeds, folder, start, manifest, console)
                if is_first():
                    write_table(folder, manifest)
                if exit_code:
                    return exit_code
                devices.forget_if_many()
    if is_first():
        console.print(write_table(folder, manifest), markup=False, highlight=False, soft_wrap=True)
        console.print(f"table: {folder / 'sweep.md'}", soft_wrap=True)
    return 0


@own_defaults
def preview(sweep: Sweep, out: str | Path, *, resume: bool = False) -> list[tuple[str, str]]:
    """Say what `run` would do, and start nothing.

    Raises:
        run_folder.RunError: as `run`.
    """
    folder, preset = Path(out).absolute(), sweep.settings[0].preset
    done = Manifest.check(folder, _describe(sweep), resume)
    left = sum(not done.is_over(setting.name, seed) for setting in sweep.settings for seed in sweep.seeds)
    largest = max((setting.preset.trainer for setting in sweep.settings), key=memory_estimate.estimate)
    words = [_words(setting.values) or "the preset as it is" for setting in sweep.settings]
    runs = len(sweep.settings) * len(sweep.seeds)
    return [
        ("preset", f"{preset.name}: {preset.description}"),
        ("folder", str(folder)),
        (
            "runs",
            f"{counted(len(sweep.settings), 'setting')} x {counted(len(sweep.seeds), 'seed')}, {left} of {runs} left",
        ),
        ("settings", "; ".join(words)),
        ("memory", f"{memory_estimate.in_words(largest)}, a run of the largest setting"),
    ]


def _describe(sweep: Sweep) -> dict[str, Any]:
    """The parts of a sweep that must be equal when it is resumed."""
    preset = sweep.settings[0].preset
    caps = {name: getattr(preset, name) for name in ("minutes", "env_steps", "num_seeds")}
    settings = {
        setting.name: {"values": dict(setting.values), "trainer": config.to_data(setting.preset.trainer)}
        for setting in sweep.settings
    }
    suites = list(preset.suites)
    return {"preset": preset.name, "seeds": list(sweep.seeds), "suites": suites, **caps, "settings": settings}


def _begun(home: Path, seeds: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Groups of seeds of a setting that were begun by one program, before the sweep was given more seeds."""
    found = [re.fullmatch(r"together-(\d+)-(\d+)", path.name) for path in sorted(home.glob("together-*"))]
    groups = [tuple(range(int(each[1]), int(each[2]) + 1)) for each in found if each]
    groups += [(int(path.name[4:]),) for path in home.glob("seed*") if (path / "checkpoints").exists()]
    begun: list[tuple[int, ...]] = []
    # Those of several seeds first: at the end their checkpoints are in the folders of the seeds, too.
    for group in groups:
        if not {*group} & {*itertools.chain(*begun)} and {*group} <= {*seeds}:
            begun.append(group)
    return begun


def _groups(preset: Preset, seeds: tuple[int, ...], begun: Sequence[tuple[int, ...]] = ()) -> list[tuple[int, ...]]:
    """Which seeds are trained by one program.

    Runs by meta-gradients, runs with a cap on environment steps (reached at different meta-steps), and runs that fill
    the memory are trained one by one. Groups that are `begun` stay as they are, so that a sweep can grow.
    """
    size = 1
    if preset.trainer.lives_end_with_the_meta_step and preset.env_steps is None and not nan_checks.is_on():
        size = min(len(seeds), memory_estimate.num_side_by_side(preset.trainer))
    runs: list[list[int]] = []  # seeds of which none is begun, one after the other: a group is named by its ends
    for seed in sorted({*seeds} - {*itertools.chain(*begun)}):
        if runs and runs[-1][-1] == seed - 1 and len(runs[-1]) < size:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return sorted([*begun, *map(tuple, runs)])


def _one_by_one(
    setting: Setting, seeds: Sequence[int], folder: Path, start: starts.Start | None, manifest: Manifest, console: Any
) -> int:
    """Each run as `metadisco discover` does it."""
    for seed in seeds:
        out = folder / setting.name / f"seed{seed}"
        try:
            done = discovery.discover(setting.preset, out, seed=seed, resume=True, start=start, console=console)
        except loop.TrainingError as error:
            manifest.note(setting.name, seed, Run(FAILED, reason=str(error)))
            continue
        if done.exit_code:
            return done.exit_code
        manifest.note(setting.name, seed, Run(DONE))
    return 0


def _batched(
    setting: Setting, seeds: tuple[int, ...], folder: Path, start: starts.Start | None, manifest: Manifest, console: Any
) -> int:
    """Train seeds by one program, then test each."""
    home, preset = folder / setting.name, setting.preset
    if any(manifest.find(setting.name, seed) is None for seed in seeds):
        exit_code = _train_batched(setting, seeds, home, start, manifest, console)
        if exit_code:
            return exit_code
    for seed in seeds:
        known, out = manifest.find(setting.name, seed), home / f"seed{seed}"
        if known is None or known.status != TRAINED:
            continue
        restored = Checkpoints(out / "checkpoints").restore_latest(shared_shapes(preset.trainer))
        if restored is None or restored.step != known.step:
            raise RunError(f"{out} has lost the checkpoint of meta-step {known.step}: name another --out.")
        if is_first():
            meta_params, times = preset.trainer.meta_params(on_this_process(restored.state)), known.seconds
            discovery.finish(preset, out, meta_params, seed=seed, step=known.step, seconds=times, console=console)
        manifest.note(setting.name, seed, Run(DONE))
    return 0


def _train_batched(
    setting: Setting, seeds: tuple[int, ...], home: Path, start: starts.Start | None, manifest: Manifest, console: Any
) -> int:
    """Train seeds by one program, and leave each in a run folder of its own."""
    preset, single = setting.preset, setting.preset.trainer
    trainer, origin = BatchedSeeds(single, seeds), {"preset": preset.name, **starts.details(start)}
    init = starts.init_for(trainer, start, single)
    for seed in seeds:
        with opened(home / f"seed{seed}", single, seed, True, origin):
            pass  # written now, since levels are left there on the way
    options = loop.RunOptions(
        seeds[0],
        minutes=None if preset.minutes is None else preset.minutes * len(seeds),
        resume=True,
        provenance=origin,
    )
    try:
        result = loop.run(
            trainer,
            home / f"together-{seeds[0]}-{seeds[-1]}",
            options,
            _hooks(preset, trainer, home),
            track=(trackers.tensorboard, partial(SeedLogs, homes={seed: home / f"seed{seed}" for seed in seeds})),
            begin=lambda _: init,
            console=console,
        )
    except loop.TrainingError as error:  # none of the seeds can go on
        for seed in seeds:
            manifest.note(setting.name, seed, Run(FAILED, reason=str(error)))
        return 0
    if result.status == "interrupted":
        console.print(f"Stopped after meta-step {result.step}; everything is saved. Go on with --resume.")
        return result.exit_code
    group = home / f"together-{seeds[0]}-{seeds[-1]}" / "metrics.jsonl"
    lost = of_first(_deal_out(read_metrics(group), seeds, home) if is_first() else None)
    for seed, step in zip(seeds, lost, strict=True):
        if step is not None:
            manifest.note(
                setting.name, seed, Run(FAILED, reason=f"No candidate of meta-step {step} has a finite fitness.")
            )
            continue
        state = on_all_processes(trainer.of_seed(result.state, seed))
        Checkpoints(home / f"seed{seed}" / "checkpoints").save(result.step, state)
        manifest.note(setting.name, seed, Run(TRAINED, step=result.step, seconds=result.seconds / len(seeds)))
    return 0


def _hooks(preset: Preset, trainer: BatchedSeeds, home: Path) -> list[Hook]:
    """Hooks of all seeds; each seed writes its levels into its own run folder."""
    found: list[Hook] = []
    if preset.validate_every:
        validate = discovery.validation(preset)

        def measure(state: Any) -> dict[str, Any]:
            scores = {seed: validate(trainer.of_seed(state, seed)) for seed in trainer.seeds}
            return {label(name, seed): value for seed, each in scores.items() for name, value in each.items()}

        found.append(Measurement("validation", preset.validate_every, measure))
    each = ((seed, discovery.snapshots(preset, seed)) for seed in trainer.seeds)
    leavers = {seed: leave for seed, leave in each if leave is not None}
    if leavers:

        def leave_all(_: Path, state: Any) -> None:
            for seed, leave in leavers.items():
                leave(home / f"seed{seed}", trainer.of_seed(state, seed))

        found.append(Snapshot("levels", snapshot_interval(trainer.num_steps), leave_all))
    return found


def _deal_out(rows: Sequence[Row], seeds: Sequence[int], home: Path) -> list[int | None]:
    """Write the log of each seed, and return the meta-step at which it had no finite candidate, if so."""
    for seed in seeds:
        path = home / f"seed{seed}" / "metrics.jsonl"
        write_atomically(path, log_of_seed(rows, seed, len(seeds)).encode())
    finite = {seed: label("finite_fraction", seed) for seed in seeds}
    return [next((int(row["step"]) for row in rows if row.get(finite[seed]) == 0.0), None) for seed in seeds]
