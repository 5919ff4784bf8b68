"""A run's folder: what is in it, who may write in it, and the log of its meta-steps.

It holds `config.json` (written first), `metrics.jsonl` (one line per meta-step), `tensorboard/` and `checkpoints/`, and
may hold snapshots (`levels/`). What comes after the run (`objective/`, `evaluation.json`, `report.html`) is written by
others. One process at a time writes (of several that work together, process 0), and a run is resumed only with the
settings, and by the code, that it was begun with.
"""

import contextlib
import fcntl
import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

import jax

from metadisco.core import config, moved
from metadisco.core.files import hash_file, in_words, parse_json, write_atomically
from metadisco.core.processes import DistributedError, exchange, is_first, is_joined, together
from metadisco.core.provenance import code_digest, provenance
from metadisco.core.score_table import counted
from metadisco.runs.trackers import MakeTracker, Tracker

FORMAT_VERSION = 1
Row = dict[str, float]  # the scalars of one meta-step


class RunError(RuntimeError):
    """A run folder that cannot be used as asked."""


@contextlib.contextmanager
def opened(
    out: str | os.PathLike,
    trainer: config.Component,
    seed: int,
    resume: bool,
    details: dict[str, Any],
    *,
    other_code: bool = False,
) -> Iterator[Path]:
    """Make or check a run folder and hold its lock, which the system drops when the process dies however it dies.

    Of several processes, 0 does so and the others find out whether they see and may write in the same folder. What is
    wrong on one of them is an error on all.

    Args:
        out: The folder; new or empty, unless `resume`.
        trainer: The settings of the run, which must equal those of an earlier part of it.
        seed: Of the root key; likewise.
        resume: Whether a run may be there already.
        details: Added to what is written about the origin of a new run.
        other_code: Go on with a run that other code began.

    Returns:
        A context with the folder's absolute path; an `OSError` within becomes a `RunError`.

    Raises:
        RunError: If the folder holds something else, is in use, cannot be written, or was run with other settings or by
            other code.
    """
    with clear_errors(out), contextlib.ExitStack() as stack:
        folder = Path(out).absolute()
        with _run_errors(), together(), clear_errors(out):
            if is_first():
                stack.enter_context(_owned(folder, trainer, seed, resume, details, other_code))
        written = exchange(_config_digest(folder) if is_first() else "")[0]
        with _run_errors(), together(), clear_errors(out):
            _check_shared(folder, written)
        yield folder


@contextlib.contextmanager
def _owned(
    folder: Path, trainer: config.Component, seed: int, resume: bool, details: dict[str, Any], other_code: bool
) -> Iterator[None]:
    """Check a run folder, or make it, and hold its lock."""
    _check_folder(folder, resume)
    settings, code = config.to_data(trainer), code_digest(modules_of(config.to_data(trainer)))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        _take(lock, folder)
        _check_folder(folder, resume)
        if (folder / "config.json").exists():
            _check_settings(folder, settings, seed)
            _check_code(folder, code, other_code)
        else:
            origin = provenance(seed=seed, code=code, **details)
            document = {"format_version": FORMAT_VERSION, "seed": seed, "trainer": settings, "provenance": origin}
            write_atomically(folder / "config.json", (json.dumps(document, indent=2) + "\n").encode())
        yield


def check(
    out: str | os.PathLike, trainer: config.Component, seed: int, resume: bool, *, other_code: bool = False
) -> None:
    """Raise what `opened` would of a folder, but for its lock, and make nothing.

    Raises:
        RunError: If the folder holds something else, or was run with other settings or by other code.
    """
    folder = Path(out).absolute()
    with clear_errors(out):
        _check_folder(folder, resume)
        if (folder / "config.json").exists():
            _check_settings(folder, config.to_data(trainer), seed)
            _check_code(folder, code_digest(modules_of(config.to_data(trainer))), other_code)


def same_run(trainer: config.Component, seed: int, **options: Any) -> dict[str, Any]:
    """What processes that work on one run must have in common, for `processes.require_same`."""
    settings = config.to_data(trainer)
    versions = {"metadisco_code": code_digest(modules_of(settings)), "jax": jax.__version__}
    return {"settings": settings, "seed": seed, **options, **versions, "local_devices": jax.local_device_count()}


