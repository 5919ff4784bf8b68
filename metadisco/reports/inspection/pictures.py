"""Pictures of what an objective does: targets, sensitivity, schedules, entropy; and of its drift."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.jax_defaults import own_defaults
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports import drift_plots, formulas
from metadisco.reports.chart_style import PALETTE, label_ends, new_axes, styled, title_axes
from metadisco.reports.inspection.measures import FRACTIONS, INPUTS, LIFETIMES, LIVED, PROBS, REWARDS, Inspection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = ("#9cc9e3", "#56a5d0", "#0072b2", "#00304d")  # light to dark, for values in order
UNCHANGED = 1e-6  # of the push: less is rounding


@styled
def by_reward(found: Inspection) -> "Figure":
    """The push on an action against the reward that followed, for probabilities of the action."""
    figure, axes = new_axes()
    axes.axhline(0.0, color=PALETTE["muted"], linewidth=0.8)
    for column, shade in enumerate(SHADES):
        axes.plot(REWARDS, found.by_reward[:, column], color=shade)
    axes.set(xlim=(REWARDS[0], REWARDS[-1]), xlabel="reward after the action")
    title_axes(axes, "push on the action taken, by its probability")
    for row, (prob, shade) in enumerate(zip(PROBS, SHADES)):  # the lines meet, so their names stand apart
        axes.text(1.02, 0.62 - 0.09 * row, f"π = {prob:g}", color=shade, weight="bold", transform=axes.transAxes)
    return figure


@styled
def credit(found: Inspection) -> "Figure":
    """How far back a reward is credited."""
    figure, axes = new_axes()
    axes.axhline(0.0, color=PALETTE["muted"], linewidth=0.8)
    back = np.arange(found.credit.shape[1])
    for changes, shade in zip(found.credit, (PALETTE["discovered"], PALETTE["a2c"])):
        axes.plot(back, changes, color=shade, marker="o", markersize=3.5, clip_on=False)
    axes.set(xlabel="steps before the reward", xlim=(0, back[-1]))
    title_axes(axes, "change of the push by a reward of +1 or −1")
    ends = zip(found.credit[:, -1], ("reward +1", "reward −1"), (PALETTE["discovered"], PALETTE["a2c"]))
    label_ends(axes, list(ends))
    return figure


@styled
def prediction(found: Inspection) -> "Figure":
    """The target y_hat of LPG's prediction vector against the reward."""
    assert found.y_hat is not None, "only LPG has y_hat"
    figure, axes = new_axes(right=0.84)
    axes.grid(visible=False)
    num = found.y_hat.shape[1]
    ends = (REWARDS[0], REWARDS[-1], 0.5, num + 0.5)
    image = axes.imshow(found.y_hat.T, cmap="Blues", vmin=0.0, extent=ends, origin="lower", aspect="auto")
    axes.set(xlabel="reward after the action", yticks=range(1, num + 1))
    axes.spines[["left", "bottom"]].set_visible(False)
    title_axes(axes, "target ŷ of each entry of the prediction")
    bar = figure.colorbar(image, cax=figure.add_axes((0.87, 0.15, 0.02, 0.735)))
    bar.outline.set_visible(False)
    return figure


@styled
def sensitivity(found: Inspection) -> "Figure":
    """Share of the variance of the push, and of the pull on predictions, that each input makes."""
    figure, axes = new_axes(left=0.47, right=0.95)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    order = sorted(found.sensitivity, key=lambda name: found.sensitivity[name][0])
    rows = np.arange(len(order))
    for place, (label, hue) in enumerate((("policy", PALETTE["discovered"]), ("predictions", PALETTE["optimal"]))):
        shares = [100 * found.sensitivity[name][place] for name in order]
        axes.barh(rows + 0.19 - 0.38 * place, shares, height=0.34, color=hue)
        axes.text(0.58, 0.24 - 0.1 * place, label, color=hue, weight="bold", transform=axes.transAxes)
    axes.set_yticks(rows, [INPUTS[name].removeprefix("the ") for name in order], fontsize=8)
    axes.set(xlim=(0, 100), xlabel="share of the variance, %")
    title_axes(axes, "what each input is worth (total effect)")
    return figure


@styled
def schedule(found: Inspection) -> "Figure":
    """Size of the push over lives of several lengths."""
    figure, axes = new_axes()
    rows, shades = found.schedule.push_size, SHADES[-len(LIFETIMES) :]
    for row, shade in zip(rows, shades):
        axes.plot(FRACTIONS, row, color=shade)
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * np.max(rows)), xlabel="n/N, how much of the life is over")
    title_axes(axes, "size of the push (root mean square)")
    label_ends(axes, [(row[-1], f"N = {n}", shade) for row, n, shade in zip(rows, LIFETIMES, shades)])
    return figure


@styled
def entropy(found: Inspection) -> "Figure":
    """Entropy of the policy over whole lives on small grid worlds."""
    figure, axes = new_axes()
    entropies = np.zeros((0, 0)) if found.entropy is None else found.entropy
    shares = np.linspace(0.0, 1.0, entropies.shape[1])
    for row, shade in zip(entropies, (SHADES[1], SHADES[3])):
        axes.plot(shares, row, color=shade)
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * np.log(5)), xlabel="n/N, how much of the life is over")
    axes.axhline(np.log(5), color=PALETTE["muted"], linewidth=1.0, linestyle=(0, (2, 2)))
    title_axes(axes, "entropy of the policy on small grid worlds, nats")
    ends = [(row[-1], f"N = {n}", shade) for row, n, shade in zip(entropies, LIVED, (SHADES[1], SHADES[3]))]
    label_ends(axes, [*ends, (float(np.log(5)), "uniform", PALETTE["muted"])])
    return figure


def is_scheduled(found: Inspection) -> bool:
    """Whether anything changes over a life, or with its length."""
    return found.schedule.change > UNCHANGED


def figures(discovered: Discovered, found: Inspection | None) -> dict[str, Callable[[], "Figure"]]:
    """What there is to show beside a drift: name of the picture -> what draws it."""
    if found is None:
        return {}
    has_drift = isinstance(discovered.objective, MirrorLearning)
    charts: Sequence[Callable[[Inspection], Figure]] = [sensitivity, *([] if found.entropy is None else [entropy])]
    if not has_drift:
        charts = [by_reward, credit, *charts]
    if found.y_hat is not None:
        charts = [*charts, prediction]
    if is_scheduled(found):
        charts = [*charts, schedule]
    return {each.__name__.replace("_", "-"): functools.partial(each, found) for each in charts}


@own_defaults
def write(discovered: Discovered, found: Inspection | None, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the pictures as PNG, of a drift that changes over training a GIF too, and fronts; say which files.

    Args:
        discovered: from `metadisco.load`.
        found: what `inspect` measured of it.
        folder: where to; it is made.
        overwrite: replace pictures of these names that are there.

    Raises:
        FileExistsError: where a picture is there already.
    """
    charts = figures(discovered, found)
    contents = drift_plots.pictures(discovered) if isinstance(discovered.objective, MirrorLearning) else {}
    contents |= {f"{title}.png": functools.partial(drift_plots.png, draw) for title, draw in charts.items()}
    for name, distilled in formulas.parts(discovered).items():
        contents[f"front-{name}.png"] = functools.partial(
            drift_plots.png, functools.partial(formulas.front_figure, distilled)
        )
    return drift_plots.write_all(folder, contents, overwrite=overwrite)
