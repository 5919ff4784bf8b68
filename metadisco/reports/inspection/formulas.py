"""The formulas of a distilled rule, and their fronts of length against error, in a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.objectives.exploring_a2c import ExploringA2C
from metadisco.objectives.formula_drift import FormulaDrift
from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning

if TYPE_CHECKING:
    from rich.table import Table

NOTES = {
    "drift": "D = relu(f − relu(f at r = 1)), f the first formula where A ≥ 0 and the second where A < 0; r = π/π_old, "
    "l = log r, t = n/N.",
    "schedule": "o, what the schedule says; what is made of it is in the docstring of the objective: a step is "
    "exp(2 o), for example.",
    "policy gradient": "π̂, which takes the place of an advantage; t = n/N.",
}


def texts(discovered: Discovered) -> tuple[str, dict[str, str]]:
    """What kind of rule the formulas of an objective are, and the formulas with their constants; ("", {}) of a net."""
    from metadisco.core import formulas

    objective, meta_params = discovered.objective, discovered.meta_params
    if isinstance(objective, MirrorLearning) and isinstance(objective.drift, FormulaDrift):
        return "drift", objective.drift.texts(meta_params)
    if isinstance(objective, FormulaPolicyGradient):
        return "policy gradient", formulas.texts(objective.expressions, meta_params)
    rules: list[tuple[Any, Any]] = []
    if isinstance(objective, ScheduledA2C):
        rules = [(objective.rule, meta_params)]
    elif isinstance(objective, ScheduledMirrorLearning):
        rules = [(objective.rule, meta_params["schedule"])]
    elif isinstance(objective, ExploringA2C):
        rules = [(objective.a2c.rule, meta_params["a2c"]), (objective.rule, meta_params["bonus"])]
    found = {name: text for rule, own in rules for name, text in formulas.texts(rule.expressions, own).items()}
    return ("schedule", found) if found else ("", {})


def parts(discovered: Discovered) -> dict[str, Mapping[str, Any]]:
    """What the distillation said of each formula, by its name; {} where the formulas come from elsewhere."""
    told = discovered.provenance.get("distillation")
    listed = told.get("parts") if isinstance(told, Mapping) else None
    return {str(part["name"]): part for part in listed if "name" in part} if isinstance(listed, Sequence) else {}


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
        note += " R² is on lives that nothing was fitted to. A front has the best formula of each length."
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


def number(value: Any) -> str:
    """Three decimals; nothing of what is no number."""
    return f"{value:.3f}" if isinstance(value, float | int) else ""