def modules_of(settings: Any) -> set[str]:
    """Modules of all components in some settings, as `config.to_data` wrote them."""
    if isinstance(settings, Mapping):
        own = {settings["class"].partition(":")[0]} if "class" in settings else set()
        return own.union(*map(modules_of, settings.values()))
    return set().union(*map(modules_of, settings)) if isinstance(settings, list) else set()


def _config_digest(folder: Path) -> str:
    path = folder / "config.json"
    return hash_file(path) if path.exists() else ""


def _check_shared(folder: Path, written: str) -> None:
    """Of several processes: check that this one sees the folder of process 0, and can write and delete files in it."""
    if not is_joined():
        return
    deadline = time.monotonic() + 5.0  # a network file system may show a new file a little later
    while _config_digest(folder) != written:
        if time.monotonic() > deadline:
            raise RunError(
                f"{folder} is not the same folder here as on process 0: name one as --out that all hosts share, such "
                "as on a network file system."
            )
        time.sleep(0.2)
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    probe = checkpoints / f".writable-{jax.process_index()}"
    probe.write_bytes(b"")
    probe.unlink()


@contextlib.contextmanager
def _run_errors() -> Iterator[None]:
    """A context in which an error of another process about the folder becomes a `RunError` here, too."""
    try:
        yield
    except DistributedError as error:
        if type(error) is DistributedError:
            raise RunError(str(error)) from error
        raise


