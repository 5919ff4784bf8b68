"""The command line. The only module that turns strings into choices.

Settings of a preset are overridden by their dotted path in the trainer, `--meta_optimizer.sigma.start 0.05`; the
valid paths are those of the trainer's own fields, so there is no second list of options to keep in step.
"""

import argparse
import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metadisco import __version__
from metadisco.core import terminal
from metadisco.presets.catalog import PRESETS
from metadisco.runs import signals

USER_ERROR = 2
FAILED = 1
TAKES_SETTINGS = ("discover", "evaluate")  # commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command; those of the process by default, which then also ends at a Ctrl-C at once.

    Returns:
        The exit code: 0, 1 where a run failed, 2 for a user's mistake, 75 where another process of the run was lost,
        128 + number after a signal.
    """
    for stream in (sys.stdout, sys.stderr):
        terminal.forgive(stream)
    with _warnings_as_sentences(), signals.heard_at_once() if arguments is None else contextlib.nullcontext():
        return _main(arguments)


@contextlib.contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """A context in which a warning is printed as what it says, without the line of code that raised it."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"metadisco: warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    _complete(parser)
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command not in TAKES_SETTINGS:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if known.command == "list" and known.kind != "settings":
            return _list(known)
        return _with_jax(known, rest)
    except BaseException as error:
        code, failure = _explain(error)
        print(f"metadisco: {failure}", file=sys.stderr)
        if "metadisco.core.processes" in sys.modules:
            from metadisco.core import processes

            processes.leave(code, failure)
    return code


