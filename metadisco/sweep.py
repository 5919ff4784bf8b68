"""Sweeps: every combination of some settings, each with several seeds, and one table of what came of them.

`plan` refuses what cannot work before anything runs. A run has a folder `SETTING/seed<k>` as `metadisco.discovery`
leaves it. Seeds of one setting have the same shapes and are trained by one program (`metadisco.seeds`) where that is
possible; settings are part of a program, so they come one after the other. What has been done is noted in `sweep.json`
(`metadisco.sweep_table`), so a sweep can be stopped or killed at any moment and gone on with.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from metadisco import config, discovery, loop, memory
from metadisco.curricula.snapshots import snapshot_interval
from metadisco.files import write_atomically
from metadisco.gradient_trainer import GradientTrainer
from metadisco.presets import Preset
from metadisco.run_folder import RunError, opened, read_metrics
from metadisco.seeds import Together, label, rows_of_seed
from metadisco.sweep_table import DONE, FAILED, TRAINED, Ledger, Run, write_table
from metadisco.train_state import Checkpoints

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
    """What is to be run: every setting with every seed."""

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
        memory.check(trainer)
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


def run(sweep: Sweep, out: str | Path, *, resume: bool = False, console: Any = None) -> int:
    """Run a sweep, or go on with it, and write its table.

    Leaves `sweep.json`, `sweep.md` and a run folder `SETTING/seed<k>` for each run in `out`. A run that fails, because
    no candidate of a meta-step is finite, is noted as failed, and the others go on.

    Args:
        sweep: from `plan`.
        out: folder, new or empty unless `resume`.
        resume: go on with the sweep in `out`, which must be the same.
        console: `rich` console for progress and the table.

    Returns:
        The exit code: 0, or 128 + the number of the signal that interrupted it.

    Raises:
        run_folder.RunError: where `out` cannot be used, or holds another sweep.
        ValueError: on several hosts.
    """
    from rich.console import Console

    if jax.process_count() > 1:
        raise ValueError("a sweep runs on one host; on several, start one job for each setting and seed")
    console = console or Console()
    folder = Path(out).absolute()
    ledger = Ledger.open(folder, _describe(sweep), resume)
    for setting in sweep.settings:
        for seeds in _groups(setting.preset, sweep.seeds):
            pending = [seed for seed in seeds if not ledger.is_over(setting.name, seed)]
            if pending:
                console.print(f"[bold]{setting.name}[/bold], seeds {', '.join(map(str, pending))}")
                train = _one_by_one if len(seeds) == 1 else _together
                exit_code = train(setting, seeds, folder, ledger, console)
                write_table(folder, ledger)
                if exit_code:
                    return exit_code
    console.print(write_table(folder, ledger), markup=False, highlight=False, soft_wrap=True)
    console.print(f"table: {folder / 'sweep.md'}", soft_wrap=True)
    return 0


def _describe(sweep: Sweep) -> dict[str, Any]:
    """All that must not change when a sweep is gone on with."""
    preset = sweep.settings[0].preset
    caps = {name: getattr(preset, name) for name in ("minutes", "env_steps", "num_seeds")}
    settings = {
        setting.name: {"values": dict(setting.values), "trainer": config.to_data(setting.preset.trainer)}
        for setting in sweep.settings
    }
    suites = list(preset.suites)
    return {"preset": preset.name, "seeds": list(sweep.seeds), "suites": suites, **caps, "settings": settings}


def _groups(preset: Preset, seeds: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Which seeds are trained by one program.

    By meta-gradients, and with a cap on environment steps, which each run reaches at a meta-step of its own, every run
    is on its own. So is a run that fills the memory.
    """
    size = 1
    if not isinstance(preset.trainer, GradientTrainer) and preset.env_steps is None:
        size = min(len(seeds), memory.num_side_by_side(preset.trainer))
    return [seeds[begin : begin + size] for begin in range(0, len(seeds), size)]


def _one_by_one(setting: Setting, seeds: Sequence[int], folder: Path, ledger: Ledger, console: Any) -> int:
    """Each run as `metadisco discover` does it."""
    for seed in seeds:
        out = folder / setting.name / f"seed{seed}"
        try:
            done = discovery.discover(setting.preset, out, seed=seed, resume=True, console=console)
        except loop.TrainingError as error:
            ledger.note(setting.name, seed, Run(FAILED, reason=str(error)))
            continue
        if done.exit_code:
            return done.exit_code
        ledger.note(setting.name, seed, Run(DONE))
    return 0


