"""The host loop: do chunks of meta-steps, with progress, logs, checkpoints, resume and a clean stop.

The numbers come from the trainer alone (see `metadisco.chunks`): however a run is cut up by pauses, signals and kills,
it ends the same. What it leaves behind is in the run folder (see `metadisco.run_folder`).
"""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import jax

from metadisco.chunks import MAX_CHUNK, Advance, HostMetrics, Trainer, compile_chunk, restore
from metadisco.progress import Display
from metadisco.run_folder import Log, Row, cut_metrics, opened, read_metrics
from metadisco.train_state import Checkpoints
from metadisco.types import Key

CHUNK_SECONDS = 1.0  # how often the host looks up, where meta-steps are shorter than that
Status = Literal["finished", "paused", "interrupted", "out_of_time", "spent"]


class TrainingError(RuntimeError):
    """A run that cannot go on: a generation without one finite candidate."""


@dataclass(frozen=True)
class Result:
    """How a call of `run` ended.

    Attributes:
        status: "interrupted" by a signal (even in the last chunk), else "finished" at `num_steps`, "paused" at `steps`,
            "out_of_time" by `minutes`, or "spent" where `env_steps` are used up.
        step: meta-steps done since the start of the run.
        state: the train state after them, which is also the newest checkpoint.
        seconds: how long they took, in all calls together.
        signal: the number of the signal that interrupted the run.
    """

    status: Status
    step: int
    state: Any
    seconds: float
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """What a command that does nothing else exits with: 130 after SIGINT, 143 after SIGTERM, else 0."""
        return 0 if self.signal is None else 128 + self.signal


def run(
    trainer: Trainer,
    out: str | os.PathLike,
    *,
    seed: int,
    steps: int | None = None,
    minutes: float | None = None,
    env_steps: float | None = None,
    resume: bool = False,
    chunk: int | None = None,
    checkpoint_seconds: float = 60.0,
    evaluate_fn: Callable[[Any], dict[str, Any]] | None = None,
    evaluate_every: int = 100,
    snapshot_fn: Callable[[Path, Any], None] | None = None,
    snapshot_every: int = 100,
    provenance: dict[str, Any] | None = None,
    console: Any = None,
) -> Result:
    """Run meta-steps from the start, or from the newest intact checkpoint, until the run is finished or has to stop.

    SIGINT and SIGTERM stop it after the present chunk, with a checkpoint; a second signal aborts at once.

    Args:
        trainer: What to run.
        out: The run folder; new or empty, unless `resume`.
        seed: Of the root key.
        steps: Stop when this many meta-steps are done since the start of the run; schedules still follow `num_steps`.
        minutes: Stop before this much time has gone by in this call (compilation included, earlier calls not); at least
            one meta-step is done.
        env_steps: Stop after the meta-step in which the run's environment steps reach this number; see the metric of
            that name, which counts antagonists too.
        resume: Go on with the run in `out`, whose settings and seed must be equal; start it if there is none yet.
        chunk: Meta-steps per host call, 1 to 128; as many as take about a second if None. Changes no number.
        checkpoint_seconds: Time between checkpoints. There is also one at the start and one at the end.
        evaluate_fn: Scalars of a state, logged as `validation/...`; a deterministic function of the state.
        evaluate_every: Meta-steps between its calls; it is also called after the last meta-step.
        snapshot_fn: Leaves something of a state in the run folder, which it is given first. It must do the same
            whenever it is called for the same state, and write whole files: a run that was killed and resumed calls it
            again. It is called before the checkpoint that leads past it, so no kill makes a run skip it.
        snapshot_every: Meta-steps between its calls, the first of which is for the state before any meta-step; it is
            also called when the run stops, for whatever reason but a kill.
        provenance: Added to what is written about this run's origin, such as the preset's name.
        console: The `rich` console to show progress on.

    Raises:
        run_folder.RunError: If the folder holds something else, is in use, cannot be written, or was run with other
            settings.
        TrainingError: If no candidate of a generation is finite. The checkpoint before it stays the newest.
        files.CheckpointError: If a checkpoint cannot be written, or is of another version of the trainer.
    """
    started = time.monotonic()
    last = _last_step(trainer, seed, steps, minutes, env_steps, chunk, evaluate_every, snapshot_every)
    intervals = [every for called, every in ((evaluate_fn, evaluate_every), (snapshot_fn, snapshot_every)) if called]
    pace = _Pace(started, last, minutes, env_steps, chunk, intervals)
    display = Display(console, last, trainer.num_steps)
    with opened(out, trainer, seed, resume, provenance or {}) as folder:
        checkpoints = Checkpoints(folder / "checkpoints")
        display.say("Compiling a meta-step ...")
        advance, placement = compile_chunk(trainer)
        state = restore(trainer, seed, checkpoints, placement)
        step = first = int(state.step)
        pace.spend(read_metrics(folder / "metrics.jsonl", first))
        is_over = first >= last or pace.is_spent()
        snapshots = _Snapshots(folder, snapshot_fn, snapshot_every)
        snapshots.take(step, state, only_if_due=not is_over)
        if is_over:
            display.say(f"{folder} is at meta-step {first} of {trainer.num_steps} already: nothing is left to do.")
            return _result(trainer, pace, step, state, cut_metrics(folder / "metrics.jsonl", first))
        with Log(folder, first) as log, display, _Signals() as signals:
            saver = _Saver(checkpoints, log, checkpoint_seconds, first, state)
            chunks = _chunks(advance, jax.random.key(seed), state, pace, signals)
            for state, rows, seconds in chunks:
                step = int(rows[-1]["step"])
                pace.spend(rows)
                if evaluate_fn and (step % evaluate_every == 0 or step == trainer.num_steps):
                    rows[-1] |= {f"validation/{name}": float(value) for name, value in evaluate_fn(state).items()}
                log.write(rows, time.monotonic() - started)
                failure = _failure(rows, folder, saver.saved)
                snapshots.take(step, state, only_if_due=failure is None)
                if failure is not None:
                    raise failure
                display.update(rows, seconds, pace.seconds_left(step))
                saver.save(step, state, only_if_due=True)
            snapshots.take(step, state)
            saver.save(step, state)
        seconds = log.seconds_before + time.monotonic() - started
        return _result(trainer, pace, step, state, seconds, signals.received)


