"""Where the curves of a run can be watched, beside its own `metrics.jsonl`: TensorBoard, Weights & Biases.

A tracker is made when a run begins or goes on, is given the scalars of the last meta-step of each chunk, and is closed
when the run stops. One that is not installed is left out, unless it was asked for. Nothing is sent anywhere by default:
Weights & Biases keeps its files in the run folder (`wandb sync` sends them later), unless asked for `online`.
"""

import hashlib
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

WandbMode = Literal["offline", "online"]


class Tracker(Protocol):
    """Something that shows curves. What it cannot write is an `OSError`, which stops the run as a full disk does."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the scalars of a meta-step, all of them finite."""

    def close(self) -> None:
        """The run has stopped."""


MakeTracker = Callable[[Path, int], Tracker | None]
"""From a run folder and the meta-steps done to a tracker, or None where it is not installed."""


class TensorBoard:
    """Events in `tensorboard/`. A run that goes on supersedes what a killed one wrote after its checkpoint.

    They are written synchronously: the thread of a `SummaryWriter` ends on a full disk, and the run would wait for it.
    """

    flush_seconds = 10.0

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import record_writer, summary
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        events = folder / "tensorboard"
        events.mkdir(exist_ok=True)
        path = events / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{step:010d}"
        self._event, self._scalar, self._file = Event, summary.scalar, record_writer.RecordWriter(str(path))
        self._next_flush = 0.0
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in scalars.items():
            self._write(step=step, summary=self._scalar(name, value))
        if time.monotonic() >= self._next_flush:
            self._file.flush()
            self._next_flush = time.monotonic() + self.flush_seconds

    def _write(self, **content: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **content).SerializeToString())

    def close(self) -> None:
        """See `Tracker`."""
        self._file.close()


class Wandb:
    """A run of Weights & Biases, the same one when a run is resumed. Its files are in `wandb/`."""

    def __init__(self, folder: Path, step: int, *, mode: WandbMode = "offline") -> None:
        import json

        import wandb

        del step  # steps that it has seen already it leaves as they are
        settings = (folder / "config.json").read_bytes()  # with the date, so that no two runs have the same
        self._run: Any = wandb.init(
            project="metadisco",
            name=folder.name,
            id=hashlib.sha256(settings).hexdigest()[:16],
            dir=str(folder),
            config=json.loads(settings),
            resume="allow",
            mode=mode,
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


def tensorboard(folder: Path, step: int) -> TensorBoard | None:
    """TensorBoard, where tensorboardX is installed."""
    try:
        return TensorBoard(folder, step)
    except ImportError:
        return None


def check_wandb() -> None:
    """Find out before a run whether Weights & Biases is installed.

    Raises:
        ValueError: If not; it says how to install it.
    """
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"Weights & Biases cannot be imported ({error}): install it with pip install 'metadisco[wandb]', or leave "
            "--wandb out."
        ) from error
