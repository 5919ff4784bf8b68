"""Charts of a run: functions of arrays that return a matplotlib figure.

How they look is in `metadisco.reports.chart_style`. Nothing here touches pyplot's global state.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metadisco.evaluation import stats
from metadisco.evaluation.results import Evaluation
from metadisco.reports.chart_style import (
    PALETTE,
    WIDTH,
    color,
    colors,
    evenly,
    label_ends,
    name,
    new_axes,
    styled,
    title_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWEST, HIGHEST = -0.5, 1.5  # normalised scores beyond are drawn at the edge
LEAST_GAP = 0.1  # between labels of time, as a share of the axis: compiling takes long and no meta-step
MAX_POINTS = 400  # of a line; more would not be seen
NUM_RESAMPLES = 500  # of each interval along a learning curve


class Curve(NamedTuple):
    """A line with an interval, all [P]."""

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def learning_curve(evaluation: Evaluation) -> Curve:
    """IQM of scores with its interval against the fraction of the lifetime; a gap where a score is not finite."""
    nothing = stats.Interval(math.nan, math.nan, math.nan)
    points = [
        stats.iqm_interval(scores, num_resamples=NUM_RESAMPLES) if np.isfinite(scores).all() else nothing
        for scores in evaluation.scores
    ]
    middle, low, high = (np.array([getattr(each, name) for each in points]) for name in ("point", "low", "high"))
    return Curve(evaluation.fractions, middle, low, high)


@styled
def meta_training(
    steps: np.ndarray,
    values: np.ndarray,
    seconds: np.ndarray,
    *,
    y_label: str,
    a2c: float | None = None,
    agent: str = "a2c",
    every_step: bool = False,
) -> "Figure":
    """A quantity against meta-steps, with time along the top.

    Args:
        steps: [n] meta-steps, ascending.
        values: [n].
        seconds: [n] since the start of the run.
        y_label: what the values are, with their unit.
        a2c: what a hand-written objective reaches, A2C or `agent`, as a line across.
        agent: which one.
        every_step: values are noisy: show them faintly, with a running mean over a twentieth of the run.
    """
    figure, axes = new_axes(top=0.815)
    shown = evenly(len(steps), MAX_POINTS)
    line = color("discovered")
    if every_step:
        axes.plot(steps[shown], values[shown], color=line, alpha=0.3, linewidth=0.8)
        values = _running_mean(values, max(1, len(values) // 20))
    axes.plot(steps[shown], values[shown], color=line, marker="" if every_step else "o", markersize=3.5)
    labels = [(values[-1], "running\nmean" if every_step else name("discovered"), line)]
    if a2c is not None:
        axes.axhline(a2c, color=color(agent), linestyle=(0, (5, 2)), linewidth=1.6)
        labels.append((a2c, name(agent), color(agent)))
    if not every_step:
        low, high = axes.get_ylim()
        low = min(0.0, low)
        axes.set_ylim(low, high + 0.05 * (high - low))  # last: it ends the automatic scaling
    axes.set(xlim=(0, max(steps[-1], 1)), xlabel="meta-step")
    axes.locator_params(axis="x", integer=True)
    title_axes(axes, y_label, above=27)
    label_ends(axes, labels, highest=0.93)
    _add_time(axes, steps[shown], seconds[shown])
    return figure


@styled
def runs(lines: Mapping[str, Sequence[tuple[int, float]]], *, y_label: str, every_step: bool = False) -> "Figure":
    """A quantity against meta-steps, a line for each run.

    Args:
        lines: run -> its (meta-step, value), meta-steps ascending.
        y_label: what the values are, with their unit.
        every_step: values are noisy: show their running mean over a twentieth of the run.
    """
    figure, axes = new_axes()
    hues, labels = colors(lines), []
    for run, points in lines.items():
        steps, values = np.array(points, float).T
        if every_step:
            values = _running_mean(values, max(1, len(values) // 20))
        shown = evenly(len(steps), MAX_POINTS)
        axes.plot(steps[shown], values[shown], color=hues[run], marker="" if every_step else "o", markersize=3)
        labels.append((values[-1], run, hues[run]))
    axes.set(xlim=(0, max(1.0, *(points[-1][0] for points in lines.values()))), xlabel="meta-step")
    axes.locator_params(axis="x", integer=True)
    title_axes(axes, y_label)
    label_ends(axes, labels)
    return figure


@styled
def profile(scores: Mapping[str, np.ndarray]) -> "Figure":
    """Share of lives that score more than x, with 95% intervals (performance profile, arXiv:2108.13264).

    Args:
        scores: agent -> normalised scores [N, S], finite.
    """
    figure, axes = new_axes(right=0.97)
    thresholds, hues = np.linspace(*_edges(scores.values()), 200), colors(scores)
    for row, (agent, values) in enumerate(scores.items()):
        share, low, high = 100 * stats.profile_interval(values, thresholds)
        axes.fill_between(thresholds, low, high, color=hues[agent], alpha=0.15, linewidth=0, step="post")
        axes.plot(thresholds, share, color=hues[agent], drawstyle="steps-post")
        axes.text(0.05, 0.05 + 0.08 * row, name(agent), color=hues[agent], weight="bold", transform=axes.transAxes)
    axes.vlines([0, 1], 0, 101, color=PALETTE["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set(xlim=thresholds[[0, -1]], ylim=(0, 101))
    axes.set_xlabel("normalised score (0 random policy, 1 optimum or reference)")
    title_axes(axes, "lives that score more, %")
    return figure


@styled
def aggregates(rows: Mapping[str, Mapping[str, float]], measures: Mapping[str, str]) -> "Figure":
    """Several statistics of agents side by side, each a dot with its interval.

    Args:
        rows: agent -> each measure, with the ends of its interval as `NAME_low` and `NAME_high`.
        measures: name in a row -> what is written above it.
    """
    from matplotlib.figure import Figure

    line, above, below = 20, 30, 30  # points
    height = above + below + line * len(rows)
    figure = Figure(figsize=(2 * WIDTH / 72, height / 72), dpi=72)
    panels, hues = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0], colors(rows)
    left = 16 + 6.4 * max(len(name(agent)) for agent in rows)
    figure.subplots_adjust(left / (2 * WIDTH), below / height, 0.985, 1 - above / height, wspace=0.14)
    places = np.arange(len(rows))[::-1]
    for axes, (measure, title) in zip(panels, measures.items(), strict=True):
        for place, (agent, row) in zip(places, rows.items(), strict=True):
            ends = [row[f"{measure}_low"], row[f"{measure}_high"]]
            axes.plot(ends, [place, place], color=hues[agent], linewidth=7, alpha=0.35, solid_capstyle="butt")
            axes.plot(row[measure], place, color=hues[agent], marker="|", markersize=12, markeredgewidth=2.5)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=4)
        axes.set(ylim=(-0.6, len(rows) - 0.4), yticks=[])
        axes.set_title(title, fontsize=10, weight="bold", loc="left")
    for place, agent in zip(places, rows, strict=True):
        panels[0].annotate(
            name(agent),
            (0, place),
            (-8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            color=hues[agent],
            weight="bold",
        )
    return figure


@styled
def duel(baseline: np.ndarray, discovered: np.ndarray, *, agent: str = "a2c") -> "Figure":
    """Each level as a point: score of a baseline against score of the discovered objective.

    Args:
        baseline: [N] normalised scores, finite.
        discovered: [N].
        agent: the baseline's name.
    """
    figure, axes = new_axes(right=0.97)
    low, high = _edges([baseline, discovered])
    axes.plot([low, high], [low, high], color=PALETTE["muted"], linewidth=1.0)
    x, y = np.clip(baseline, low, high), np.clip(discovered, low, high)
    tied = discovered == baseline
    axes.scatter(x[tied], y[tied], s=13, color=PALETTE["muted"], linewidth=0, clip_on=False)
    for winner, ahead in (("discovered", discovered > baseline), (agent, discovered < baseline)):
        axes.scatter(x[ahead], y[ahead], s=13, color=color(winner), alpha=0.55, linewidth=0, clip_on=False)
        text = f"{name(winner)} ahead: {np.sum(ahead)}"
        place = (0.03, 0.95, text, "left") if winner == "discovered" else (0.98, 0.07, text, "right")
        axes.text(*place[:3], ha=place[3], va="center", color=color(winner), weight="bold", transform=axes.transAxes)
    axes.grid(visible=True, axis="both")
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.set_xlabel(f"normalised score of {name(agent)}")
    title_axes(axes, "normalised score of the discovered objective")
    return figure


@styled
def learning(curves: Mapping[str, Curve], *, lifetime: int, upper_anchor: str | None = "optimal") -> "Figure":
    """Learning curves of agents over their lifetime.

    Args:
        curves: agent -> IQM of normalised scores with its interval; x in [0, 1].
        lifetime: agent updates.
        upper_anchor: what has the score 1; None where scores are returns.
    """
    anchors = [] if upper_anchor is None else [upper_anchor]
    longest = max(len(name(agent)) for agent in [*curves, *anchors])
    figure, axes = new_axes(right=min(0.80, 1 - (12 + 5.8 * longest) / WIDTH))
    hues = colors(curves)
    draw_curves(axes, curves, hues)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"fraction of the lifetime of {lifetime} agent updates")
    title_axes(axes, "IQM of normalised scores" if anchors else "IQM of returns")
    ends = [(curve.middle[-1], name(agent), hues[agent]) for agent, curve in curves.items()]
    for anchor in anchors:
        axes.axhline(1.0, color=color(anchor), linewidth=1.2, linestyle=(0, (2, 2)))
        highest = 1.05 if anchor == "optimal" else min(max(axes.get_ylim()[1], 1.05), HIGHEST)
        axes.set_ylim(max(axes.get_ylim()[0], LOWEST), highest)
        ends.append((1.0, name(anchor), color(anchor)))
    label_ends(axes, ends)
    return figure


def draw_curves(axes: "Axes", curves: Mapping[str, Curve], hues: Mapping[str, str]) -> None:
    """Learning curves with their intervals, in the color of each agent; `label` of a line is the agent's name."""
    for agent, curve in curves.items():
        axes.fill_between(curve.x, curve.low, curve.high, color=hues[agent], alpha=0.18, linewidth=0)
        axes.plot(curve.x, curve.middle, color=hues[agent], marker="o", markersize=3, label=agent)


