"""A queue of meta-training runs that fills the cores given to it, survives kills, and says what came of it.

    python -m experiments.campaign experiments/campaigns/tables.toml --cores 0          # work the queue off
    python -m experiments.campaign experiments/campaigns/tables.toml --show             # what is done
    python -m experiments.campaign experiments/campaigns/tables.toml --rows docs/results/tables.json

The file lists runs; each is started as `metadisco discover` once for every seed, one per core, seed by seed, so that a
campaign that is cut short has seeds of everything:

    [[run]]
    name = "scheduled-a2c"          # of its folder; the preset's by default
    preset = "scheduled-a2c"
    seeds = [0, 1, 2, 3, 4]
    settings = { num_steps = 200, "meta_optimizer.sigma.start" = 0.1 }
    minutes = 11                    # in all, however often it is interrupted
    test = false                    # end with the objective: it is tested with others, by another script

Nothing is kept but run folders: whatever is in one says how far it is. Started again, the campaign goes on with what is
not finished. A run that fails is left alone and said; remove its folder to try again. SIGTERM and Ctrl-C stop all runs,
each with a checkpoint.
"""

import argparse
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from metadisco.core.config import ConfigError
from metadisco.core.files import write_atomically
from metadisco.core.provenance import provenance
from metadisco.core.score_table import Table, decimal, interval, markdown
from metadisco.evaluation import stats
from metadisco.presets import registry
from metadisco.runs import run_folder

KEYS = {"name", "preset", "seeds", "settings", "minutes", "test"}
WAITS = 0.5  # seconds between two looks at the runs
FAILURE = "failed.txt"  # in the folder of a run: what it said
MEASURES = ("iqm", "cvar", "mean_score")


