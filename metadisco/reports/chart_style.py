"""How charts look: the colors and names of agents, the frame of a figure, and names beside the ends of lines.

Every agent has one color in all charts, from a palette that color-blind readers can tell apart.
"""

import functools
import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Light colors; the page's style sheet has the variables of these names, light and dark.
PALETTE = {
    "ink": "#1b1e23",
    "muted": "#686e76",
    "line": "#dcdfe3",
    "discovered": "#0072b2",
    "a2c": "#c85200",
    "a2c-count": "#946200",
    "random": "#7b8188",
    "optimal": "#007f5f",
    "reference": "#00755c",
    "human": "#00755c",
    "ppo": "#6f42a8",
    "dpo": "#b3005e",
    "other": "#8f4a86",
}
NAMES = {
    "discovered": "discovered",
    "a2c": "tuned A2C",
    "a2c-count": "A2C + bonus of counts",
    "ppo": "tuned PPO",
    "random": "random policy",
    "dpo": "DPO",
    "optimal": "optimum",
    "reference": "reference",
    "human": "human",
}
MORE = ("#a07800", "#1795b5", "#6b4a33", "#8f4a86", "#3d3d8f")  # of agents that have no name of their own
WIDTH, HEIGHT = 360, 248  # points; a phone shows them about one to one
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "svg.fonttype": "none",
    "axes.edgecolor": PALETTE["muted"],
    "axes.linewidth": 0.8,
    "axes.labelcolor": PALETTE["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": PALETTE["line"],
    "grid.linewidth": 0.8,
    "text.color": PALETTE["ink"],
    "lines.linewidth": 2.0,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}

Drawn = TypeVar("Drawn")
Label = tuple[float, str, str]
"""Where a line ends, its name and its color."""


def color(agent: str) -> str:
    """Of an agent, the same in all charts."""
    return PALETTE[agent if agent in NAMES and agent in PALETTE else "other"]


def colors(agents: Iterable[str]) -> dict[str, str]:
    """Of agents in one chart: their own; for checkpoints by name that of `discovered` where it is free, then more.

    Example:
        >>> colors(["a2c", "mine", "yours"])
        {'a2c': '#c85200', 'mine': '#0072b2', 'yours': '#a07800'}
    """
    agents = list(agents)
    free = itertools.cycle(MORE if "discovered" in agents else (PALETTE["discovered"], *MORE))
    return {agent: color(agent) if agent in NAMES else next(free) for agent in agents}


def name(agent: str) -> str:
    """Of an agent, in words."""
    return NAMES.get(agent, agent)


def styled(plot: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """Draw in this style, whatever the process has set; a notebook shows a figure that is drawn so."""

    @functools.wraps(plot)
    def styled(*arguments: Any, **options: Any) -> Drawn:
        from matplotlib import style
        from matplotlib.figure import Figure

        with style.context(["default", STYLE]):
            drawn = plot(*arguments, **options)
        if isinstance(drawn, Figure):  # IPython itself knows figures only after pyplot has made one
            drawn._repr_png_ = functools.partial(_for_notebook, drawn)  # type: ignore[attr-defined]
        return drawn

    return styled


def png(figure: "Figure", dpi: float = 200) -> bytes:
    """A figure as the bytes of a PNG, `dpi` pixels to an inch."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, facecolor="white")
    return content.getvalue()


def _for_notebook(figure: "Figure") -> tuple[bytes, dict[str, int]]:
    """A figure twice as fine as it is large, with its size in pixels."""
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    return png(figure, 2 * figure.dpi), {"width": width, "height": height}


def new_axes(*, left: float = 0.115, right: float = 0.80, top: float = 0.885) -> tuple["Figure", "Axes"]:
    """A figure of the usual size; the axes end where names beside lines begin. Ends are shares of the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
    axes = figure.subplots()
    figure.subplots_adjust(left=left, right=right, bottom=0.15, top=top)
    return figure, axes


def title_axes(axes: "Axes", text: str, *, above: float = 9) -> None:
    """What the vertical axis shows, written where it can be read without turning the head."""
    offset = (4 - axes.get_position().x0 * WIDTH, above)
    axes.annotate(text, (0, 1), offset, xycoords="axes fraction", textcoords="offset points", weight="bold")


def label_ends(axes: "Axes", labels: Sequence[Label], *, highest: float = 1.0) -> None:
    """Write names beside the ends of lines, moved apart where they would overlap."""
    gap = 15 / (axes.get_position().height * HEIGHT)  # a line of text
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    seen = sorted((y, text.replace(" + ", " +\n"), hue) for y, text, hue in labels if np.isfinite(y))
    along = axes.yaxis.get_transform().transform  # a logarithm where the axis is logarithmic
    (low, high), ends = along(np.array([low, high])), along(np.array([y for y, _, _ in seen]))
    places = np.clip((ends - low) / (high - low), 0.0, highest)
    heights = [gap * (1 + text.count("\n")) for _, text, _ in seen]
    for _ in range(50):
        for i in range(len(places) - 1):
            overlap = max(0.0, (heights[i] + heights[i + 1]) / 2 - (places[i + 1] - places[i]))
            places[i] -= overlap / 2
            places[i + 1] += overlap / 2
        places -= max(0.0, places.max(initial=0.0) - highest)
    for (_, text, hue), place in zip(seen, places):
        axes.text(1.02, place, text, color=hue, weight="bold", va="center", transform=axes.transAxes)


def evenly(count: int, at_most: int) -> np.ndarray:
    """Indices of at most so many of `count` items, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(int))
