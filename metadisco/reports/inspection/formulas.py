"""The formulas of a distilled rule, and their fronts of length against error, in a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.reports.formulas import NOTES, number, parts, texts

if TYPE_CHECKING:
    from rich.table import Table


def section(discovered: Discovered) -> Any:
    """The formulas, and the front of each; None where there are none."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    kind, found = texts(discovered)
    if not found:
        return None
    told, known = discovered.provenance.get("distillation", {}), parts(discovered)
    lines: list[Any] = [Text("\nIts formulas", style="bold"), _table(found, known)]
    note = NOTES[kind]
    if "r2_of_slope" in told:
        note += f" R² of the slope ∂D/∂l, which is what an agent feels of it: {told['r2_of_slope']:.3f}."
    if known:
        note += " R² is on lives that nothing was fitted to; in brackets, that of the rest of the front where it was."
    lines.append(Padding(Text(note, style="dim"), (0, 2)))
    return Group(*lines)


def _table(found: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "formula", "length", "R²"):
        table.add_column(column, justify="right" if column in ("length", "R²") else "left", overflow="fold")
    for name, text in found.items():
        part = known.get(name, {})
        table.add_row(name, Text(text, style="bold"), str(part.get("length", "")), number(part.get("r2")))
        for point in part.get("front", ()):
            if point["formula"] != part.get("formula"):
                error = 1.0 - point["error"]
                table.add_row("", Text(point["formula"], style="dim"), str(point["length"]), f"({error:.3f})")
    return table
