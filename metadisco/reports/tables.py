"""Tables of a report, as HTML: scores with their intervals, and lists of facts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from metadisco.core import score_table
from metadisco.evaluation.results import tested_on, upper_anchor
from metadisco.reports import chart_style
from metadisco.reports.sections import number

NO_BREAK = "\N{NO-BREAK SPACE}"
LOWEST, HIGHEST = -0.1, 1.1  # ends of the scale beside a score


def html_score_table(suite: str, agents: Mapping[str, Mapping[str, Any]]) -> str:
    """Agents of a suite, each with a picture of its interval (HTML)."""
    rows, is_solved = [], upper_anchor(agents) == "optimal"
    for agent, row in agents.items():
        style = agent if agent in chart_style.NAMES else "other"
        between = minus(score_table.interval(row.get("iqm_low"), row.get("iqm_high")))
        if row.get("is_exact"):
            between = "exact" if is_solved else "by definition"
        cells = [decimal(row.get("iqm"), 3), between, decimal(row.get("mean_return"), 3)]
        few = [str(row.get(name, "–")) for name in ("num_tasks", "num_seeds")]
        rows.append(
            f'<tr><th scope="row" class="{style}">{escape(chart_style.name(agent))}</th>'
            f'<td class="glyph {style}">{_glyph(row)}</td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "".join(f'<td class="few">{escape(cell)}</td>' for cell in few)
            + "</tr>"
        )
    first: Mapping[str, Any] = next(iter(agents.values()), {})
    seeds = first.get("num_seeds", "?")
    about = [tested_on(first.get("num_tasks", "?"), agents) + f", {seeds} seed{'' if seeds == 1 else 's'} each"]
    if "lifetime" in first:
        about.append(f"lifetime {first['lifetime']} agent updates")
    resampled = [row["resampled"] for row in agents.values() if row.get("resampled") and not row.get("is_exact")]
    if resampled:
        about.append(f"interval from resampling {resampled[0]}")
    head = (
        '<th scope="col">agent</th><th scope="col" class="glyph">'
        + _scale(chart_style.name(upper_anchor(agents)))
        + "</th>"
    )
    head += "".join(f'<th scope="col">{name}</th>' for name in ("IQM", "95% interval", "mean return"))
    head += "".join(f'<th scope="col" class="few">{name}</th>' for name in ("levels", "seeds"))
    title = f"{escape(suite)} <span>{escape(' · '.join(about))}</span>"
    return (
        f'<div class="wide"><table class="scores">\n<caption>{title}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table></div>"
    )


def _glyph(row: Mapping[str, Any]) -> str:
    """A dot with its interval on a line from random to the upper anchor."""
    places = [number(row.get(name)) for name in ("iqm", "iqm_low", "iqm_high")]
    if not all(math.isfinite(place) for place in places):
        return ""
    x, low, high = (_place(place) for place in places)
    zero, one = _place(0.0), _place(1.0)
    return (
        f'<svg role="img" aria-label="IQM {places[0]:.2f}, interval {places[1]:.2f} to {places[2]:.2f}">'
        f'<line x1="{zero:.2f}%" x2="{one:.2f}%" y1="7" y2="7" stroke="var(--line)"/>'
        f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="7" y2="7" stroke="currentColor" stroke-width="4" opacity=".45"/>'
        f'<circle cx="{x:.2f}%" cy="7" r="4.5" fill="currentColor"/></svg>'
    )


def _scale(one: str) -> str:
    """The head of a column of such lines; `one` is what has the score 1."""
    ends = "".join(f'<text x="{_place(end):.2f}%" y="11">{name}</text>' for end, name in ((0.0, "random"), (1.0, one)))
    return f'<svg role="img" aria-label="scale from the random policy to the {one}">{ends}</svg>'


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


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values (HTML)."""
    lines = (
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(value)}</code></td></tr>' for name, value in rows
    )
    return '<table class="settings">\n<tbody>\n' + "\n".join(lines) + "\n</tbody>\n</table>"


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
