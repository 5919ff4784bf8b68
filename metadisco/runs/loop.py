"""The host loop: do chunks of meta-steps, with progress, logs, checkpoints, resume and a clean stop.

The numbers come from the trainer alone (see `metadisco.runs.compiled_steps`): however a run is cut up by pauses, signals and kills,
it ends the same. What it leaves behind is in the run folder (see `metadisco.runs.run_folder`). Several processes run the
loop side by side (see `metadisco.core.processes`): what depends on a clock or a signal they agree on once per chunk.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from metadisco.runs import trackers
from metadisco.runs.compiled_steps import MAX_CHUNK, HostMetrics, Trainer, compile_chunk, on_this_process, restore
from metadisco.core.processes import agree, is_first, require_same
from metadisco.runs.progress import Display, Heartbeat
from metadisco.runs.run_folder import Log, Row, cut_metrics, opened, read_metrics, same_run
from metadisco.runs.signals import Signals
from metadisco.runs.train_state import Checkpoints

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
        state: the train state after them, which is also the newest checkpoint. Of several processes each has its own
            copy of what is not spread over all of them.
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
    other_code: bool = False,
    track: Sequence[trackers.MakeTracker] = (trackers.tensorboard,),
    console: Any = None,
) -> Result:
    """Run meta-steps from the start, or from the newest intact checkpoint, until the run is finished or has to stop.

    SIGINT and SIGTERM stop it after the present chunk, with a checkpoint; a SIGINT after that aborts at once. A chunk
    takes about a second, or one meta-step where that is longer; `heartbeat.json` has the longest that stopping would
    have taken so far. Several processes call this alike, and a signal to one of them stops all.

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
        other_code: Resume a run that was begun by other code, too.
        track: Where else the curves go.
        console: The `rich` console to show progress on.

    Raises:
        run_folder.RunError: If the folder holds something else, is in use, cannot be written, or was run with other
            settings or by other code.
        distributed.DistributedError: If processes were started with different settings, or one of them is gone.
        TrainingError: If no candidate of a generation is finite. The checkpoint before it stays the newest.
        files.CheckpointError: If a checkpoint cannot be written, or is of another version of the trainer.
    """
    started = time.monotonic()
    last = _last_step(trainer, seed, steps, minutes, env_steps, chunk, evaluate_every, snapshot_every)
    intervals = [every for called, every in ((evaluate_fn, evaluate_every), (snapshot_fn, snapshot_every)) if called]
    pace = _Pace(started, last, minutes, env_steps, chunk, intervals)
    display = Display(console, last, trainer.num_steps)
    require_same(same_run(trainer, seed, steps=steps, env_steps=env_steps, chunk=chunk, intervals=intervals))
    with opened(out, trainer, seed, resume, provenance or {}, other_code=other_code) as folder:
        checkpoints = Checkpoints(folder / "checkpoints")
        display.say("Compiling a meta-step ...")
        advance, placement = compile_chunk(trainer)
        state = restore(trainer, seed, checkpoints, placement)
        step = int(state.step)
        pace.spend(read_metrics(folder / "metrics.jsonl", step))
        snapshots = _Snapshots(folder, snapshot_fn, snapshot_every)
        count = agree(0 if pace.is_spent() else last - step)[0]
        snapshots.take(step, state, only_if_due=count > 0)
        if count <= 0:
            display.say(f"{folder} is at meta-step {step} of {trainer.num_steps} already: nothing is left to do.")
            seconds = cut_metrics(folder / "metrics.jsonl", step) if is_first() else 0.0
            return _result(trainer, pace, step, state, seconds)
        with Log(folder, step, track) as log, display, Signals() as signals:
            saver = _Saver(checkpoints, log, checkpoint_seconds, step, state)
            heartbeat = Heartbeat(folder, trainer.num_steps)
            turn = _Turn.agreed(pace, signals, saver, step)
            while turn.steps > 0:
                begun = time.monotonic()
                state, metrics = advance(seed, state, turn.steps)
                rows = _rows(metrics, step, turn.steps)
                step, seconds = step + turn.steps, time.monotonic() - begun
                pace.seconds_per_step = seconds / turn.steps
                pace.spend(rows)
                if evaluate_fn and is_first() and (step % evaluate_every == 0 or step == trainer.num_steps):
                    scalars = evaluate_fn(on_this_process(state))
                    rows[-1] |= {f"validation/{name}": float(value) for name, value in scalars.items()}
                log.write(rows, time.monotonic() - started)
                failure = _failure(rows, folder, saver.saved)
                snapshots.take(step, state, only_if_due=failure is None)
                if failure is not None:
                    raise failure
                heartbeat.beat(rows, seconds, pace.seconds_left(step))
                display.update(rows, heartbeat)
                turn = _Turn.agreed(pace, signals, saver, step)
                if turn.saves:
                    saver.save(step, state)
                heartbeat.look()
            snapshots.take(step, state)
            saver.save(step, state)
            heartbeat.look()
        seconds = log.seconds_before + time.monotonic() - started
        result = _result(trainer, pace, step, state, seconds, turn.signal or signals.received)
        heartbeat.write(result.status, step)
        return result


class _Turn(NamedTuple):
    """What all processes do after a chunk of meta-steps."""

    steps: int  # of the next chunk; 0: stop
    saves: bool
    signal: int | None  # that one of them has received

    @classmethod
    def agreed(cls, pace: "_Pace", signals: "Signals", saver: "_Saver", step: int) -> Self:
        """The same on all processes: the least of their chunks, and what any of them has to do."""
        count = 0 if signals.received or pace.is_over(step) else pace.next_count(step)
        count, saves, number = agree(count, -int(saver.is_due()), -(signals.received or 0))
        return cls(count, bool(saves), -number or None)


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
    return Result(status, step, on_this_process(state), seconds, received)


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

    def is_over(self, step: int) -> bool:
        """Whether all meta-steps are done, or the next would end after the deadline, but for the first of a call."""
        out_of_time = time.monotonic() + (self.seconds_per_step or -math.inf) > self.deadline
        return step >= self.last or self.is_spent() or out_of_time

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
        if not agree(step in checkpoints.steps())[0]:  # what cannot be written is known before the work
            checkpoints.save(step, state)

    def is_due(self) -> bool:
        """Whether the newest checkpoint is old enough for another."""
        return time.monotonic() - self.saved_at >= self.seconds

    def save(self, step: int, state: Any) -> None:
        """Save unless this step is saved already."""
        if step == self.saved:
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
        """Take one unless there is one of this step already, or it is not due and `only_if_due`. Process 0 takes it."""
        if self.snapshot_fn is None or step == self.taken or (only_if_due and step % self.every):
            return
        if is_first():
            self.snapshot_fn(self.folder, on_this_process(state))
        self.taken = step


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