def _with_jax(known: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run a command that computes."""
    from metadisco.core import config, devices, processes

    _check_texts(known)
    devices.prepare_jax()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a component of the user's own is named package.module:Class
    _check_seed(known)
    for package in getattr(known, "allow", []):
        config.trust(package)
    _join(known)
    _check_jax(known.command)
    code = known.run(known, rest) if known.command in TAKES_SETTINGS else known.run(known)
    processes.leave(code)
    return code


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks what TAB completes to; see `metadisco --help`."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the message of a failure. Unexpected errors are raised, or sent to the other processes."""
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if not isinstance(error, Exception):
        raise error
    from metadisco.checkpoints import checkpoint
    from metadisco.core import config, processes
    from metadisco.runs import loop, run_folder

    mistakes = config.ConfigError, checkpoint.CheckpointError, run_folder.RunError, processes.DistributedError
    if isinstance(error, processes.LostError):
        return processes.LOST, str(error)
    if isinstance(error, (*mistakes, OSError, ValueError)):
        return USER_ERROR, f"error: {error}"
    if isinstance(error, (MemoryError, OverflowError)):
        return USER_ERROR, f"error: a number is too large for this machine: {str(error) or 'out of memory'}"
    if isinstance(error, loop.TrainingError):
        return FAILED, str(error)
    if not processes.is_joined():
        raise error
    return FAILED, "".join(traceback.format_exception(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metadisco",
        description="Discover reinforcement-learning algorithms and test them.",
        epilog="TAB completes commands, options and presets once the shell has been told: "
        'eval "$(register-python-argcomplete metadisco)".',
    )
    parser.add_argument("--version", action="version", version=f"metadisco {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    discover = commands.add_parser(
        "discover",
        help="meta-train an objective, test it, write a report",
        description="Meta-train an objective from random weights, or from one that exists (--from); then test it and "
        "write a report. Settings of the preset are overridden by their path: --meta_optimizer.sigma.start 0.05 "
        "(metadisco list settings PRESET lists them).",
    )
    preset: Any = discover.add_argument("preset", help="name of a preset (metadisco list presets)")
    preset.completer = lambda **_: PRESETS
    discover.add_argument("--out", help="run folder, new unless --resume [default: runs/PRESET]")
    discover.add_argument("--seed", type=int, default=0, help="seed of the run [default: 0]")
    discover.add_argument(
        "--minutes", type=float, help="stop meta-training after this much time [default: the preset's]"
    )
    discover.add_argument(
        "--env-steps", type=float, help="stop after this many environment steps, including those of antagonists"
    )
    discover.add_argument(
        "--resume", action="store_true", help="resume the run in the folder; start it if there is none"
    )
    discover.add_argument(
        "--from",
        dest="start",
        metavar="CHECKPOINT",
        help="start at the meta-parameters of this objective: a name in the zoo or a folder [default: random ones]",
    )
    discover.add_argument(
        "--environments",
        nargs="+",
        metavar="NAME",
        help="meta-train on these instead of the preset's, and test there: CartPole-v1, gymnax:NAME, brax:NAME or "
        "my_module:make_env",
    )
    discover.add_argument(
        "--no-test", action="store_true", help="end with the objective; metadisco evaluate RUN tests it at another time"
    )
    discover.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="FIELD=A,B,C",
        help="one setting per value; repeat it for all combinations [default of --out: runs/PRESET-sweep]",
    )
    discover.add_argument(
        "--seeds", type=int, help="number of seeds per setting, from --seed upward; one table of all runs"
    )
    discover.add_argument(
        "--trials",
        type=int,
        help="search what --sweep names by Optuna in this many runs, also ranges (--sweep FIELD=0.01..0.3), and test "
        "the best [default of --out: runs/PRESET-search]",
    )
    discover.add_argument(
        "--settings",
        metavar="FILE.toml",
        help="settings by their paths; those on the command line come on top (metadisco list settings PRESET)",
    )
    discover.add_argument(
        "--dry-run", action="store_true", help="say what would run, its memory and its cost, and start nothing"
    )
    discover.add_argument("--other-code", action="store_true", help="resume even if the code has changed")
    discover.add_argument(
        "--wandb", choices=["offline", "online"], help="log to Weights & Biases: offline in the run folder, or online"
    )
    several = discover.add_argument_group("several processes", "One run on several hosts; see docs/batch.md.")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="run on several processes; Slurm, Kubernetes, Open MPI and Cloud TPU are detected",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, where it is not detected")
    several.add_argument("--num-processes", type=int, metavar="N", help="number of processes, where it is not detected")
    several.add_argument(
        "--process-id", type=int, metavar="I", help="index of this process, from 0, where it is not detected"
    )
    several.add_argument(
        "--join-seconds",
        type=float,
        metavar="S",
        default=20.0,
        help="time to wait for the other processes [default: 20]",
    )
    discover.set_defaults(run=_discover)

    evaluate = commands.add_parser(
        "evaluate",
        help="test discovered objectives on unseen tasks",
        description="Test discovered objectives on unseen tasks, beside hand-written ones. Settings of the agents are "
        "overridden by their path: --inner.num_workers 16 --inner.learner.policy.learning_rate 1e-3.",
    )
    evaluate.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="name in the zoo, a folder, or disco103:PATH for published weights; several are compared on the same "
        "lives and called by their names, or as in mine=FOLDER",
    )
    evaluate.add_argument(
        "--suite",
        action="append",
        help="NAME, NAME@LIFETIME, NAME@xFACTOR, horizons:NAME, or any environment: gymnax:NAME, brax:NAME, "
        "gymnasium:NAME or my_module:make_env; may be repeated [default: grid-unseen]",
    )
    evaluate.add_argument("--seeds", type=int, default=2, help="agents per task [default: 2]")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of the agents [default: 0]")
    evaluate.add_argument("--levels", type=int, help="only the first LEVELS tasks of each suite")
    evaluate.add_argument("--against", nargs="*", help="baselines: a2c, ppo, dpo [default: all that are tuned there]")
    evaluate.add_argument("--json", help="write the results to this file")
    evaluate.add_argument("--out", help="write results.json, table.md and figures into this folder")
    evaluate.add_argument("--overwrite", action="store_true", help="replace an older comparison in that folder")
    evaluate.set_defaults(run=_evaluate)

    inspect = commands.add_parser("inspect", help="explain a checkpoint: its inputs, sensitivities and outputs")
    inspect.add_argument("checkpoint", help="name in the zoo, a folder, or disco103:PATH for published weights")
    inspect.add_argument("--scores", action="store_true", help="print its scores, a table for each suite")
    inspect.add_argument(
        "--lives", action="store_true", help="train agents on small grid worlds, for the entropy of their policies"
    )
    inspect.add_argument("--out", help="write pictures into this folder; a drift is drawn beside PPO and DPO")
    inspect.add_argument("--overwrite", action="store_true", help="replace pictures that are in the folder")
    inspect.set_defaults(run=_inspect)

    distill = commands.add_parser("distill", help="put short formulas in the place of what a checkpoint has learned")
    distill.add_argument("checkpoint", help="name in the zoo or a folder")
    distill.add_argument(
        "--out", help="folder of the formulas [default: formula/ in the folder of a run, else runs/NAME-formula]"
    )
    distill.add_argument("--overwrite", action="store_true", help="replace an older checkpoint in that folder")
    distill.add_argument(
        "--suite",
        action="append",
        default=[],
        help="where agents live for the samples; may be repeated [default: the tasks of its meta-training]",
    )
    distill.add_argument("--lives", type=int, default=16, help="agents in each environment, at least 4 [default: 16]")
    distill.add_argument(
        "--tolerance",
        type=float,
        default=0.01,
        metavar="T",
        help="the shortest formula is chosen whose 1 - R^2 is at most T above the best [default: 0.01]",
    )
    distill.add_argument("--length", type=int, default=25, help="longest formula, in numbers, inputs and functions")
    distill.add_argument("--generations", type=int, default=40, help="of a search [default: 40]")
    distill.add_argument("--restarts", type=int, default=2, help="searches, each with its own seed [default: 2]")
    distill.add_argument("--seed", type=int, default=0, help="of lives and searches [default: 0]")
    distill.set_defaults(run=_distill)

    report = commands.add_parser("report", help="write report.html of a run, finished or not")
    report.add_argument("folder", help="run folder")
    report.set_defaults(run=_report)

    for command in (discover, evaluate, inspect, distill, report):
        command.add_argument(
            "--allow",
            action="append",
            default=[],
            metavar="MODULE",
            help="module or package of your own whose components checkpoints may name; may be repeated",
        )

    tune = commands.add_parser(
        "tune",
        help="measure the scale of an environment: what a random policy and tuned PPO get there",
        description="Measure what PPO gets on an environment at the best of several rates of learning, and keep it as "
        "the scale of its scores; without, they are returns.",
    )
    tune.add_argument("environment", help="gymnax:NAME, brax:NAME, gymnasium:NAME or my_module:make_env")
    tune.add_argument("--seeds", type=int, default=4, help="agents for each rate, at least 2 [default: 4]")
    tune.add_argument("--seed", type=int, default=0, help="seed of the agents [default: 0]")
    tune.add_argument("--updates", type=int, help="the usual budget there, in agent updates [default: 128]")
    tune.set_defaults(run=_tune)

    watch = commands.add_parser("watch", help="follow runs and compare their curves in a local page")
    watch.add_argument("folder", nargs="?", default="runs", help="a folder with runs, or a run [default: runs]")
    watch.add_argument("--port", type=int, default=8765, help="of the page, 0 for any that is free [default: 8765]")
    watch.add_argument("--host", default="127.0.0.1", help="address of the page [default: this machine alone]")
    watch.set_defaults(run=_watch)

    doctor = commands.add_parser("doctor", help="say what this installation is, and what is wrong or missing")
    doctor.set_defaults(run=_doctor)

    listing = commands.add_parser("list", help="list presets, suites, objectives, checkpoints or a preset's settings")
    listing.add_argument("kind", choices=["presets", "suites", "objectives", "checkpoints", "settings"])
    of: Any = listing.add_argument("preset", nargs="?", help="whose settings, for `list settings`")
    of.completer = lambda **_: PRESETS
    listing.set_defaults(run=_list)
    return parser


