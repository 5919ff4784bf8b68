"""`metadisco watch`: a local page that lists runs, follows and compares their curves, and opens their reports.

Everything is read from run folders, so it also shows runs of other processes and of machines that write to a shared
disk. Flask serves it, to this machine alone unless another address is asked for.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from markupsafe import Markup

from metadisco.core.score_table import decimal
from metadisco.reports import page, plots
from metadisco.reports.markup import missing, part, template
from metadisco.reports.svg import to_svg
from metadisco.runs import run_folder
from metadisco.runs.progress import clock, read_heartbeat

SECONDS = 5.0  # between two looks
LOST_AFTER = 300.0  # seconds without a heartbeat, of a run that says that it is running
MOST_RUNS = 8  # in one chart; more lines cannot be told apart
METRICS = {"validation/iqm": "IQM on validation levels", "fitness": "mean fitness of the population"}
HEADS = ("validation", "fitness")  # of their columns


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        name: of its folder, below the folder that is watched.
        folder: of the run.
        preset: what was run.
        seed: of the run.
        status: `running`, `lost` (it says that it runs, and has not been heard of), or what it ended with.
        step: meta-steps done.
        num_steps: of the whole run.
        seconds_left: of the run, while it runs.
        speed: meta-steps a second of late.
        last: metric -> its last value.
        warning: of the run, or None.
    """

    name: str
    folder: Path
    preset: str
    seed: int
    status: str
    step: int
    num_steps: int
    seconds_left: float
    speed: float
    last: Mapping[str, float]
    warning: str | None


def folders(home: Path) -> list[Path]:
    """The run folders in a folder, which may be one itself; the newest first."""

    def below(folder: Path) -> Iterator[Path]:
        if (folder / "config.json").is_file():
            yield folder  # what is inside belongs to the run
            return
        for inner in folder.iterdir():
            if inner.is_dir() and not inner.name.startswith("."):
                yield from below(inner)

    return sorted(below(home), key=lambda folder: -(folder / "config.json").stat().st_mtime)


class Rows:
    """The logs of runs, read again only where they have grown."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[int, list[Any]]] = {}

    def of(self, folder: Path) -> list[Any]:
        """The logged meta-steps of a run."""
        path = folder / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if self._kept.get(folder, (-1, []))[0] != size:
            self._kept[folder] = size, run_folder.read_metrics(path)
        return self._kept[folder][1]


def state(folder: Path, home: Path, rows: Sequence[Mapping[str, Any]]) -> RunState | None:
    """How far a run is; None where it cannot be read."""
    try:
        config = run_folder.read_config(folder)
    except run_folder.RunError:
        return None
    beat = read_heartbeat(folder)
    status = str(beat.get("status", "new"))
    if status == "running" and time.time() - float(beat.get("unix_time", 0.0)) > LOST_AFTER:
        status = "lost"
    last = {name: next((row[name] for row in reversed(rows) if row.get(name) is not None), None) for name in METRICS}
    return RunState(
        name=folder.name if folder == home else folder.relative_to(home).as_posix(),
        folder=folder,
        preset=str((config["provenance"] or {}).get("preset", "?")),
        seed=config["seed"],
        status=status,
        step=int(rows[-1]["step"]) if rows else 0,
        num_steps=int(config["trainer"].get("num_steps", 0)),
        seconds_left=float(beat.get("seconds_left", 0.0)),
        speed=float(beat.get("meta_steps_per_second", 0.0)),
        last={name: value for name, value in last.items() if value is not None},
        warning=beat.get("warning"),
    )


def as_cells(run: RunState) -> dict[str, Any]:
    """A line of the table."""
    is_going = run.status == "running"
    return {
        "name": run.name,
        "preset": run.preset,
        "seed": run.seed,
        "status": run.status,
        "done": f"{run.step:,} of {run.num_steps:,}",
        "left": clock(run.seconds_left) if is_going else "",
        "speed": f"{run.speed:.3g}" if is_going else "",
        "last": [decimal(run.last.get(name)) for name in METRICS],
        "warning": run.warning or "",
    }


def curves(chosen: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> Markup:
    """One chart with a line for each run that has the metric; run -> its log."""
    lines = {}
    for name, rows in chosen.items():
        points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
        if points:
            lines[name] = points
    if not lines:
        return missing("No run is chosen." if not chosen else "The chosen runs have not logged this yet.")
    ends = ", ".join(f"{name} {decimal(points[-1][1])}" for name, points in lines.items())
    shared = os.path.commonpath([Path(name).parent for name in lines]) if len(lines) > 1 else ""
    lines = {Path(name).relative_to(shared).as_posix(): points for name, points in lines.items()}
    figure = plots.runs(lines, y_label=METRICS[metric], every_step=metric == "fitness")
    return to_svg(figure, "curves", f"{METRICS[metric]} against meta-steps. Last: {ends}.")


def report_of(folder: Path) -> Path:
    """The report of a run, made anew where it is missing or older than the run's log."""
    path, log = folder / "report.html", folder / "metrics.jsonl"
    if not path.exists() or (log.exists() and log.stat().st_mtime > path.stat().st_mtime):
        page.write(folder)
    return path