@styled
def history(
    quantiles: Mapping[str, tuple[np.ndarray, np.ndarray]],
    medians: Sequence[tuple[str, np.ndarray, np.ndarray]] = (),
    *,
    y_label: str,
    reference: tuple[float, str] | None = None,
) -> "Figure":
    """How a quantity goes over a lifetime: quantiles over lives.

    Args:
        quantiles: agent -> x [P] in [0, 1] and [5, P] for 10, 25, 50, 75 and 90% of the lives.
            The outer two are drawn for the discovered objective only.
        medians: agent, x and median of other lifetimes, dashed.
        y_label: the quantity, with its unit.
        reference: a value worth knowing, and what it is.
    """
    figure, axes = new_axes()
    for agent, (x, bands) in quantiles.items():
        if agent == "discovered":
            axes.fill_between(x, bands[0], bands[4], color=color(agent), alpha=0.12, linewidth=0)
        axes.fill_between(x, bands[1], bands[3], color=color(agent), alpha=0.22, linewidth=0)
        axes.plot(x, bands[2], color=color(agent))
    for agent, x, median in medians:
        axes.plot(x, median, color=color(agent), linewidth=1.4, linestyle=(0, (4, 2)))
    labels = [(bands[2][-1], name(agent), color(agent)) for agent, (_, bands) in quantiles.items()]
    if reference is not None:
        axes.axhline(reference[0], color=PALETTE["muted"], linewidth=1.0, linestyle=(0, (2, 2)))
        labels.append((reference[0], reference[1], PALETTE["muted"]))
    axes.set(xlim=(0, 1), xlabel="n/N, fraction of the lifetime")
    title_axes(axes, y_label)
    label_ends(axes, labels)
    return figure


