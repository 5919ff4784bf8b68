"""Tables of scores: how numbers, intervals and columns are written, in a terminal, in Markdown and in HTML.

A row is a JSON object as in `evaluation.json`: statistics by name, each with the ends of its interval as `NAME_low` and
`NAME_high`. Rows of older files lack some of them, and a dash says so.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]

MEASURES = {"iqm": "IQM", "optimality_gap": "optimality gap ↓", "cvar": "worst 10% of levels", "mean_score": "mean"}
"""Statistics that have an interval, and what they are called."""
HEADINGS = {
    **MEASURES,
    "mean_return": "mean return",
    "num_tasks": "levels",
    "num_seeds": "seeds",
    "lifetime": "lifetime",
    "env_steps": "environment steps",
    "seed": "seed",
}
"""All columns that a table of scores can have."""
COLUMNS = (*MEASURES, "mean_return", "env_steps")
DASH = "–"
HAND_WRITTEN = ("a2c", "a2c-count", "ppo", "dpo")
"""Baselines by the names that they have in tables."""


class Table(NamedTuple):
    """A table as text: its head, and rows of as many cells."""

    head: list[str]
    rows: list[list[str]]


def by_strength(agents: Mapping[str, Row]) -> list[str]:
    """The hand-written objectives among the agents of a suite, by their IQM, the strongest first: the yardstick.

    Example:
        >>> by_strength({"random": {"iqm": 0.0}, "a2c": {"iqm": 0.8}, "dpo": {"iqm": 0.9}, "discovered": {"iqm": 1.0}})
        ['dpo', 'a2c']
    """
    there = [name for name in HAND_WRITTEN if name in agents]
    known = {name: float(agents[name]["iqm"]) for name in there if decimal(agents[name].get("iqm")) != DASH}
    return [*sorted(known, key=lambda name: -known[name]), *(name for name in there if name not in known)]


def decimal(value: Any, digits: int = 3) -> str:
    """A number, never a negative zero; a dash for none.

    Example:
        >>> decimal(-0.0001), decimal(None), decimal(0.25, 1)
        ('0.000', '–', '0.2')
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return f"{round(value, digits) + 0.0:.{digits}f}" if is_number else DASH


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things.

    Example:
        >>> counted(1, "meta-step"), counted(2500, "meta-step")
        ('1 meta-step', '2,500 meta-steps')
        >>> counted(2, "life", "lives")
        '2 lives'
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def interval(low: Any, high: Any, digits: int = 3) -> str:
    """`0.812 to 0.864`."""
    return f"{decimal(low, digits)} to {decimal(high, digits)}"


def point(value: Any, low: Any, high: Any, digits: int = 3) -> str:
    """`0.840 (0.812 to 0.864)`."""
    return f"{decimal(value, digits)} ({interval(low, high, digits)})"


def with_interval(row: Row, name: str = "iqm", digits: int = 3) -> str:
    """A statistic with its interval, where there is one.

    Example:
        >>> with_interval({"iqm": 0.8401, "iqm_low": 0.812, "iqm_high": 0.864})
        '0.840 (0.812 to 0.864)'
    """
    value, low, high = (row.get(each) for each in (name, f"{name}_low", f"{name}_high"))
    if low is None or high is None or row.get("is_exact"):
        return decimal(value, digits)
    return point(value, low, high, digits)


def cell(row: Row, name: str) -> str:
    """One entry of a table; empty where the row has none."""
    value = row.get(name, "")
    if name in MEASURES and value != "":
        return with_interval(row, name)
    return decimal(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def score_table(
    agents: Mapping[str, Row], columns: Sequence[str] = COLUMNS, *, called: Callable[[str], str] = str
) -> Table:
    """The agents of one suite, a line each.

    Args:
        agents: name -> row.
        columns: keys of `HEADINGS`; those that no row has are left out.
        called: what an agent is called, by its name.
    """
    known = {name for row in agents.values() for name in row}
    shown = [name for name in columns if name in known]
    rows = [[called(agent), *(cell(row, name) for name in shown)] for agent, row in agents.items()]
    return Table(["agent", *(HEADINGS[name] for name in shown)], rows)


def markdown(table: Table) -> str:
    """A table in Markdown, without a line break at its end."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in line)} |" for line in lines)


def plain(table: Table) -> str:
    """A table in letters of one width; the first column is on the left, all others on the right.

    Example:
        >>> print(plain(Table(["agent", "IQM"], [["a2c", "0.5"]])))
        agent  IQM
        a2c    0.5
    """
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows)]
    lines = []
    for first, *others in [table.head, *table.rows]:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show(table: Table, title: str, console: Any, *, num_names: int = 1) -> None:
    """Print a table in a terminal.

    Args:
        table: what to print.
        title: above it.
        console: of `rich`.
        num_names: so many first columns are names, which may be folded; the others are numbers, on the right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Printed

    printed = Printed(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(table.head):
        if place < num_names:
            printed.add_column(heading, overflow="fold")
        else:
            printed.add_column(heading, justify="right", no_wrap=True)
    for row in table.rows:
        printed.add_row(*row)
    console.print(printed)
