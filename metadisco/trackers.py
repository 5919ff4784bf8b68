"""Where the curves of a run can be watched, beside its own `metrics.jsonl`: TensorBoard, Weights & Biases.

A tracker is made when a run begins or goes on, is given the scalars of the last meta-step of each chunk, and is closed
when the run stops. One that is not installed is left out, unless it was asked for. Nothing leaves the machine by
itself: Weights & Biases keeps its files in the run folder (`wandb sync` sends them later), unless asked for `online`.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

WandbMode = Literal["offline", "online"]


class Tracker(Protocol):
    """Something that shows curves."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the scalars of a meta-step, all of them finite."""

    def close(self) -> None:
        """The run has stopped."""


MakeTracker = Callable[[Path, int], Tracker | None]
"""From a run folder and the meta-steps done to a tracker, or None where it is not installed."""


class TensorBoard:
    """Events in `tensorboard/`. A run that goes on supersedes what a killed one wrote after its checkpoint."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, the same one whenever a run folder is gone on with. Its files are in `wandb/`."""

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