def app(home: Path, *, seconds: float = SECONDS) -> Any:
    """The Flask application.

    Args:
        home: a folder with runs, or a run.
        seconds: between two looks of the page.

    Raises:
        ValueError: where there is no run in the folder.
    """
    from flask import Flask, Response, abort, redirect, request

    home = home.resolve()
    if not home.is_dir() or not folders(home):
        raise ValueError(f"there is no run in {home}: give the folder of a run, or one that has some, such as runs")
    server, logs = Flask("metadisco", static_folder=None), Rows()

    def known() -> dict[str, RunState]:
        found = (state(folder, home, logs.of(folder)) for folder in folders(home))
        return {run.name: run for run in found if run is not None}

    def table() -> Markup:
        return part("runs", [as_cells(run) for run in known().values()], HEADS)

    def refuse(code: int, text: str) -> NoReturn:
        abort(Response(text, code, mimetype="text/plain"))

    def asked_for(name: str) -> RunState:
        return known().get(name) or refuse(404, f"there is no run {name} in {home}")

    @server.get("/")
    def index() -> str:
        runs = known()
        going = [name for name, run in runs.items() if run.status == "running"]
        first = (going or list(runs))[:MOST_RUNS]
        return template("watch.html", title=home.name, metrics=METRICS, table=table(), chosen=first, seconds=seconds)

    @server.get("/runs")
    def runs() -> str:
        return table()

    @server.get("/curves")
    def chart() -> str:
        metric, names = request.args.get("metric", ""), request.args.getlist("run")
        if metric not in METRICS:
            refuse(400, f"metric is one of {', '.join(METRICS)}")
        return curves({name: logs.of(asked_for(name).folder) for name in names[:MOST_RUNS]}, metric)

    @server.get("/report/<path:name>")
    def report(name: str) -> Response:
        return Response(report_of(asked_for(name).folder).read_text(), mimetype="text/html")

    @server.get("/favicon.ico")
    def icon() -> Any:
        return redirect("data:,")

    return server


def watch(home: Path, *, host: str, port: int, console: Any) -> int:
    """Serve the page until it is interrupted.

    Args:
        home: a folder with runs, or a run.
        host: the address to answer on; that of this machine alone is 127.0.0.1.
        port: to answer on, 0 for any that is free.
        console: of rich.

    Raises:
        ValueError: where there is no run in the folder, or for a port that is none.
        OSError: where the port cannot be used.
    """
    from werkzeug.serving import make_server

    if not 0 <= port < 65536:
        raise ValueError(f"--port must be from 0 to 65535, got {port}")
    served = app(home)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each look
    try:
        taken = socket.create_server((host, port))
    except OSError as error:
        raise OSError(f"{host}:{port} cannot be used: {error.strerror}. Choose another --port or --host.") from error
    # One request after the other: matplotlib's settings are those of the process.
    with taken, make_server(host, port, served, threaded=False, fd=taken.fileno()) as server:
        where = f"http://{host}:{taken.getsockname()[1]}/"
        console.print(f"Watching {home} at {where}   Ctrl-C ends it.", soft_wrap=True, highlight=False)
        server.serve_forever()
    return 0
