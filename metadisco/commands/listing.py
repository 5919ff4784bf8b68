"""Names and descriptions for `metadisco list`."""

from typing import Any

from metadisco import objectives
from metadisco.checkpoints import checkpoint
from metadisco.evaluation import environments, suites, test_sets
from metadisco.presets import registry


def rows(kind: str) -> list[tuple[str, str]]:
    """Name and description of everything of a kind: presets, suites, objectives or checkpoints."""
    if kind == "presets":
        return [(name, make().description) for name, make in registry.PRESETS.items()]
    if kind == "suites":
        return _suites()
    if kind == "objectives":
        classes = [getattr(objectives, name) for name in objectives.__all__]
        return [(f"{each.__module__}:{each.__qualname__}", _first_line(each)) for each in classes]
    return [(name, _headline(checkpoint.load(name))) for name in checkpoint.zoo_names()]


def _suites() -> list[tuple[str, str]]:
    """Grid suites one by one, all others by their group."""
    rows = [(name, suite.description) for name, suite in suites.SUITES.items() if name not in environments.NAMES]
    for group, members in suites.GROUPS.items():
        anchors = dict.fromkeys(test_sets.UPPER_ANCHORS[environments.upper_anchor(name)] for name in members)
        rows.append((group, f"each of {', '.join(members)}, with agents of its own; 1 is {' or '.join(anchors)}"))
    times = "any of them at 1/4, 1, 4 and 16 times its lifetime; NAME@x4 is one of these, NAME@250 any lifetime"
    return [*rows, ("horizons:NAME", times)]


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _headline(discovered: checkpoint.Discovered) -> str:
    """Its scores and those of its baselines on the suites of its preset, or on all if there is no preset."""
    preset, scores = discovered.provenance.get("preset"), discovered.evaluation
    wanted = registry.PRESETS[preset]().suites if preset in registry.PRESETS else tuple(scores)
    lines = []
    for suite in (suite for suite in wanted if suite in scores):
        agents = scores[suite]
        baselines = [f"{name} {row['iqm']:.2f}" for name, row in agents.items() if name in ("a2c", "ppo", "dpo")]
        if "discovered" in agents and baselines:
            lines.append(f"{suite}: IQM {agents['discovered']['iqm']:.2f} ({', '.join(baselines)})")
    return "; ".join(lines)
