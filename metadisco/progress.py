"""What a run shows of itself while it goes on: how far it is, how well and how fast, and how long it will take."""

import os
import time
from typing import Any, Self

from metadisco.run_folder import Row


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


class Display:
    """A live bar in a terminal or notebook, a plain line now and then elsewhere."""

    plain_seconds = 15.0

    def __init__(self, console: Any, last: int, num_steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn

        self.console = console or Console()
        self.last, self.num_steps, self.started = last, num_steps, time.monotonic()
        self.is_live = (self.console.is_terminal or self.console.is_jupyter) and not os.environ.get("CI")
        columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
        self.bars = Bars(self.console, *columns, is_shown=self.is_live)
        self.bar = self.bars.add("first meta-step", last)
        self.next_line = 0.0

    def __enter__(self) -> Self:
        self.bars.__enter__()
        return self

    def update(self, rows: list[Row], seconds: float, seconds_left: float) -> None:
        """Show the last meta-step of a chunk that took `seconds`, and what is left of the run."""
        step = int(rows[-1]["step"])
        parts = [f"meta-step {step}/{self.num_steps}"]
        if "fitness" in rows[-1]:
            parts.append(f"fitness {rows[-1]['fitness']:.3f}")
        if "agent_updates" in rows[-1]:
            parts.append(f"{sum(row['agent_updates'] for row in rows) / seconds:,.0f} agent updates/s")
        parts += [f"elapsed {_clock(time.monotonic() - self.started)}", f"left {_clock(seconds_left)}"]
        self.bars.update(self.bar, step, " · ".join(parts))
        if not self.is_live and (time.monotonic() >= self.next_line or step >= self.last):
            self.say(" · ".join(parts))
            self.next_line = time.monotonic() + self.plain_seconds

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        self.bars.__exit__()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
