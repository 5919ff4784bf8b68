"""Progress of a run while it goes on: meta-steps done, fitness, speed, memory and the time left.

In a terminal this is a live bar, elsewhere a line about every minute. The same is in `heartbeat.json` in the run
folder, for liveness probes of schedulers, and for dashboards.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import jax

from metadisco.core import terminal
from metadisco.core.files import parse_json, write_atomically
from metadisco.core.processes import is_first
from metadisco.core.score_table import decimal
from metadisco.runs.run_folder import Row

HEARTBEAT = "heartbeat.json"
MIN_SECONDS = 10.0  # between heartbeats on disk


class Bars:
    """Progress bars: redrawn in place in a terminal, and in a notebook one output that is replaced.

    In a notebook rich needs widgets, of which a stored notebook shows nothing; an output that is replaced needs nothing
    and stays as it was last.
    """

    notebook_seconds = 0.25  # between two drawings at least

    def __init__(self, console: Any, *columns: Any, is_shown: bool) -> None:
        """Prepare without drawing. `is_shown`: False for no bars at all; `console` may then be None."""
        from rich.progress import Progress

        self.in_notebook = is_shown and console.is_jupyter
        self.progress = Progress(
            *columns, console=console, disable=not is_shown or self.in_notebook, refresh_per_second=4
        )
        self.output: Any = None
        self.next_drawing = 0.0

    @property
    def width(self) -> int:
        """Columns that there are; a notebook draws by rich's own console."""
        from rich import get_console

        own: int = self.progress.console.width
        return min(own, get_console().width) if self.in_notebook else own

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def add(self, description: str, total: float, *, start: bool = True) -> Any:
        """A new bar, by which `update` knows it."""
        return self.progress.add_task(description, total=total, start=start)

    def update(self, bar: Any, completed: float, description: str | None = None) -> None:
        """Move a bar, which starts it."""
        self.progress.start_task(bar)
        self.progress.update(bar, completed=completed, description=description)
        if self.in_notebook and time.monotonic() >= self.next_drawing:
            self._draw()
            self.next_drawing = time.monotonic() + self.notebook_seconds

    def _draw(self) -> None:
        from IPython.display import display

        if self.output is None:
            self.output = display(self.progress, display_id=True)
        else:
            self.output.update(self.progress)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        if self.in_notebook and self.progress.tasks:
            self._draw()


def is_live(console: Any) -> bool:
    """Whether a bar can be redrawn there: in a terminal or a notebook, and not in the log of a CI."""
    return bool(console.is_terminal or console.is_jupyter) and not os.environ.get("CI")


def fitting(parts: Sequence[str], width: int) -> str:
    """As many of the parts as a line of this width has room for, the first ones, and the first in any case.

    Example:
        >>> fitting(["meta-step 1/2", "left 0:10:00", "fitness 0.500"], 30)
        'meta-step 1/2 · left 0:10:00'
    """
    line = parts[0]
    for part in parts[1:]:
        if len(line) + len(part) + 3 > width:
            break
        line += f" · {part}"
    return line


class Display:
    """A live bar in a terminal or notebook, a plain line now and then elsewhere. Of several processes, 0 shows it."""

    plain_seconds = 60.0
    bar_width = 20

    def __init__(self, console: Any, last: int, num_steps: int) -> None:
        from rich.progress import BarColumn, TextColumn

        self.console = terminal.console_for(console)
        self.is_shown = is_first()
        self.last, self.num_steps, self.started = last, num_steps, time.monotonic()
        self.is_live = is_live(self.console)
        columns = (BarColumn(bar_width=self.bar_width), TextColumn("{task.description}", markup=False))
        self.bars = Bars(self.console, *columns, is_shown=self.is_live and self.is_shown)
        self.bar = self.bars.add("first meta-step", last)
        self.next_line = 0.0

    def __enter__(self) -> Self:
        self.bars.__enter__()
        return self

    def update(self, rows: list[Row], heartbeat: "Heartbeat") -> None:
        """Show the last meta-step of a chunk."""
        step = int(rows[-1]["step"])
        parts = [f"meta-step {step}/{self.num_steps}", f"left {clock(heartbeat.seconds_left)}"]  # what matters first
        if "fitness" in rows[-1]:
            parts.append(f"fitness {decimal(rows[-1]['fitness'])}")
        parts.append(f"elapsed {clock(time.monotonic() - self.started)}")
        parts += [f"{_number(value)} {name}/s" for name, value in heartbeat.rates.items()]
        parts += [f"memory {heartbeat.memory_bytes / 2**30:.1f} GiB"] if heartbeat.memory_bytes else []
        self.bars.update(self.bar, step, fitting(parts, self.bars.width - self.bar_width - 1))
        if not self.is_live and (time.monotonic() >= self.next_line or step >= self.last):
            self.say(" · ".join(parts))
            self.next_line = time.monotonic() + self.plain_seconds

    def say(self, text: str) -> None:
        """Print a line as it is."""
        if self.is_shown:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        self.bars.__exit__()


