"""What a run shows of itself while it goes on: how far it is, how well and how fast, and how long it will take."""

import os
import time
from typing import Any, Self

from metadisco.run_folder import Row


class Display:
    """A live bar in a terminal or notebook, a plain line now and then elsewhere."""

    plain_seconds = 15.0

    def __init__(self, console: Any, last: int, num_steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = console or Console()
        self.last, self.num_steps, self.started = last, num_steps, time.monotonic()
        self.is_live = (self.console.is_terminal or self.console.is_jupyter) and not os.environ.get("CI")
        columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
        self.bar = Progress(*columns, console=self.console, disable=not self.is_live, refresh_per_second=4)
        self.task = self.bar.add_task("first meta-step", total=last)
        self.next_line = 0.0

    def __enter__(self) -> Self:
        self.bar.start()
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
        self.bar.update(self.task, completed=step, description=" · ".join(parts))
        if not self.is_live and (time.monotonic() >= self.next_line or step >= self.last):
            self.say(" · ".join(parts))
            self.next_line = time.monotonic() + self.plain_seconds

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