def _check_texts(known: argparse.Namespace) -> None:
    """Refuse an empty name or path, which would mean the current folder."""
    for name, value in vars(known).items():
        if any(text == "" for text in (value if isinstance(value, list) else [value])):
            option = {"start": "from"}.get(name, name.replace("_", "-"))
            is_place = name in ("preset", "checkpoint", "checkpoints", "folder", "environment")
            raise ValueError(
                f"the {option.removesuffix('s')} is empty: name one"
                if is_place
                else f"--{option} is empty: leave it out"
            )


def _check_seed(known: argparse.Namespace) -> None:
    if not 0 <= getattr(known, "seed", 0) < 2**32:
        raise ValueError(f"--seed must be 0 to {2**32 - 1}, got {known.seed}")


def _join(known: argparse.Namespace) -> None:
    """Join the other processes where there are any."""
    from metadisco.core import processes

    who = [getattr(known, name, None) for name in ("coordinator", "num_processes", "process_id")]
    if getattr(known, "distributed", False):
        processes.join(*who, seconds=known.join_seconds)
    elif any(each is not None for each in who):
        raise ValueError("--coordinator, --num-processes and --process-id need --distributed")


def _check_jax(command: str) -> None:
    """Refuse at once what JAX is set to and cannot do, or cannot do in a lifetime."""
    import jax

    options: Any = jax.config  # whose names and types are known at run time only
    if options.jax_disable_jit and command in ("discover", "evaluate"):
        raise ValueError(
            f"JAX_DISABLE_JIT: without compiling, `metadisco {command}` would take days; unset it. To step through an "
            "objective, call InnerLoop.update in Python, which works in that mode (docs/testing.md)."
        )
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an AssertionError where JAX_PLATFORMS is cuda, without words
        reason = (str(error).splitlines() or ["there is no such device, or jaxlib was installed without it"])[0]
        raise ValueError(
            f"JAX finds no device for JAX_PLATFORMS={options.jax_platforms or ''}: {reason}. Unset JAX_PLATFORMS, or "
            "install JAX for that device."
        ) from error