@styled
def distribution_shift(
    steps: np.ndarray,
    quantiles: np.ndarray,
    base: np.ndarray | None = None,
    *,
    last_step: int,
    y_label: str,
    logarithmic: bool = False,
) -> "Figure":
    """How the distribution of a quantity over kept levels goes with meta-steps, beside what they were drawn from.

    Args:
        steps: [P] meta-steps, ascending.
        quantiles: [5, P] for the 10, 25, 50, 75 and 90% quantiles, or [1, P] for a single number.
        base: [5] or [1], the same of the distribution that the levels were drawn from, as a background.
        last_step: where the axis ends.
        y_label: the quantity, with its unit.
        logarithmic: for quantities above 0 that range over factors.
    """
    from matplotlib.ticker import LogLocator

    figure, axes = new_axes()
    hue, middle = color("other"), len(quantiles) // 2
    labels = [(quantiles[middle][-1], "kept", hue)]
    if base is not None:
        if len(base) > 1:
            axes.axhspan(base[1], base[-2], color=PALETTE["muted"], alpha=0.16, linewidth=0)
            for end in base[[0, -1]]:
                axes.axhline(end, color=PALETTE["muted"], linewidth=1.0, linestyle=(0, (1, 2)))
        axes.axhline(base[middle], color=PALETTE["muted"], linewidth=1.4, linestyle=(0, (5, 2)))
        labels.append((base[middle], "base", PALETTE["muted"]))
    if len(quantiles) > 1:
        axes.vlines(steps, quantiles[0], quantiles[-1], color=hue, linewidth=1.6)
        axes.vlines(steps, quantiles[1], quantiles[-2], color=hue, linewidth=6.0, alpha=0.45)
    axes.plot(steps, quantiles[middle], color=hue, marker="o", markersize=4, linewidth=1.2)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.set(xlim=(0, 1.03 * last_step), xlabel="meta-step")
    axes.locator_params(axis="x", integer=True)
    title_axes(axes, y_label)
    label_ends(axes, labels)
    return figure


