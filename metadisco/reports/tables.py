"""Tables of a report: scores with their intervals, settings by their path, and numbers as one reads them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from metadisco.core import score_table
from metadisco.evaluation.results import are_scaled, tested_on, upper_anchor
from metadisco.reports import chart_style
from metadisco.reports.markup import part
from metadisco.reports.sections import number

NO_BREAK = "\N{NO-BREAK SPACE}"
LOWEST, HIGHEST = -0.1, 1.1  # ends of the scale beside a score


def html_score_table(suite: str, agents: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Agents of a suite, each with a picture of its interval."""
    rows, is_solved = [], upper_anchor(agents) == "optimal"
    for agent, row in agents.items():
        between = minus(score_table.interval(row.get("iqm_low"), row.get("iqm_high")))
        if row.get("is_exact"):
            between = "exact" if is_solved else "by definition"
        rows.append(
            {
                "agent": chart_style.name(agent),
                "style": agent if agent in chart_style.NAMES else "other",
                "glyph": _glyph(row) if are_scaled(agents) else "",
                "cells": [
                    decimal(row.get("iqm"), 3),
                    between,
                    *(decimal(row.get(name), 3) for name in ("cvar", "mean_score", "optimality_gap", "mean_return")),
                ],
                "few": [row.get(name, "–") for name in ("num_tasks", "num_seeds")],
            }
        )
    scale = {
        "zero": _place(0.0),
        "one": _place(1.0),
        "anchor": chart_style.name(upper_anchor(agents)) if are_scaled(agents) else "",
    }
    return part("scores", suite=suite, about=_about(agents), rows=rows, **scale)


def _about(agents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many levels, seeds and updates a table is about."""
    first: Mapping[str, Any] = next(iter(agents.values()), {})
    seeds = first.get("num_seeds", "?")
    about = [tested_on(first.get("num_tasks", "?"), agents) + f", {seeds} seed{'' if seeds == 1 else 's'} each"]
    if "lifetime" in first:
        about.append(f"lifetime {first['lifetime']} agent updates")
    resampled = [row["resampled"] for row in agents.values() if row.get("resampled") and not row.get("is_exact")]
    if resampled:
        about.append(f"interval from resampling {resampled[0]}")
    return about


def _glyph(row: Mapping[str, Any]) -> Markup | str:
    """A dot with its interval on a line from random to the upper anchor."""
    places = [number(row.get(name)) for name in ("iqm", "iqm_low", "iqm_high")]
    if not all(math.isfinite(place) for place in places):
        return ""
    spoken = f"IQM {places[0]:.2f}, interval {places[1]:.2f} to {places[2]:.2f}"
    return part("glyph", spoken, *map(_place, places), _place(0.0), _place(1.0))


def _place(score: float) -> float:
    """Where a score is on such a line, in percent."""
    return 100 * (min(max(score, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)


def flatten(data: Any, path: str) -> Iterator[tuple[str, str]]:
    """Settings by their dotted path, as the command line takes them; a component by its class."""
    if isinstance(data, Mapping) and "class" in data:
        yield path or "trainer", str(data["class"])
        for name, value in data.items():
            if name != "class":
                yield from flatten(value, f"{path}.{name}" if path else name)
    elif isinstance(data, list) and any(isinstance(item, Mapping | list) for item in data):
        for index, item in enumerate(data):
            yield from flatten(item, f"{path}.{index}")
    elif isinstance(data, Mapping) and "float" in data:
        yield path, str(data["float"])
    else:
        yield path, ", ".join(map(str, data)) if isinstance(data, list) else str(data)


def interval(row: Mapping[str, Any]) -> str:
    """`0.84 (0.81 to 0.86)`, which never breaks over two lines."""
    point = score_table.point(row.get("iqm"), row.get("iqm_low"), row.get("iqm_high"), 2)
    return minus(point).replace(" ", NO_BREAK)


def decimal(value: Any, digits: int = 2) -> str:
    """A number with a proper minus; a dash for none."""
    return minus(score_table.decimal(value, digits))


def minus(text: str) -> str:
    """Numbers as a typesetter writes them."""
    return text.replace("-", "−")