def _together(setting: Setting, seeds: tuple[int, ...], folder: Path, ledger: Ledger, console: Any) -> int:
    """Train seeds by one program, then test each."""
    home, preset = folder / setting.name, setting.preset
    if any(ledger.find(setting.name, seed) is None for seed in seeds):
        exit_code = _train_together(setting, seeds, home, ledger, console)
        if exit_code:
            return exit_code
    shapes = jax.eval_shape(preset.trainer.init, jax.random.key(0))
    for seed in seeds:
        known, out = ledger.find(setting.name, seed), home / f"seed{seed}"
        if known is None or known.status != TRAINED:
            continue
        restored = Checkpoints(out / "checkpoints").restore_latest(shapes)
        if restored is None or restored.step != known.step:
            raise RunError(f"{out} has lost the checkpoint of meta-step {known.step}: name another --out.")
        meta_params = preset.trainer.meta_params(restored.state)
        discovery.finish(preset, out, meta_params, seed=seed, step=known.step, seconds=known.seconds, console=console)
        ledger.note(setting.name, seed, Run(DONE))
    return 0


def _train_together(setting: Setting, seeds: tuple[int, ...], home: Path, ledger: Ledger, console: Any) -> int:
    """Train seeds by one program, and leave each in a run folder of its own."""
    preset, single = setting.preset, setting.preset.trainer
    if isinstance(single, GradientTrainer):
        raise ValueError(f"{setting.name}: runs by meta-gradients are trained one by one")
    trainer = Together(single, seeds)
    for seed in seeds:
        with opened(home / f"seed{seed}", single, seed, True, {"preset": preset.name}):
            pass  # written now, since levels are left there on the way
    validate = discovery.validation(preset) if preset.validate_every else None
    leavers = {seed: discovery.snapshots(preset, seed) for seed in seeds}

    def evaluate(state: Any) -> dict[str, Any]:
        scores = {seed: validate(trainer.of_seed(state, seed)) for seed in seeds} if validate else {}
        return {label(name, seed): value for seed, found in scores.items() for name, value in found.items()}

    def leave(_: Path, state: Any) -> None:
        for seed, leaver in leavers.items():
            if leaver is not None:
                leaver(home / f"seed{seed}", trainer.of_seed(state, seed))

    try:
        result = loop.run(
            trainer,
            home / f"together-{seeds[0]}-{seeds[-1]}",
            seed=seeds[0],
            minutes=None if preset.minutes is None else preset.minutes * len(seeds),
            resume=True,
            evaluate_fn=evaluate if validate else None,
            evaluate_every=max(preset.validate_every, 1),
            snapshot_fn=leave if any(leavers.values()) else None,
            snapshot_every=snapshot_interval(trainer.num_steps),
            provenance={"preset": preset.name},
            console=console,
        )
    except loop.TrainingError as error:  # none of the seeds can go on
        for seed in seeds:
            ledger.note(setting.name, seed, Run(FAILED, reason=str(error)))
        return 0
    if result.status == "interrupted":
        console.print(f"Stopped after meta-step {result.step}; everything is saved. Go on with --resume.")
        return result.exit_code
    rows = read_metrics(home / f"together-{seeds[0]}-{seeds[-1]}" / "metrics.jsonl")
    for seed in seeds:
        own = [row | {"seconds": row["seconds"] / len(seeds)} for row in rows_of_seed(rows, seed)]
        out = home / f"seed{seed}"
        write_atomically(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in own).encode())
        lost = next((row["step"] for row in own if row.get("finite_fraction") == 0.0), None)
        if lost is not None:
            reason = f"No candidate of meta-step {lost} has a finite fitness."
            ledger.note(setting.name, seed, Run(FAILED, reason=reason))
            continue
        Checkpoints(out / "checkpoints").save(result.step, trainer.of_seed(result.state, seed))
        ledger.note(setting.name, seed, Run(TRAINED, step=result.step, seconds=result.seconds / len(seeds)))
    return 0