def _add_time(axes: "Axes", steps: np.ndarray, seconds: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    if not np.isfinite(seconds).all() or seconds[-1] <= 0:
        return
    unit, scale = ("hours", 3600) if seconds[-1] > 10800 else ("minutes", 60) if seconds[-1] > 120 else ("seconds", 1)
    times = seconds / scale
    # All meta-steps of a chunk carry the time of its end.
    moments, last = np.unique(times[::-1], return_index=True)
    ticks = [tick for tick in MaxNLocator(5).tick_values(0, times[-1]) if 0 <= tick <= times[-1]]
    places = np.interp(ticks, [0.0, *moments], [0.0, *steps[::-1][last]])
    kept = _apart(places, LEAST_GAP * max(steps[-1], 1))
    top = axes.secondary_xaxis("top")
    top.spines["top"].set_visible(False)
    top.set_xticks(places[kept], [f"{ticks[i]:g}" for i in kept])
    top.tick_params(length=3, pad=2)
    axes.text(1.05, 1.03, unit, color=PALETTE["muted"], transform=axes.transAxes)


def _apart(places: np.ndarray, gap: float) -> list[int]:
    """Indices of ascending places that are at least `gap` apart, the last one first: later times are worth more."""
    kept: list[int] = []
    for i in range(len(places))[::-1]:
        if not kept or places[kept[-1]] - places[i] >= gap:
            kept.append(i)
    return kept[::-1]


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last `width` values, of fewer at the beginning."""
    totals = np.cumsum(values)
    before = np.concatenate([np.zeros(width), totals])[: len(values)]
    return (totals - before) / np.minimum(np.arange(1, len(values) + 1), width)


def _edges(scores: Iterable[np.ndarray]) -> tuple[float, float]:
    """Ends of an axis of normalised scores."""
    values = np.concatenate([np.ravel(each) for each in scores])
    return max(min(0.0, values.min()) - 0.03, LOWEST), min(max(1.0, values.max()) + 0.03, HIGHEST)