@dataclass(frozen=True)
class Job:
    """One run: a preset with settings, and a seed."""

    name: str
    preset: str
    seed: int
    folder: Path
    settings: tuple[tuple[str, str], ...] = ()
    minutes: float | None = None
    test: bool = True

    @property
    def is_done(self) -> bool:
        """Whether it has its report, which comes last."""
        return (self.folder / "report.html").exists()

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error that another try would meet again."""
        return (self.folder / FAILURE).exists()

    def command(self) -> list[str]:
        """What is run; it goes on where there is a run already."""
        options = ["--out", str(self.folder), "--seed", str(self.seed)]
        if (self.folder / "config.json").exists():
            options.append("--resume")
        if not self.test:
            options.append("--no-test")
        if self.minutes is not None:
            options += ["--minutes", str(self.minutes)]
        for path, value in self.settings:
            options += [f"--{path}", value]
        return [sys.executable, "-m", "metadisco.cli", "discover", self.preset, *options]


def read(path: Path, out: Path | None = None) -> list[Job]:
    """The jobs of a campaign, seed by seed.

    Args:
        path: of the file.
        out: where run folders are; `runs/<name of the file>` by default.

    Raises:
        ConfigError: where the file says something that cannot be; says what and where.
    """
    try:
        runs = tomllib.loads(path.read_text()).get("run")
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Write a TOML file with [[run]] tables.") from error
    if not isinstance(runs, list) or not runs:
        raise ConfigError(f"{path} has no [[run]] table: write one for each preset that is to be run.")
    home = Path("runs") / path.stem if out is None else out
    jobs = [job for number, run in enumerate(runs, 1) for job in _jobs(run, f"{path}, run {number}", home)]
    folders = [job.folder for job in jobs]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path} has two runs for {twice}: give one of them another name, or another seed.")
    return sorted(jobs, key=lambda job: job.seed)  # stable: runs of one seed in the order of the file


def _jobs(run: Any, where: str, home: Path) -> Iterator[Job]:
    unknown = sorted(set(run) - KEYS) if isinstance(run, dict) else ["?"]
    if unknown:
        raise ConfigError(f"{where} has {unknown[0]!r}: it may have {', '.join(sorted(KEYS))}.")
    preset = run.get("preset")
    if preset not in registry.PRESETS:
        raise ConfigError(f"{where} names the preset {preset!r}: take one of {', '.join(sorted(registry.PRESETS))}.")
    seeds = run.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{where} has seeds = {seeds!r}: write a list of integers from 0, such as [0, 1, 2].")
    minutes = run.get("minutes")
    if minutes is not None and not (type(minutes) in (int, float) and minutes > 0):
        raise ConfigError(f"{where} has minutes = {minutes!r}: it must be above 0; leave it out for the preset's own.")
    test = run.get("test", True)
    if not isinstance(test, bool):
        raise ConfigError(f"{where} has test = {test!r}: it must be true or false.")
    settings = tuple((path, str(value)) for path, value in run.get("settings", {}).items())
    name = str(run.get("name", preset))
    for seed in seeds:
        yield Job(name, preset, seed, home / name / f"seed{seed}", settings, minutes, test)


@dataclass
class Campaign:
    """Works jobs off, one on each core."""

    jobs: Sequence[Job]
    cores: Sequence[int]
    nice: int = 0
    running: dict[int, tuple[Job, subprocess.Popen]] = field(default_factory=dict)  # core -> its run
    stopped_by: int | None = None

    def run(self) -> int:
        """Until nothing is left to do, or a signal came; the exit code: 0, 1 where a run failed, 128 + signal."""
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self.stopped_by is None and (self._start() or self.running):
                self._reap()
                time.sleep(WAITS)
            while self.running:  # they save and end by themselves
                self._reap()
                time.sleep(WAITS)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.stopped_by is not None:
            return 128 + self.stopped_by
        return int(any(job.has_failed for job in self.jobs))

    def _start(self) -> bool:
        """Start a run on every idle core. Whether any was started."""
        busy = {job.folder for job, _ in self.running.values()}
        waiting = [job for job in self.jobs if not (job.is_done or job.has_failed or job.folder in busy)]
        idle = [core for core in self.cores if core not in self.running]
        for core, job in zip(idle, waiting):
            print(f"core {core}: {shlex.join(job.command()[2:])}", flush=True)
            job.folder.parent.mkdir(parents=True, exist_ok=True)
            with (job.folder.parent / f"{job.folder.name}.log").open("a") as log:
                environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "CI": "true"}
                process = subprocess.Popen(
                    ["nice", "-n", str(self.nice), "taskset", "-c", str(core), *job.command()],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
            self.running[core] = job, process
        return bool(idle and waiting)

    def _reap(self) -> None:
        """Take note of runs that have ended."""
        for core, (job, process) in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[core]
            if code and self.stopped_by is None and code not in (75, 128 + signal.SIGTERM, -signal.SIGKILL):
                log = (job.folder.parent / f"{job.folder.name}.log").read_text().splitlines()
                job.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(job.folder / FAILURE, "\n".join(log[-20:]).encode())
                print(
                    f"core {core}: {job.name} seed {job.seed} failed with {code}: {log[-1] if log else ''}", flush=True
                )

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stopped_by = number
        for _, process in self.running.values():
            process.send_signal(signal.SIGTERM)


def state(job: Job) -> str:
    """How far a job is, in words."""
    if job.is_done:
        return "done"
    if job.has_failed:
        return "failed"
    rows = run_folder.read_metrics(job.folder / "metrics.jsonl")
    return f"meta-step {rows[-1]['step']:.0f}" if rows else "waiting"


def scores(job: Job) -> dict[str, Any]:
    """Suite -> agent -> row of a run that is done; {} of another."""
    path = job.folder / "evaluation.json"
    return json.loads(path.read_text()) if job.is_done and path.exists() else {}


def rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """One row for each run of the file and suite: means over meta-training seeds, with their intervals.

    The interval is that of Student's t over seeds, so it is about what another meta-training run would reach; with one
    seed there is none.
    """
    found = []
    for name in dict.fromkeys(job.name for job in jobs):
        done = {job.seed: scores(job) for job in jobs if job.name == name}
        for suite in dict.fromkeys(suite for one in done.values() for suite in one):
            for agent in dict.fromkeys(agent for one in done.values() for agent in one.get(suite, {})):
                each = {seed: one[suite][agent] for seed, one in done.items() if agent in one.get(suite, {})}
                row: dict[str, Any] = {"run": name, "suite": suite, "agent": agent, "seeds": sorted(each)}
                for measure in MEASURES:
                    values = np.array([one[measure] for one in each.values() if measure in one])
                    if len(values):
                        row |= _over_seeds(measure, values)
                found.append(row)
    return found


def _over_seeds(measure: str, values: np.ndarray) -> dict[str, Any]:
    if len(values) < 2:
        return {measure: float(values.mean()), f"{measure}_low": None, f"{measure}_high": None}
    found = stats.mean_interval(values)
    return {measure: found.point, f"{measure}_low": found.low, f"{measure}_high": found.high}


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = ["run", "suite", "agent", "seeds", "IQM", "over seeds", "worst 10% of levels", "over seeds"]
    lines = [
        [
            *(row["run"], row["suite"], row["agent"], str(len(row["seeds"]))),
            *(decimal(row.get("iqm")), interval(row.get("iqm_low"), row.get("iqm_high"))),
            *(decimal(row.get("cvar")), interval(row.get("cvar_low"), row.get("cvar_high"))),
        ]
        for row in found
    ]
    return markdown(Table(head, lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the queue, or show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="TOML with [[run]] tables")
    parser.add_argument("--out", type=Path, help="where run folders are [default: runs/<name of the file>]")
    parser.add_argument("--cores", default="0", help="CPU cores to use, such as 0 or 0,1 [default: 0]")
    parser.add_argument("--nice", type=int, default=0, help="niceness of the runs [default: 0]")
    parser.add_argument("--show", action="store_true", help="say what is done, and nothing else")
    parser.add_argument("--rows", type=Path, help="write means over seeds of what is done as JSON, and nothing else")
    known = parser.parse_args(arguments)
    try:
        jobs = read(known.file, known.out)
        cores = [int(core) for core in known.cores.split(",")]
    except (ConfigError, ValueError) as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2
    if known.show or known.rows:
        found = rows(jobs)
        if known.rows:
            document = {"provenance": provenance(campaign=known.file.name), "rows": found}
            write_atomically(known.rows, (json.dumps(document, indent=2) + "\n").encode())
        for job in jobs:
            print(f"{job.name:24} seed {job.seed:<4} {state(job)}")
        print(table(found))
        return 0
    home = jobs[0].folder.parents[1]
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".campaign.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"campaign: another one works in {home}: wait for it, or name another --out.", file=sys.stderr)
            return 2
        return Campaign(jobs, cores, known.nice).run()


if __name__ == "__main__":
    raise SystemExit(main())