def _take(lock: TextIO, folder: Path) -> None:
    """Lock the open lock file, and write the owner into it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise RunError(
            f"{folder} is being written by process {lock.read().strip() or '?'}: wait for it, stop it, or name "
            "another --out."
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _check_folder(out: Path, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: name another --out.")
    if (out / "config.json").exists():
        if not resume:
            raise RunError(f"{out} holds another run: go on with it with --resume, or name another --out.")
    elif out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise RunError(f"{out} holds files that are not a run: name a new or empty folder as --out.")


def _check_settings(out: Path, settings: dict[str, Any], seed: int) -> None:
    document = read_config(out)
    try:
        written_by = document["provenance"]["versions"]["jax"]
    except (KeyError, TypeError):
        written_by = "of an unknown version"
    if written_by != jax.__version__:
        warnings.warn(
            f"{out} was begun with jax {written_by} and goes on with {jax.__version__}: its last bits may differ from "
            "those of an uninterrupted run.",
            stacklevel=2,
        )
    changed = config.diff(document["trainer"], settings)
    if document["seed"] != seed:
        changed.append(config.Difference("seed", document["seed"], seed))
    if changed:
        lines = "".join(f"\n  {difference}" for difference in changed)
        raise RunError(f"{out} was run with other settings:{lines}\nResume with its own, or name another --out.")


def _check_code(out: Path, code: str, other_code: bool) -> None:
    begun = read_config(out)["provenance"]
    begun = begun.get("code") if isinstance(begun, Mapping) else None
    if begun is None or begun == code:
        return
    said = f"{out} was begun by other code (digest {begun}, now {code}), so its numbers may differ from a whole run's"
    if not other_code:
        raise RunError(
            f"{said}. Resume with the version that began it (see provenance.commit in config.json), or go on "
            "nevertheless with --other-code."
        )
    warnings.warn(f"{said}.", stacklevel=2)


@contextlib.contextmanager
def clear_errors(out: str | os.PathLike) -> Iterator[None]:
    """A context in which an `OSError` becomes a `RunError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write in {out}: {error.strerror or error}. Free space, or name a folder as --out that can be "
            "written; a run that has begun goes on with --resume."
        ) from error


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """Read a run's `config.json`: `trainer` (for `config.from_data`, in present names), `seed`, `provenance`."""
    path = Path(folder) / "config.json"
    try:
        document = parse_json(path.read_bytes())
        if document["format_version"] != FORMAT_VERSION:
            raise RunError(
                f"{path} has format version {document['format_version']}; this metadisco reads {FORMAT_VERSION}."
            )
        parts = {name: document[name] for name in ("trainer", "seed", "provenance")}
        if not isinstance(parts["trainer"], dict):
            raise ValueError(f"trainer is {parts['trainer']!r}, not a table of settings")
        return document | parts | {"trainer": moved.current(parts["trainer"])}
    except FileNotFoundError as error:
        raise RunError(f"{folder} is not a run folder: it has no config.json.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {in_words(error)}. Start a new run in another folder.") from error


def require_checkpoints(folder: Path, steps: Sequence[int]) -> None:
    """Refuse to begin anew in a folder where a run has got somewhere; `steps` are those of its checkpoints.

    Raises:
        RunError: If meta-steps are logged and there is no checkpoint.
    """
    with together():
        logged = read_metrics(folder / "metrics.jsonl") if is_first() and not steps else []
        if logged:
            raise RunError(
                f"{folder} has lost its checkpoints: {counted(len(logged), 'meta-step')} logged, and none saved in "
                "checkpoints/. Put checkpoints/ back from a copy, or name another --out."
            )


class Log:
    """`metrics.jsonl`, one line per meta-step, and what trackers make of the last one of each chunk, from `step` on.

    Of several processes, 0 writes.
    """

    def __init__(self, folder: Path, step: int, trackers: Sequence[MakeTracker] = ()) -> None:
        self.path, self.folder, self.step, self.makers = folder / "metrics.jsonl", folder, step, trackers
        self.trackers: list[Tracker] = []
        self.closing = contextlib.ExitStack()  # closes all, also where closing one fails
        self.seconds_before = 0.0

    def __enter__(self) -> Self:
        if is_first():
            self.seconds_before = cut_metrics(self.path, self.step)
            self.file = self.closing.enter_context(self.path.open("a", encoding="utf-8"))
            for make in self.makers:
                tracker = make(self.folder, self.step)
                if tracker is not None:
                    self.trackers.append(tracker)
                    self.closing.callback(tracker.close)
        return self

    def write(self, rows: list[Row], seconds: float) -> None:
        """Append the rows of one chunk; `seconds` is the time in this call so far."""
        if not is_first():
            return
        total = round(self.seconds_before + seconds, 3)
        for row in rows:
            values = {name: value if math.isfinite(value) else None for name, value in row.items()}
            self.file.write(json.dumps({**values, "seconds": total}) + "\n")
        self.file.flush()
        scalars = {name: value for name, value in rows[-1].items() if name != "step" and math.isfinite(value)}
        for tracker in self.trackers:
            tracker.write(int(rows[-1]["step"]), scalars)

    def sync(self) -> None:
        """Return when everything written is on disk, so that a checkpoint may count on it."""
        if is_first():
            os.fsync(self.file.fileno())

    def __exit__(self, *_: object) -> None:
        self.closing.close()


def read_metrics(path: Path, step: int = 2**31 - 1) -> list[Row]:
    """The logged meta-steps up to `step`, as far as they are whole."""
    return [row for row, _ in _whole_rows(path, step)]


def cut_metrics(path: Path, step: int) -> float:
    """Cut off the lines after `step`, and a half-written one; return the training time in seconds up to there."""
    seconds, end = 0.0, 0
    if not path.exists():
        return seconds
    for row, length in _whole_rows(path, step):
        seconds, end = row["seconds"], end + length
    if path.stat().st_size > end:
        os.truncate(path, end)
    return seconds


def _whole_rows(path: Path, step: int) -> Iterator[tuple[Row, int]]:
    """Rows up to `step` and the bytes of each, until the first line that is none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                row = parse_json(line) if line.endswith(b"\n") else {}
                if row["step"] > step:
                    return
                row["seconds"] += 0.0
            except (ValueError, KeyError, TypeError):
                return
            yield row, len(line)


def objective_of(trainer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The objective in a trainer's settings, as in `config.json`: of several environments that of the first.

    Empty where there is none that can be read.
    """
    domains = trainer.get("domains")
    first = domains[0] if isinstance(domains, list) and domains else {}
    return _table(_table(_table(first).get("inner")).get("objective"))


def _table(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}
