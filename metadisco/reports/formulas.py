"""Formulas of a distilled rule: what they are, what the distillation said of them, and their fronts as pictures.

A run of which a rule was distilled has the formulas in its folder `formula/`, and its report shows them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import formulas
from metadisco.objectives.exploring_a2c import ExploringA2C
from metadisco.objectives.formula_drift import FormulaDrift
from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.reports.chart_style import PALETTE, new_axes, styled, title_axes
from metadisco.reports.markup import NOTHING, grid, missing, note, part, stack
from metadisco.reports.sections import chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "formula"  # of a run, where its rule is distilled
NOTES = {
    "drift": "D = relu(f − relu(f at r = 1)), f the first formula where A ≥ 0 and the second where A < 0; r = π/π_old, "
    "l = log r, t = n/N.",
    "schedule": "o, what the schedule says; what is made of it is in the docstring of the objective: a step is "
    "exp(2 o), for example.",
    "policy gradient": "π̂, which takes the place of an advantage; t = n/N.",
}


def texts(discovered: Discovered) -> tuple[str, dict[str, str]]:
    """What kind of rule the formulas of an objective are, and the formulas with their constants; ("", {}) of a net."""
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
    return {part["name"]: part for part in listed if _is_told(part)} if isinstance(listed, list) else {}


def _is_told(part: Any) -> bool:
    """Whether a file says of a formula what `Part.as_data` writes: it may be of anybody's making."""
    if not (isinstance(part, dict) and isinstance(part.get("name"), str) and isinstance(part.get("formula"), str)):
        return False
    front = part.get("front")
    return isinstance(front, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("formula"), str)
        and all(isinstance(each.get(name), int | float) for name in ("length", "error"))
        for each in front
    )


def number(value: Any) -> str:
    """Three decimals; nothing of what is no number."""
    return f"{value:.3f}" if isinstance(value, float | int) else ""


@styled
def front_figure(distilled: Mapping[str, Any]) -> "Figure":
    """R^2 against the length of the formulas of a front, and the one that was chosen."""
    figure, axes = new_axes(right=0.95)
    points = [(each["length"], 1.0 - each["error"]) for each in distilled["front"]]
    lengths, shares = np.array(points).T
    axes.step(lengths, shares, where="post", color=PALETTE["discovered"], marker="o", markersize=4)
    is_chosen = np.array([each["formula"] == distilled["formula"] for each in distilled["front"]])
    axes.plot(lengths[is_chosen], shares[is_chosen], color=PALETTE["a2c"], marker="o", markersize=8, linestyle="")
    axes.set(xlabel="length: numbers, inputs and functions", ylim=(min(0.0, float(shares.min())), 1.02))
    title_axes(axes, f"R² of formulas of {distilled['name'].replace('_', ' ')}")
    return figure


def section(folder: Path) -> Markup:
    """The formulas of a run's rule; nothing where it was not distilled."""
    if not (folder / FOLDER / "objective.json").exists():
        return NOTHING
    distilled = checkpoint.load(folder / FOLDER)
    kind, found = texts(distilled)
    if not found:
        return missing(f"{FOLDER}/ has no formulas.")
    known, told = parts(distilled), distilled.provenance.get("distillation", {})
    original = checkpoint.load(folder / "objective")
    if told.get("of", {}).get("sha256") != checkpoint.digest(original):
        return missing(f"{FOLDER}/ was distilled of another objective: run metadisco distill once more.")
    rows = [(f"{name}, R² {number(known.get(name, {}).get('r2'))}", text) for name, text in found.items()]
    charts = []
    for name, each in known.items():
        spoken = f"R² against length for formulas of {name}. Chosen: {each['formula']}."
        charts.append(chart(front_figure(each), f"front-{name}", spoken, "Orange: the formula that was chosen."))
    text = NOTES[kind] + " R² is on lives that nothing was fitted to."
    return stack(note(text), part("facts", rows), grid(charts))