class Ticker:
    """Says where a piece of work is every minute, from a thread of its own: the work may be in one call for longer.

    Attributes:
        seconds: between two lines.
    """

    seconds = 60.0

    def __init__(self, say: Callable[[], None], *, is_on: bool) -> None:
        """Prepare to call `say` on and on."""
        self.say, self.is_on = say, is_on
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self.is_on:
            self.thread.start()
        return self

    def _tick(self) -> None:
        while not self.is_over.wait(self.seconds):
            self.say()

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        if self.is_on:
            self.thread.join()


class Heartbeat:
    """Speed, memory and time left of a run, which are written to `heartbeat.json` too.

    Attributes:
        rates: Meta-steps, agent updates and environment steps per second in the last chunk, as far as they are counted.
        memory_bytes: What this process's fullest device holds, or, where devices do not say, the process.
        seconds_left: Of the run.
        stop_seconds: The longest that the loop has taken so far from one look at signals to the next, checkpoint
            included: what it needs to save and exit when it is told to stop.
        warning: The latest warning of this call of the loop, see `metadisco.runs.score_watch`.
    """

    def __init__(self, folder: Path, num_steps: int, minutes: float | None = None) -> None:
        self.path, self.num_steps, self.minutes = folder / HEARTBEAT, num_steps, minutes
        self.rates: dict[str, float] = {}
        self.memory_bytes = 0
        self.warning: str | None = None
        self.seconds_left = self.stop_seconds = 0.0
        self.looked_at = time.monotonic()
        self.next_write = 0.0

    def beat(self, rows: list[Row], seconds: float, seconds_left: float) -> None:
        """Record a chunk that took `seconds`, and write the file if it is due."""
        names = {"meta-steps": None, "agent updates": "agent_updates", "env steps": "env_steps"}
        self.rates = {
            name: (len(rows) if metric is None else sum(row[metric] for row in rows)) / seconds
            for name, metric in names.items()
            if metric is None or metric in rows[-1]
        }
        self.memory_bytes, self.seconds_left = _memory_bytes(), seconds_left
        if time.monotonic() >= self.next_write:
            self.write("running", int(rows[-1]["step"]))
            self.next_write = time.monotonic() + MIN_SECONDS

    def look(self) -> None:
        """Record that the loop looks at signals now."""
        now = time.monotonic()
        self.stop_seconds, self.looked_at = max(self.stop_seconds, now - self.looked_at), now

    def write(self, status: str, step: int) -> None:
        """Write `heartbeat.json`."""
        if not is_first():
            return
        document = {
            "status": status,
            "unix_time": round(time.time(), 1),
            "meta_step": step,
            "num_meta_steps": self.num_steps,
            "minutes": self.minutes,
            **{f"{name.replace(' ', '_').replace('-', '_')}_per_second": rate for name, rate in self.rates.items()},
            "memory_bytes": self.memory_bytes,
            "seconds_left": round(self.seconds_left, 1),
            "stop_seconds": round(self.stop_seconds, 1),
            "warning": self.warning,
        }
        write_atomically(self.path, (json.dumps(document, indent=1) + "\n").encode())


def read_heartbeat(folder: Path) -> dict[str, Any]:
    """The last heartbeat of the run in a folder; {} where there is none or it cannot be read."""
    try:
        document = parse_json((folder / HEARTBEAT).read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def say_ended(folder: Path, status: str) -> None:
    """Write into the heartbeat of a run what it ended with, where the loop could not."""
    write_atomically(
        folder / HEARTBEAT, (json.dumps(read_heartbeat(folder) | {"status": status}, indent=1) + "\n").encode()
    )


def _memory_bytes() -> int:
    """Bytes in use on the fullest local device; of the process where devices do not say, at its peak; 0 if unknown."""
    used = [(device.memory_stats() or {}).get("bytes_in_use", 0) for device in jax.local_devices()]
    if any(used):
        return int(max(used))
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
