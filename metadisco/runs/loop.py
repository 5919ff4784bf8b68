"""The host loop: chunks of meta-steps, with progress, logs, checkpoints, resume and a clean stop.

The numbers come from the trainer alone (see `metadisco.runs.compiled_steps`): however a run is cut up by pauses,
signals and kills, it ends the same. What it leaves behind is in the run folder (see `metadisco.runs.run_folder`);
validation and whatever else is done every so often are hooks (see `metadisco.runs.hooks`). Several processes run the
loop side by side (see `metadisco.core.processes`): what depends on a clock or a signal they agree on once per chunk.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from metadisco.core import nan_checks
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.processes import agree, is_first, require_same
from metadisco.core.types import Key
from metadisco.runs import trackers
from metadisco.runs.compiled_steps import (
    MAX_CHUNK,
    HostMetrics,
    Trainer,
    compile_chunk,
    on_this_process,
    placement_of,
    restore,
)
from metadisco.runs.hooks import Hook, HookCalls, intervals
from metadisco.runs.progress import Display, Heartbeat, read_heartbeat
from metadisco.runs.run_folder import Log, Row, cut_metrics, opened, read_metrics, require_checkpoints, same_run
from metadisco.runs.score_watch import ScoreWatch
from metadisco.runs.signals import Signals
from metadisco.runs.train_state import Checkpoints

CHUNK_SECONDS = 1.0  # between looks at clock and signals, where meta-steps are shorter than that
Begin = Callable[[Path], Callable[[Key], Any]]
"""(run folder) -> (key -> first state)."""
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
        """The exit code: 130 after SIGINT, 143 after SIGTERM, else 0."""
        return 0 if self.signal is None else 128 + self.signal


@dataclass(frozen=True)
class RunOptions:
    """Options of a run, beside the trainer.

    Attributes:
        seed: seed of the root key, 0 to 2^32 - 1.
        steps: stop when this many meta-steps are done since the start of the run; all of the trainer's if None.
            Schedules follow the trainer's `num_steps` in any case.
        minutes: stop before the run has taken this much time, compilation and earlier calls included; a new run does at
            least one meta-step.
        env_steps: stop after the meta-step in which the run's environment steps reach this number; see the metric of
            that name, which counts antagonists too.
        resume: go on with the run in the folder, whose settings and seed must be equal; start it if there is none yet.
        other_code: resume a run that was begun by other code, too.
        chunk: meta-steps per host call, 1 to 128; as many as take about a second if None. Changes no number.
        checkpoint_seconds: time between checkpoints. There is also one at the start and one at the end.
        provenance: added to what is written about this run's origin, such as the preset's name.

    Example:
        >>> RunOptions(seed=0, minutes=30, resume=True).minutes
        30
    """

    seed: int
    steps: int | None = None
    minutes: float | None = None
    env_steps: float | None = None
    resume: bool = False
    other_code: bool = False
    chunk: int | None = None
    checkpoint_seconds: float = 60.0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, low, high, advice in (
            ("seed", 0, 2**32 - 1, "choose another"),
            ("steps", 1, math.inf, "use None for all meta-steps of the trainer"),
            ("chunk", 1, MAX_CHUNK, "use None to let the loop choose"),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                allowed = f"at least {low}" if high == math.inf else f"{low} to {high}"
                raise ValueError(f"RunOptions.{name} = {value}: it must be {allowed}; {advice}.")
        for name in ("minutes", "env_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"RunOptions.{name} = {value}: it must be above 0; use None for no limit.")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(
                f"RunOptions.checkpoint_seconds = {self.checkpoint_seconds}: it must be at least 0; use 0 for a "
                "checkpoint after every chunk."
            )

    def last_step(self, trainer: Trainer) -> int:
        """The meta-step to stop at; ValueError where the trainer has fewer than `steps`."""
        if self.steps is not None and self.steps > trainer.num_steps:
            raise ValueError(
                f"RunOptions.steps = {self.steps}: it must be 1 to {trainer.num_steps}, the meta-steps of the trainer; "
                "use None for all of them."
            )
        return trainer.num_steps if self.steps is None else self.steps


@own_defaults
def run(
    trainer: Trainer,
    folder: str | os.PathLike,
    options: RunOptions,
    hooks: Sequence[Hook] = (),
    *,
    track: Sequence[trackers.MakeTracker] = (trackers.tensorboard,),
    begin: Begin | None = None,
    announcement: str = "",
    console: Any = None,
) -> Result:
    """Run meta-steps from the start, or from the newest intact checkpoint, until the run is finished or has to stop.

    SIGINT and SIGTERM stop it after the present chunk, with a checkpoint; a SIGINT after that aborts at once. A chunk
    takes about a second, or one meta-step where that is longer, and ends wherever a hook is due; `heartbeat.json` has
    the longest that stopping would have taken so far. Several processes call this alike, and a signal to one of them
    stops all.

    Args:
        trainer: What to run.
        folder: The run folder; new or empty, unless `options.resume`.
        options: Seed, where to stop, and how to go on.
        hooks: What to call every so often; see `metadisco.runs.hooks` for when exactly.
        track: Where else the curves go.
        begin: Given the folder, says how the first state is made of its key; the trainer's `init` if None. It is not
            called where there is a checkpoint.
        announcement: What to say when the folder has turned out to be one that the run can have.
        console: The `rich` console to show progress on.

    Raises:
        run_folder.RunError: If the folder holds something else, is in use, cannot be written, or was run with other
            settings or by other code.
        processes.DistributedError: If processes were started with different settings, or one of them is gone.
        TrainingError: If no candidate of a generation is finite. The checkpoint before it stays the newest.
        files.CheckpointError: If a checkpoint cannot be written, or is of another version of the trainer.
    """
    if nan_checks.is_on():  # every meta-step is looked at
        options = replace(options, chunk=1)
    started, seed = time.monotonic(), options.seed
    last, every = options.last_step(trainer), intervals(hooks)
    pace = _Pace(started, last, options, tuple(every.values()))
    display = Display(console, last, trainer.num_steps)
    caps = {"steps": options.steps, "env_steps": options.env_steps, "chunk": options.chunk}
    require_same(same_run(trainer, seed, **caps, hooks=every))
    details, other_code = dict(options.provenance), options.other_code
    with opened(folder, trainer, seed, options.resume, details, other_code=other_code) as home:
        checkpoints = Checkpoints(home / "checkpoints")
        require_checkpoints(home, checkpoints.steps())
        if announcement:
            display.say(announcement)
        is_new = begin is not None and not agree(bool(checkpoints.steps()))[0]
        state = restore(trainer, seed, checkpoints, placement_of(trainer), begin(home) if begin and is_new else None)
        step = int(state.step)
        pace.take_up(read_metrics(home / "metrics.jsonl", step), read_heartbeat(home))
        calls = HookCalls(hooks, home, trainer.num_steps)
        count = agree(0 if pace.is_over(step) else last - step)[0]
        calls.take_snapshots(step, state, only_if_due=count > 0)
        if count <= 0:
            display.say(f"{home} is at meta-step {step} of {trainer.num_steps} already: nothing is left to do.")
            seconds = cut_metrics(home / "metrics.jsonl", step) if is_first() else 0.0
            return _result(trainer, pace, step, state, seconds)
        display.say("Compiling a meta-step ...")
        advance, _ = compile_chunk(trainer)
        with Log(home, step, track) as log, display, Signals() as signals:
            saver = _Saver(checkpoints, log, options.checkpoint_seconds, step, state)
            heartbeat, watch = Heartbeat(home, trainer.num_steps, options.minutes), ScoreWatch()
            turn = _Turn.agreed(pace, signals, saver, step)
            while turn.steps > 0:
                begun = time.monotonic()
                state, metrics = advance(seed, state, turn.steps)
                rows = _rows(metrics, step, turn.steps)
                step, seconds = step + turn.steps, time.monotonic() - begun
                pace.seconds_per_step = seconds / turn.steps
                pace.spend(rows)
                rows[-1] |= calls.measure(step, state)
                log.write(rows, time.monotonic() - started)
                for warning in watch.look(rows):
                    heartbeat.warning = warning
                    display.say(warning)
                failure = _failure(rows, home, saver.saved)
                calls.take_snapshots(step, state, only_if_due=failure is None)
                if failure is not None:
                    raise failure
                heartbeat.beat(rows, seconds, pace.seconds_left(step))
                display.update(rows, heartbeat)
                turn = _Turn.agreed(pace, signals, saver, step)
                if turn.saves:
                    saver.save(step, state)
                heartbeat.look()
            calls.take_snapshots(step, state)
            saver.save(step, state)
            heartbeat.look()
        seconds = log.seconds_before + time.monotonic() - started
        result = _result(trainer, pace, step, state, seconds, turn.signal or signals.received)
        heartbeat.write(result.status, step)
        return result


class _Turn(NamedTuple):
    """Decision of all processes after a chunk of meta-steps."""

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
    """Chooses the number of meta-steps of the next chunk, and estimates the time left."""

    def __init__(self, started: float, last: int, options: RunOptions, intervals: Sequence[int]) -> None:
        self.last, self.chunk, self.intervals = last, options.chunk, intervals
        self.env_steps_left = math.inf if options.env_steps is None else options.env_steps
        self.most_env_steps = 1.0  # of a meta-step so far
        self.minutes = options.minutes
        self.deadline = math.inf if options.minutes is None else started + 60 * options.minutes
        self.seconds_per_step: float | None = None

    def take_up(self, rows: list[Row], heartbeat: Mapping[str, Any]) -> None:
        """Count what earlier calls have used: their rows, and the last heartbeat of the run."""
        self.spend(rows)
        if not rows or self.minutes is None:
            return
        self.deadline -= rows[-1]["seconds"]
        limit, is_last = heartbeat.get("minutes"), heartbeat.get("meta_step") == rows[-1]["step"]
        # It stopped before its time was used up, where there was none for one more meta-step.
        if heartbeat.get("status") == "out_of_time" and is_last and isinstance(limit, (int, float)):
            self.deadline = -math.inf if self.minutes <= limit else self.deadline

    def is_over(self, step: int) -> bool:
        """Whether all meta-steps are done, or the next would end after the deadline, but for the first of a run."""
        next_seconds = self.seconds_per_step or (0.0 if step else -math.inf)
        out_of_time = time.monotonic() + next_seconds > self.deadline
        return step >= self.last or self.is_spent() or out_of_time

    def spend(self, rows: list[Row]) -> None:
        """Count the environment steps of some meta-steps."""
        for row in rows:
            env_steps = row.get("env_steps") or 0.0
            self.env_steps_left -= env_steps
            self.most_env_steps = max(self.most_env_steps, env_steps)

    def is_spent(self) -> bool:
        """Whether the environment steps are used up."""
        return self.env_steps_left <= 0

    def next_count(self, step: int) -> int:
        """Meta-steps of the next chunk."""
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