def _chunks(
    advance: Advance, root: Key, state: Any, pace: "_Pace", signals: "_Signals"
) -> Iterator[tuple[Any, list[Row], float]]:
    """Do chunk after chunk, at least one, until the run has to stop: the state, the rows and the seconds of each."""
    step = first = int(state.step)
    while step < pace.last and signals.received is None and not pace.is_spent():
        if step > first and pace.out_of_time():
            return
        count, begun = pace.next_count(step), time.monotonic()
        state, metrics = advance(root, state, count)
        rows = _rows(metrics, step, count)
        step, seconds = step + count, time.monotonic() - begun
        pace.seconds_per_step = seconds / count
        yield state, rows, seconds


def _result(
    trainer: Trainer, pace: "_Pace", step: int, state: Any, seconds: float, received: int | None = None
) -> Result:
    status: Status = "out_of_time"
    if received is not None:
        status = "interrupted"
    elif step >= pace.last:
        status = "finished" if step >= trainer.num_steps else "paused"
    elif pace.is_spent():
        status = "spent"
    return Result(status, step, state, seconds, received)


class _Pace:
    """How many meta-steps the next chunk has, and how long everything will take."""

    def __init__(
        self,
        started: float,
        last: int,
        minutes: float | None,
        env_steps: float | None,
        chunk: int | None,
        intervals: Sequence[int],
    ) -> None:
        self.last, self.chunk, self.intervals = last, chunk, intervals
        self.env_steps_left = math.inf if env_steps is None else env_steps
        self.most_env_steps = 1.0  # of a meta-step so far
        self.deadline = math.inf if minutes is None else started + 60 * minutes
        self.seconds_per_step: float | None = None

    def out_of_time(self) -> bool:
        """Whether the next meta-step would end after the deadline."""
        return time.monotonic() + (self.seconds_per_step or 0.0) > self.deadline

    def spend(self, rows: list[Row]) -> None:
        """Take note of the environment steps of some meta-steps."""
        for row in rows:
            env_steps = row.get("env_steps") or 0.0
            self.env_steps_left -= env_steps
            self.most_env_steps = max(self.most_env_steps, env_steps)

    def is_spent(self) -> bool:
        """Whether the environment steps are used up."""
        return self.env_steps_left <= 0

    def next_count(self, step: int) -> int:
        """Meta-steps until the host should look up."""
        count = 1  # the first chunk tells how long a meta-step takes
        if self.chunk is not None:
            count = self.chunk
        elif self.seconds_per_step is not None:
            seconds = min(CHUNK_SECONDS, self.deadline - time.monotonic())
            count = max(1, min(MAX_CHUNK, int(seconds / self.seconds_per_step)))
        if math.isfinite(self.env_steps_left):  # half of what is left, so that the end is met exactly
            count = min(count, max(1, int(self.env_steps_left / (2 * self.most_env_steps))))
        return min(count, self.last - step, *(every - step % every for every in self.intervals))

    def seconds_left(self, step: int) -> float:
        """Until the last meta-step or the deadline."""
        num_steps = min(self.last - step, self.env_steps_left / self.most_env_steps)
        return max(0.0, min(num_steps * (self.seconds_per_step or 0.0), self.deadline - time.monotonic()))


