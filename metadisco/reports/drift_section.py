"""Section of a learned drift: pictures beside PPO and DPO, and the conditions of mirror learning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from metadisco.checkpoints import checkpoint
from metadisco.core import config, moved
from metadisco.objectives.drift import verdicts, violations
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports import drift_plots
from metadisco.reports.markup import grid, missing, note, paragraph, part, stack
from metadisco.reports.sections import chart
from metadisco.runs.run_folder import objective_of

NOTE = (
    "The agent ascends r A − D(r, A), where r = π/π_old and A is the advantage, normalised. Its derivative with "
    "respect to r is A where the drift D lets the policy go, 0 where it holds it, and of the other sign where it pulls "
    "it back. All pictures share one scale of colors."
)
CONDITIONS = "Conditions of mirror learning, measured for log r and A from −3 to 3 at n/N = 0, ½ and 1:"


def has_drift(trainer: Mapping[str, Any]) -> bool:
    """Whether a run with these settings, as in its `config.json`, learns a drift."""
    return moved.current_name(str(objective_of(trainer).get("class"))) == config.class_name_of(MirrorLearning)


def drift(folder: Path) -> Markup:
    """The drift of a run, from its folder."""
    if not (folder / "objective" / "objective.json").exists():
        return missing("The drift is shown when meta-training is over (objective/).")
    discovered = checkpoint.load(folder / "objective")
    names = ", ".join(drift_plots.side_by_side(discovered))
    charts = {}
    for file, draw in drift_plots.figures(discovered).items():
        spoken = f"Heat maps over the ratio r and the advantage A, {file.replace('-', ' ')}: {names}."
        charts[file] = chart(draw(), f"heat-{file}", spoken, "")
    side, strips = ([each for file, each in charts.items() if ("over" in file) is over] for over in (False, True))
    strips = [part("wide", each) for each in strips]  # wider than a phone
    rule = discovered.drift_rule
    rows = list(verdicts(violations(rule, discovered.meta_params)).items())
    return stack(note(NOTE), grid(side), *strips, paragraph(CONDITIONS), part("facts", rows))