def _overrides(rest: Sequence[str]) -> dict[str, str]:
    """`--a.b value` and `--a.b=value` pairs."""
    from metadisco.core.config import ConfigError

    found, position = {}, 0
    while position < len(rest):
        word = rest[position]
        if not word.startswith("--"):
            raise ConfigError(f"unexpected argument {word!r}; settings are given as --path.to.field VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            position += 1
            if position == len(rest):
                raise ConfigError(f"--{name} needs a value")
            value = rest[position]
        found[name.replace("-", "_")] = value
        position += 1
    return found


def _discover(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from dataclasses import replace

    from metadisco.commands import discovery, settings
    from metadisco.core import config
    from metadisco.presets import mixture, registry

    if known.start is not None and known.resume:
        raise ValueError("--from with --resume: a run that goes on keeps its beginning; leave out one of the two")
    preset = registry.preset(known.preset)
    if known.environments is not None:
        preset = mixture.on_environments(preset, known.environments)
    if known.no_test:
        preset = replace(preset, suites=())
    file: Mapping[str, object] = {} if known.settings is None else settings.read(known.settings)
    for fields in (file, _overrides(rest)):  # in turn: a file may name an objective, and the command line a field of it
        preset = replace(preset, trainer=config.replace_fields(preset.trainer, fields))
    for cap in ("minutes", "env_steps"):
        if getattr(known, cap) is not None:
            preset = replace(preset, **{cap: getattr(known, cap)})
    if known.trials is not None:
        return _search(known, preset, _overrides(rest))
    if known.sweep or known.seeds is not None:
        return _sweep(known, preset, _overrides(rest))
    out = known.out or f"runs/{preset.name}"
    if known.dry_run:
        options = {name: getattr(known, name) for name in ("seed", "resume", "other_code", "start")}
        _show_preview(discovery.preview(preset, out, **options), settings.settings(preset.trainer))
        return 0
    return discovery.discover(
        preset,
        out,
        seed=known.seed,
        resume=known.resume,
        other_code=known.other_code,
        start=known.start,
        wandb=known.wandb,
        console=_console(),
    ).exit_code


def _show_preview(rows: Sequence[tuple[str, str]], fields: Sequence[tuple[str, ...]]) -> None:
    console = _console()
    for name, value in rows:
        console.print(f"{name + ':':<11} {value}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    for path, value, *_ in fields:
        console.print(f"{path} = {value}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nNothing was started: this was --dry-run.", highlight=False)


def _swept(known: argparse.Namespace, overrides: dict[str, str]) -> dict[str, tuple[str, ...]]:
    from metadisco.commands import sweep
    from metadisco.core import config

    fields = sweep.parse(known.sweep)
    twice = sorted(set(fields) & set(overrides))
    if twice:
        raise config.ConfigError(f"{', '.join(twice)}: given with --sweep and as --{twice[0]}; give one of the two")
    return fields


def _search(known: argparse.Namespace, preset: Any, overrides: dict[str, str]) -> int:
    from metadisco.commands import search

    if known.seeds is not None:
        raise ValueError("--trials with --seeds: trials share one seed; leave out one of the two")
    space = search.plan(preset, _swept(known, overrides))
    if known.dry_run:
        words = [("preset", f"{preset.name}: {preset.description}"), ("trials", str(known.trials))]
        _show_preview([*words, *((name, each.in_words()) for name, each in space.items())], [])
        return 0
    out = known.out or f"runs/{preset.name}-search"
    options = {name: getattr(known, name) for name in ("seed", "start", "resume")}
    return search.run(preset, space, known.trials, out, **options, console=_console())


def _sweep(known: argparse.Namespace, preset: Any, overrides: dict[str, str]) -> int:
    from metadisco.commands import sweep

    fields = _swept(known, overrides)
    for name, values in fields.items():
        if any(".." in value for value in values):
            raise ValueError(f"--sweep {name}={','.join(values)}: a range needs --trials; or name its values, A,B,C")
    num_seeds = 1 if known.seeds is None else known.seeds
    if not 1 <= num_seeds <= 2**32 - known.seed:
        raise ValueError(f"--seeds must be 1 to {2**32 - known.seed}, got {num_seeds}")
    if num_seeds > sweep.MAX_RUNS:  # said here, before so many seeds are listed
        raise ValueError(f"--seeds must be at most {sweep.MAX_RUNS:,}, got {num_seeds:,}")
    planned = sweep.plan(preset, fields, range(known.seed, known.seed + num_seeds))
    out = known.out or f"runs/{preset.name}-sweep"
    if known.dry_run:
        _show_preview(sweep.preview(planned, out, resume=known.resume), [])
        return 0
    return sweep.run(planned, out, start=known.start, resume=known.resume, console=_console())


def _evaluate(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from metadisco.evaluation import meta_test, results
    from metadisco.reports import comparison

    if known.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {known.seeds}")
    named = meta_test.load_all(known.checkpoints)
    if known.out:  # a folder that cannot be made is known before the work is done
        comparison.check_folder(Path(known.out), overwrite=known.overwrite)
        Path(known.out).parent.mkdir(parents=True, exist_ok=True)
    if known.json:
        Path(known.json).parent.mkdir(parents=True, exist_ok=True)
    found = meta_test.run(
        named,
        known.suite or ["grid-unseen"],
        num_seeds=known.seeds,
        seed=known.seed,
        num_levels=known.levels,
        baselines=known.against,
        settings=_overrides(rest),
        console=_console(),
    )
    document = comparison.document(named, found, seed=known.seed)
    if known.json:
        results.write_json(Path(known.json), document)
        print(f"results written to {known.json}")
    if known.out:
        comparison.write(Path(known.out), document, found.results, overwrite=known.overwrite)
        print(f"results and figures written to {known.out}")
    return 0


def _tune(known: argparse.Namespace) -> int:
    from metadisco.commands import tuning

    tuning.tune(known.environment, num_seeds=known.seeds, updates=known.updates, seed=known.seed, console=_console())
    return 0


def _watch(known: argparse.Namespace) -> int:
    from metadisco.commands import watching

    return watching.watch(Path(known.folder), host=known.host, port=known.port, console=_console())


def _doctor(known: argparse.Namespace) -> int:
    from metadisco.commands.doctor import doctor

    del known
    return doctor(_console())


def _inspect(known: argparse.Namespace) -> int:
    from metadisco.checkpoints.disco103 import load_by_reference
    from metadisco.core.score_table import counted
    from metadisco.reports import inspection

    discovered = load_by_reference(known.checkpoint)
    lives = known.lives or bool(known.out)  # of which a picture is drawn
    found, paths = inspection.inspect(discovered, lives=lives), []
    if known.out:
        paths = inspection.write(discovered, found, Path(known.out), overwrite=known.overwrite)
    console = _console()
    inspection.explain(discovered, found, console, scores=known.scores)
    more = [f"--scores: its scores on {counted(len(discovered.evaluation), 'suite')}"] if discovered.evaluation else []
    more = ([] if known.scores else more) + ([] if lives else ["--lives: the entropy of agents that learn by it"])
    if more:
        console.print("More: " + "; ".join(more) + ".", highlight=False, soft_wrap=True)
    for path in paths:
        print(path)
    return 0


def _distill(known: argparse.Namespace) -> int:
    from metadisco.commands import distilling
    from metadisco.distillation import distillation, regression

    settings = distillation.Settings(
        num_lives=known.lives,
        tolerance=known.tolerance,
        seed=known.seed,
        search=regression.Search(generations=known.generations, restarts=known.restarts, max_length=known.length),
    )
    distilling.distill(
        known.checkpoint,
        Path(known.out) if known.out else None,
        known.suite,
        settings=settings,
        overwrite=known.overwrite,
        console=_console(),
    )
    return 0


def _report(known: argparse.Namespace) -> int:
    from metadisco import reports

    print(reports.write(Path(known.folder)))
    return 0


def _list(known: argparse.Namespace) -> int:
    from metadisco.commands import listing

    if known.kind == "settings":
        _list_settings(known.preset)
    elif known.preset is not None:
        raise ValueError(f"list {known.kind} takes no name, got {known.preset!r}")
    else:
        _console().print(_as_table(listing.rows(known.kind)))
    _console().print(f"\n{listing.NOTES[known.kind]}", highlight=False, markup=False)
    return 0


def _list_settings(name: str | None) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from metadisco.commands import settings
    from metadisco.presets import registry

    if name is None:
        raise ValueError("list settings needs the name of a preset, such as: metadisco list settings quickstart")
    console = _console()
    for path, value, meaning in settings.settings(registry.preset(name).trainer):
        console.print(Text.assemble((path, "bold"), f" = {value}"), soft_wrap=True)
        console.print(Padding(Text(meaning, style="dim"), (0, 0, 0, 4)))


def _as_table(rows: Sequence[Sequence[str]]) -> Any:
    """Rows of text, the first column bold, the last one as wide as there is room for."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for place in range(len(rows[0])):
        table.add_column(style="" if place else "bold", no_wrap=place + 1 < len(rows[0]), overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _console() -> Any:
    return terminal.console_for()


if __name__ == "__main__":
    sys.exit(main())