class _Saver:
    """Saves at an interval, each step once, with the log on disk before the checkpoint that counts on it."""

    def __init__(self, checkpoints: Checkpoints, log: Log, seconds: float, step: int, state: Any) -> None:
        self.checkpoints, self.log, self.seconds = checkpoints, log, seconds
        self.saved, self.saved_at = step, time.monotonic()
        if step not in checkpoints.steps():  # a folder that cannot be written is known before the work is done
            checkpoints.save(step, state)

    def save(self, step: int, state: Any, *, only_if_due: bool = False) -> None:
        """Save unless this step is saved already, or it is too early and `only_if_due`."""
        if step == self.saved or (only_if_due and time.monotonic() - self.saved_at < self.seconds):
            return
        self.log.sync()
        self.checkpoints.save(step, state)
        self.saved, self.saved_at = step, time.monotonic()


class _Snapshots:
    """Takes a snapshot at an interval, each step once."""

    def __init__(self, folder: Path, snapshot_fn: Callable[[Path, Any], None] | None, every: int) -> None:
        self.folder, self.snapshot_fn, self.every = folder, snapshot_fn, every
        self.taken: int | None = None

    def take(self, step: int, state: Any, *, only_if_due: bool = False) -> None:
        """Take one unless there is one of this step already, or it is not due and `only_if_due`."""
        if self.snapshot_fn is None or step == self.taken or (only_if_due and step % self.every):
            return
        self.snapshot_fn(self.folder, state)
        self.taken = step


class _Signals:
    """Notes the first SIGINT or SIGTERM for the loop to stop at its leisure; the second ends the process."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _receive(self, number: int, _: object) -> None:
        if self.received is None:
            self.received = int(number)
            os.write(2, b"\nStopping after this chunk of meta-steps and saving; a second signal aborts at once.\n")
        elif "ipykernel" in sys.modules:
            raise KeyboardInterrupt
        else:
            os.write(2, b"\x1b[?25h\n")  # the live bar hides the cursor
            os._exit(128 + number)  # an ordinary exit waits for the computation under way

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def _last_step(
    trainer: Trainer,
    seed: int,
    steps: int | None,
    minutes: float | None,
    env_steps: float | None,
    chunk: int | None,
    evaluate_every: int,
    snapshot_every: int,
) -> int:
    """Check the options and return the meta-step to stop at."""
    for name, value, low, high in (
        ("seed", seed, 0, 2**32 - 1),
        ("steps", steps, 1, trainer.num_steps),
        ("chunk", chunk, 1, MAX_CHUNK),
        ("evaluate_every", evaluate_every, 1, 2**31 - 1),
        ("snapshot_every", snapshot_every, 1, 2**31 - 1),
    ):
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} = {value}: it must be {low} to {high}.")
    for name, amount in (("minutes", minutes), ("env_steps", env_steps)):
        if amount is not None and not amount > 0:
            raise ValueError(f"{name} = {amount}: it must be above 0.")
    return trainer.num_steps if steps is None else steps


def _rows(metrics: HostMetrics, step: int, count: int) -> list[Row]:
    return [
        {"step": step + i + 1, **{name: values[i].item() for name, values in metrics.items()}} for i in range(count)
    ]


def _failure(rows: list[Row], folder: Path, saved: int) -> TrainingError | None:
    """Why the run cannot go on after these meta-steps, if so."""
    for row in rows:
        if row.get("finite_fraction", 1.0) == 0.0:
            return TrainingError(
                f"No candidate of meta-step {row['step']} has a finite fitness, so there is nothing to learn from. The "
                f"newest checkpoint in {folder / 'checkpoints'} is of meta-step {saved}, before that. Start a new run "
                "with smaller steps (learning rates, sigma) or another seed; resuming would meet the same numbers."
            )
    return None
