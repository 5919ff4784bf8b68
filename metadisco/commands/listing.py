"""What `metadisco list` says of presets, suites, objectives and checkpoints, without JAX; and of settings."""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from metadisco.checkpoints.card import headlines, meta_steps_done
from metadisco.evaluation import catalog as suites
from metadisco.presets import catalog as presets

OBJECTIVES: dict[str, tuple[str, str]] = {
    "A2C": ("policy gradient with generalised advantages and a value baseline", "metadisco.A2C(); --against a2c"),
    "A2C + bonus of counts": (
        "A2C, or any other, that is told a reward for what it has rarely met",
        "metadisco.WithCountBonus(metadisco.A2C()); --against a2c-count",
    ),
    "PPO": (
        "A2C with several epochs per rollout and a clipped ratio (arXiv:1707.06347)",
        "metadisco.PPO(); --against ppo",
    ),
    "DPO": (
        "PPO with a drift that was discovered, then written down by hand (arXiv:2210.05639)",
        "metadisco.MirrorLearning(metadisco.DPODrift()); --against dpo",
    ),
    "LPO": (
        "PPO with a learned drift (arXiv:2210.05639)",
        "metadisco.MirrorLearning(metadisco.LPODrift()); preset lpo-quick",
    ),
    "TA-LPO": (
        "LPO whose drift also sees how much of the training is over (arXiv:2402.05828)",
        "metadisco.MirrorLearning(metadisco.LPODrift(temporal=True)); preset ta-lpo-quick",
    ),
    "LPG": (
        "a policy gradient whose targets come from a learned recurrent net (arXiv:2007.08794)",
        "metadisco.LPG(); preset lpg-grid",
    ),
    "TA-LPG": (
        "LPG that also sees the lifetime and how much of it is over (arXiv:2402.05828)",
        "metadisco.LPG(lifetime_features=True); presets ta-lpg-quick, ta-lpg-grid",
    ),
    "Disco103": (
        "the rule that was discovered in doi:10.1038/s41586-025-09761-x; its weights are not shipped",
        "metadisco.Disco103(); with published weights metadisco.load_disco103(PATH)",
    ),
    "ScheduledA2C": (
        "A2C whose coefficients follow a learned schedule over the lifetime",
        "metadisco.ScheduledA2C(); presets scheduled-a2c-quick, scheduled-a2c",
    ),
    "ExploringA2C": (
        "the same with a bonus for what is rare, whose size follows a learned schedule, too",
        "metadisco.ExploringA2C(); presets quickstart, exploring-a2c-long",
    ),
    "ScheduledMirrorLearning": (
        "PPO, DPO or LPO whose coefficients follow a learned schedule over the lifetime",
        "metadisco.ScheduledMirrorLearning(); preset scheduled-ppo-quick",
    ),
    "OPEN": (
        "any of these, with a learned optimizer in place of Adam or SGD (arXiv:2407.07082)",
        "metadisco.WithOptimizer(metadisco.PPO(), metadisco.ResidualOPEN()); presets open-quick, open-grid",
    ),
    "FormulaDrift": (
        "PPO with a drift that is two short formulas, as a learned one is distilled into",
        "metadisco.MirrorLearning(metadisco.FormulaDrift('A * (r - 1.2)', 'A * (r - 0.8)')); metadisco distill",
    ),
    "FormulaPolicyGradient": (
        "A2C whose advantage is replaced by a short formula, as LPG is distilled into",
        "metadisco.FormulaPolicyGradient('0.5 * advantage * (1 - prob)'); metadisco distill",
    ),
}
"""Objectives by the names of their papers: what each is, and where it is found."""


NOTES = {
    "presets": "Minutes of a whole run on 2 CPU cores, its test included; 'about': projected from a shorter run.\n"
    "Settings of one: metadisco list settings PRESET.",
    "suites": "Test an objective on one: metadisco evaluate CHECKPOINT --suite NAME.",
    "objectives": "One of your own is named by its module: metadisco discover PRESET --inner.objective my_module:Mine.",
    "settings": "Change one: metadisco discover PRESET --num_steps 100; or several from a file: --settings FILE.toml.",
    "checkpoints": "IQM of normalised scores in its own meta-test, and of baselines as they were tuned then.\n"
    "Explain one: metadisco inspect NAME. Test it: metadisco evaluate NAME.",
}
"""What is said below each list."""


def rows(kind: str) -> list[tuple[str, ...]]:
    """Name and description of everything of a kind: presets, suites, objectives or checkpoints.

    Presets have their cost between the two.
    """
    if kind == "presets":
        return [(name, entry.cost, entry.description) for name, entry in presets.PRESETS.items()]
    if kind == "suites":
        return _suites()
    if kind == "objectives":
        return [(name, f"{words}\n{where}") for name, (words, where) in OBJECTIVES.items()]
    return [(name, _headline(name, document)) for name, document in _shipped()]


def _suites() -> list[tuple[str, ...]]:
    """Grid suites one by one, all others by their group."""
    rows: list[tuple[str, ...]] = list(suites.GRID_SUITES.items())
    for group, members in suites.GROUPS.items():
        anchors = dict.fromkeys(suites.UPPER_ANCHORS[suites.upper_anchor(name)] for name in members)
        rows.append((group, f"each of {', '.join(members)}, with agents of its own; 1 is {' or '.join(anchors)}"))
    times = "any of them at 1/4, 1, 4 and 16 times its lifetime; NAME@x4 is one of these, NAME@250 any lifetime"
    named = "any environment of gymnax, brax or gymnasium, such as gymnax:FourRooms-misc, with the usual agent for its "
    named += "spaces; scores are returns until `metadisco tune` has measured a scale"
    own = "an environment of your own: what my_module:make_env makes"
    return [*rows, ("horizons:NAME", times), ("LIBRARY:NAME", named), ("MODULE:NAME", own)]


def _shipped() -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Name and document of each objective that ships; they are verified where they are loaded."""
    for folder in sorted((resources.files("metadisco.checkpoints") / "zoo").iterdir(), key=lambda each: each.name):
        if (folder / "objective.json").is_file():
            yield folder.name, json.loads((folder / "objective.json").read_text())


def _headline(name: str, document: Mapping[str, Any]) -> str:
    """How far it was trained, and its scores beside its baselines on the suites of its preset, or on all."""
    origin, scores = document["provenance"], document["evaluation"]
    preset = name if name in presets.PRESETS else origin.get("preset")
    entry = presets.PRESETS.get(str(preset))
    trained = meta_steps_done(origin, None if entry is None else entry.meta_steps)
    minutes = f" in {origin['minutes']:.0f} min" if "minutes" in origin else ""
    lines = headlines(scores, () if entry is None else entry.suites) or headlines(scores)
    return "\n".join([f"{trained}{minutes}", *lines])
