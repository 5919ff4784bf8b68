"""A search for settings: Optuna asks, a run answers; unpromising runs end early, and a search can be stopped.

Each trial is a run in `trial<k>`, as `metadisco.commands.discovery` leaves it but for the test. What a trial is worth
is its IQM on the validation levels. Trials share a seed, so that they differ in their settings alone. What Optuna knows
is in `trials.jsonl`, line by line, so a search that was stopped or killed goes on as if it had not been.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metadisco.commands import discovery
from metadisco.commands import start as starts
from metadisco.core import config, terminal
from metadisco.core.files import write_atomically
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.processes import is_joined
from metadisco.core.score_table import Table, decimal, markdown
from metadisco.presets.base import Preset
from metadisco.runs import loop, progress
from metadisco.runs.hooks import Snapshot
from metadisco.runs.run_folder import RunError, read_metrics

TRIALS, TABLE = "trials.jsonl", "trials.md"
STUDY = "metadisco"
VALUE = "validation/iqm"
LOOKS = 5  # at a run on its way, where the preset has no validation
FIRST = 4  # trials before any is ended early
SHOWN = 10  # of the best trials
LOGARITHMIC = 10.0  # ratio of the ends of a range from which on orders of magnitude are equally likely


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them: whole ones where both are written so."""

    low: float
    high: float

    @classmethod
    def read(cls, text: str) -> "Range | None":
        """Of `LOW..HIGH`; None for anything else. Raises ConfigError where the ends are not in their order."""
        low, dots, high = text.partition("..")
        if not dots:
            return None
        try:
            ends = [int(end) if end.strip().lstrip("-").isdigit() else float(end) for end in (low, high)]
        except ValueError:
            return None
        if not (all(map(math.isfinite, ends)) and ends[0] < ends[1]):
            raise config.ConfigError(f"the range {text} must go from a lower number to a higher one, as 0.01..0.3 does")
        return cls(*ends) if all(isinstance(end, int) for end in ends) else cls(*map(float, ends))

    @property
    def is_logarithmic(self) -> bool:
        """Where it spans an order of magnitude or more, and is above 0."""
        return self.low > 0 and self.high / self.low >= LOGARITHMIC

    def ends(self) -> tuple[str, ...]:
        """As text."""
        return str(self.low), str(self.high)

    def in_words(self) -> str:
        """For a dry run."""
        whole = " whole numbers" if isinstance(self.low, int) else ""
        return f"{self.low:g} to {self.high:g}{whole}{', by orders of magnitude' if self.is_logarithmic else ''}"

    def suggest(self, trial: Any, name: str) -> str:
        """A value by Optuna, as text."""
        ask = trial.suggest_int if isinstance(self.low, int) else trial.suggest_float
        return str(ask(name, self.low, self.high, log=self.is_logarithmic))


@dataclass(frozen=True)
class Choice:
    """One of several values, as text."""

    values: tuple[str, ...]

    def ends(self) -> tuple[str, ...]:
        """All of them."""
        return self.values

    def in_words(self) -> str:
        """For a dry run."""
        return " or ".join(self.values)

    def suggest(self, trial: Any, name: str) -> str:
        """A value by Optuna."""
        return trial.suggest_categorical(name, self.values)


Space = Mapping[str, Range | Choice]


def check_optuna() -> None:
    """Raise ConfigError where Optuna cannot be imported; says how to install it."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise config.ConfigError(
            f"Optuna cannot be imported ({error}): install it with pip install 'metadisco[optuna]', or leave --trials "
            "out: --sweep FIELD=A,B,C runs all combinations"
        ) from error


@own_defaults
def plan(preset: Preset, fields: Mapping[str, Sequence[str]]) -> dict[str, Range | Choice]:
    """What is searched, checked before anything runs.

    Args:
        preset: what the settings are replaced in.
        fields: dotted path in the trainer -> values or one range, as text; from `sweep.parse`.

    Raises:
        config.ConfigError: for an unknown field, or a value that does not belong there.
        ValueError: whatever the components' own checks raise, or where a setting does not fit into memory.
    """
    if not fields:
        raise config.ConfigError("--trials needs what to search: --sweep FIELD=LOW..HIGH, or --sweep FIELD=A,B,C")
    found: dict[str, Range | Choice] = {}
    for name, values in fields.items():
        span = Range.read(values[0]) if len(values) == 1 else None
        if span is None and len(values) == 1:
            raise config.ConfigError(
                f"--sweep {name}={values[0]}: one value leaves nothing to search; give it as --{name}"
            )
        found[name] = span or Choice(tuple(values))
    for at in (0, -1):
        discovery.check(_set(preset, {name: space.ends()[at] for name, space in found.items()}))
    for name, space in found.items():
        for value in space.ends():
            _set(preset, {name: value})
    return found


def _set(preset: Preset, values: Mapping[str, str]) -> Preset:
    return replace(preset, trainer=config.replace_fields(preset.trainer, values))


@own_defaults
def run(
    preset: Preset,
    space: Space,
    num_trials: int,
    out: str | Path,
    *,
    seed: int = 0,
    start: starts.Place | None = None,
    resume: bool = False,
    console: Any = None,
) -> int:
    """Search, or go on with a search, and test the best run.

    Args:
        preset: what is run.
        space: from `plan`.
        num_trials: in all; a search that is resumed may have more than before.
        out: folder, new or empty unless `resume`.
        seed: of all runs, and of the search.
        start: begin every run at the meta-parameters of this objective, see `discovery.discover`.
        resume: go on with the search in `out`, which must be the same but for the number of trials.
        console: `rich` console.

    Returns:
        The exit code: 0, 1 where no trial came to an end, or 128 + the number of the signal that interrupted it.

    Raises:
        config.ConfigError: where Optuna is missing, or several processes call this.
        RunError: where `out` cannot be used, or holds another search.
    """
    check_optuna()
    if is_joined():
        raise config.ConfigError("--trials is for one process: start a search on each machine, with a seed of its own")
    if num_trials < 1:
        raise ValueError(f"--trials must be at least 1, got {num_trials}")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console, folder = terminal.console_for(console), Path(out)
    study = _study(folder, _described(preset, space, seed), resume)
    while (trial := _next_trial(study, num_trials, seed)) is not None:
        values = {name: each.suggest(trial, name) for name, each in space.items()}
        chosen = ", ".join(f"{name}={value}" for name, value in values.items())
        console.print(f"[bold]trial {trial.number}[/bold] of {num_trials}: {chosen}", highlight=False)
        exit_code = _try(study, trial, _set(preset, values), folder, seed, start, console)
        if exit_code:
            return exit_code
        _write_table(study, folder)
    console.print(_write_table(study, folder), markup=False, highlight=False, soft_wrap=True)
    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        console.print("No trial came to its end: lower the sigma or the learning rate.", highlight=False)
        return 1
    best = study.best_trial
    console.print(f"The best is trial {best.number}. table: {folder / TABLE}", soft_wrap=True, highlight=False)
    tested = _set(preset, {name: str(value) for name, value in best.params.items()})
    return discovery.discover(tested, _home(folder, best), seed=seed, resume=True, console=console).exit_code


def _next_trial(study: Any, num_trials: int, seed: int) -> Any:
    """The one that was interrupted, or a new one; None where there have been enough."""
    import optuna

    begun = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    if begun:
        return optuna.trial.Trial(study, begun[0]._trial_id)
    done = len(study.trials)
    if done >= num_trials:
        return None
    # Seeded anew for each trial, so that a search that is resumed asks what it would have asked.
    study.sampler = optuna.samplers.TPESampler(seed=(seed + 1_000_003 * done) % 2**32)
    return study.ask()


def _home(folder: Path, trial: Any) -> Path:
    return folder / f"trial{trial.number}"


def _described(preset: Preset, space: Space, seed: int) -> dict[str, Any]:
    """The parts of a search that must be equal when it is resumed."""
    searched = {name: list(each.ends()) for name, each in space.items()}
    caps = {name: getattr(preset, name) for name in ("minutes", "env_steps")}
    return {"preset": preset.name, "seed": seed, **caps, "space": searched, "trainer": config.to_data(preset.trainer)}


def _study(folder: Path, described: dict[str, Any], resume: bool) -> Any:
    """What Optuna knows of the search. Raises RunError where the folder holds something else."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = folder / TRIALS
    if folder.exists() and any(folder.iterdir()):
        if not path.exists():
            raise RunError(f"{folder} holds something else than a search: name another --out.")
        if not resume:
            raise RunError(f"{folder} holds a search already: go on with --resume, or name another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    study = optuna.create_study(
        study_name=STUDY,
        storage=storage,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST),
        load_if_exists=True,
    )
    kept = study.user_attrs.get("search")
    text = json.dumps(described, sort_keys=True)
    if kept is None:
        study.set_user_attr("search", text)
    elif kept != text:
        before = json.loads(kept)
        other = [name for name in described if json.loads(text)[name] != before.get(name)]
        raise RunError(f"{folder} holds a search with another {', '.join(other)}: name another --out.")
    return study


def _try(
    study: Any, trial: Any, preset: Preset, folder: Path, seed: int, start: starts.Place | None, console: Any
) -> int:
    """One run, and what it was worth told to Optuna; the exit code where it was interrupted, else 0."""
    import optuna

    every = preset.validate_every or max(1, preset.trainer.num_steps // LOOKS)
    untested = replace(preset, suites=(), baselines=(), validate_every=every)
    home, last = _home(folder, trial), preset.trainer.num_steps

    def report(_: Path, state: Any) -> None:
        rows = read_metrics(home / "metrics.jsonl", int(state.step))
        if not rows or rows[-1].get(VALUE) is None or int(rows[-1]["step"]) == last:
            return
        trial.report(rows[-1][VALUE], int(rows[-1]["step"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    hook = Snapshot("trial", every, report)
    try:
        done = discovery.discover(untested, home, seed=seed, resume=True, start=start, hooks=[hook], console=console)
    except optuna.TrialPruned:
        progress.say_ended(home, "pruned")
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        console.print("It is behind the others at this meta-step, and ends here.", highlight=False)
        return 0
    except loop.TrainingError as error:
        progress.say_ended(home, "failed")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        console.print(f"It failed: {error}", markup=False, highlight=False)
        return 0
    if done.exit_code:
        return done.exit_code
    measured = [row[VALUE] for row in read_metrics(home / "metrics.jsonl") if row.get(VALUE) is not None]
    study.tell(trial, measured[-1])
    return 0


def _write_table(study: Any, folder: Path) -> str:
    """All trials, the best first, into a file; the first of them are returned."""
    trials = [trial for trial in study.trials if trial.state.is_finished()]
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))

    def of(trial: Any) -> list[str]:
        state, value = trial.state.name.lower(), trial.value if trial.value is not None else math.nan
        given = [f"{each:.4g}" if isinstance(each := trial.params.get(name), float) else str(each) for name in names]
        return [f"trial{trial.number}", state, decimal(value), *given]

    ranked = sorted(trials, key=lambda trial: -trial.value if trial.state.name == "COMPLETE" else math.inf)
    table = Table(["run", "ended", "validation IQM", *names], [of(trial) for trial in ranked])
    write_atomically(folder / TABLE, (markdown(table) + "\n").encode())
    return markdown(Table(table.head, table.rows[:SHOWN]))
