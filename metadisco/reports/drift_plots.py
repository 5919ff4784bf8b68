"""Pictures of drifts: heat maps over the ratio r and the advantage A, beside the drifts of PPO and DPO.

An agent ascends r A - D(r, A). Its derivative with respect to r is what the agent feels (arXiv:2210.05639): A where the
drift lets the policy go, 0 where it holds it, and of the other sign where it pulls it back. All panels of a picture
share one scale of colors, symmetric about a neutral 0, and by default all pictures do. Drifts are plain functions
`drift(ratio, advantage, progress)`, see `metadisco.checkpoints.checkpoint.Discovered.drift`.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.files import write_atomically
from metadisco.objectives.drift import DPODrift, Drift, LPODrift, PPODrift
from metadisco.objectives.formula_drift import FormulaDrift
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports import chart_style
from metadisco.reports.chart_style import PALETTE, STYLE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.text import Text

DriftFunction = Callable[..., jax.Array]
"""`drift(ratio, advantage, progress)`."""


@runtime_checkable
class Clipped(Protocol):
    """A drift with a clip like that of PPO. Optional."""

    @property
    def clip(self) -> float | None:
        """Epsilon; None for none."""


FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)  # n/N of a strip's panels
END_LOG_RATIO, END_ADVANTAGE = 1.0, 3.0  # ends of the axes
LIMIT = 5.0  # end of the scale: no value of PPO and DPO on these axes is much beyond
NUM_CELLS = 160  # of a panel, along each side
MAX_FRAMES = 101  # of an animation: frames differ at least in the second decimal of n/N
_LEFT, _TOP, _BOTTOM, _SIDE, _GAP, _BAR, _NARROWEST = 46, 42, 36, 112, 10, 8, 260  # points


def penalty(drift: DriftFunction, ratio: jax.Array, advantage: jax.Array, progress: float | jax.Array) -> jax.Array:
    """D(r, A). [...] float32."""
    return drift(ratio, advantage, progress)


def gradient(drift: DriftFunction, ratio: jax.Array, advantage: jax.Array, progress: float | jax.Array) -> jax.Array:
    """d/dr (r A - D(r, A)), which is what an agent feels. [...] float32."""
    ratio, advantage = jnp.broadcast_arrays(ratio, advantage)
    return jax.grad(lambda ratio: jnp.sum(ratio * advantage - drift(ratio, advantage, progress)))(ratio)


class Quantity(NamedTuple):
    """What is drawn of a drift: a title, and its values as `penalty` has them."""

    title: str
    values: Callable[[DriftFunction, jax.Array, jax.Array, float | jax.Array], jax.Array]


PENALTY = Quantity("drift D(r, A)", penalty)
GRADIENT = Quantity("what the agent feels, ∂(r A − D) / ∂r", gradient)


def axes_values() -> tuple[np.ndarray, np.ndarray]:
    """Middles of the cells: r, evenly in its logarithm, and A; both [NUM_CELLS], ascending."""
    middles = (2.0 * np.arange(NUM_CELLS) + 1.0) / NUM_CELLS - 1.0
    ratio, advantage = np.exp(END_LOG_RATIO * middles), END_ADVANTAGE * middles
    return ratio.astype(np.float32), advantage.astype(np.float32)


@styled
def compare(
    drifts: Mapping[str, DriftFunction],
    quantity: Quantity = GRADIENT,
    *,
    progress: float | None = None,
    limit: float = LIMIT,
) -> "Figure":
    """Drifts side by side.

    Args:
        drifts: name -> drift, as `side_by_side` makes it.
        quantity: what of them.
        progress: n/N, which is written below; None where no drift depends on it.
        limit: colors are for values from minus this to this; values beyond have the color of the end.

    Example:
        >>> from metadisco.objectives.mirror_learning import PPO
        >>> figure = compare({"PPO": Discovered(PPO(clip=0.1), ()).drift})
        >>> figure.savefig("ppo.png")  # doctest: +SKIP
    """
    panels = {title: _values(drift, quantity)(progress or 0.0) for title, drift in drifts.items()}
    figure, _, corner = _panels(panels, quantity.title, limit)
    corner.set_text("" if progress is None else _moment(progress))
    return figure


@styled
def strip(
    drift: DriftFunction,
    quantity: Quantity = GRADIENT,
    *,
    fractions: Sequence[float] = FRACTIONS,
    limit: float = LIMIT,
) -> "Figure":
    """One temporally-aware drift over training, a panel for each fraction n/N."""
    values = _values(drift, quantity)
    panels = {_moment(fraction): values(fraction) for fraction in fractions}
    return _panels(panels, quantity.title, limit)[0]


@styled
def animation(
    drifts: Mapping[str, DriftFunction],
    quantity: Quantity = GRADIENT,
    *,
    num_frames: int = 33,
    frames_per_second: int = 8,
    limit: float = LIMIT,
) -> bytes:
    """Drifts side by side while n/N goes from 0 to 1, as a GIF that repeats.

    Args:
        drifts: name -> drift.
        quantity: what of them.
        num_frames: 2 to 101.
        frames_per_second: how fast it plays.
        limit: as in `compare`.

    Raises:
        ValueError: for another number of frames.
    """
    from matplotlib.animation import PillowWriter

    if not 2 <= num_frames <= MAX_FRAMES:
        raise ValueError(f"num_frames must be 2 to {MAX_FRAMES}, got {num_frames}")
    values = [_values(drift, quantity) for drift in drifts.values()]
    begun = {title: each(0.0) for title, each in zip(drifts, values)}
    figure, images, corner = _panels(begun, quantity.title, limit)
    writer = PillowWriter(fps=frames_per_second)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.gif"
        with writer.saving(figure, path, dpi=110):
            for fraction in np.linspace(0.0, 1.0, num_frames):
                for image, each in zip(images, values):
                    image.set_data(each(fraction))
                corner.set_text(_moment(fraction))
                writer.grab_frame()
        return path.read_bytes()


def side_by_side(discovered: Discovered) -> dict[str, DriftFunction]:
    """PPO and DPO by name, and the drift of a discovered objective where it is not one of them.

    PPO has the clip of the discovered drift, where that has one.

    Raises:
        config.ConfigError: where the objective has no drift.
    """
    own, rule = discovered.drift, discovered.drift_rule
    beside: dict[str, Drift] = {"PPO": PPODrift(_clip(rule) or PPODrift().clip), "DPO": DPODrift()}
    functions = {title: Discovered(MirrorLearning(each), ()).drift for title, each in beside.items()}
    return functions if rule in beside.values() else functions | {name(rule): own}


def _clip(rule: Drift) -> float | None:
    """How far the drift lets the ratio go; None where it has no such bound."""
    return rule.clip if isinstance(rule, Clipped) else None


def name(rule: Drift) -> str:
    """What a drift is called in a picture."""
    if isinstance(rule, LPODrift):
        return "TA-LPO" if rule.temporal else "LPO"
    if isinstance(rule, FormulaDrift):
        return "formula"
    return f"this {type(rule).__name__.removesuffix('Drift')}"


def is_temporal(rule: Drift) -> bool:
    """Whether a drift depends on n/N."""
    return any("n/N" in feature for feature in rule.features)


def figures(discovered: Discovered) -> dict[str, Callable[[], "Figure"]]:
    """What there is to show of a discovered drift: name -> what draws it.

    Raises:
        config.ConfigError: where the objective has no drift.
    """
    beside, over_training = side_by_side(discovered), is_temporal(discovered.drift_rule)
    middle = 0.5 if over_training else None
    drawn: dict[str, Callable[[], Figure]] = {
        "drift": lambda: compare(beside, PENALTY, progress=middle),
        "gradient": lambda: compare(beside, GRADIENT, progress=middle),
    }
    if over_training:
        drawn["drift-over-training"] = lambda: strip(discovered.drift, PENALTY)
        drawn["gradient-over-training"] = lambda: strip(discovered.drift, GRADIENT)
    return drawn


def pictures(discovered: Discovered) -> dict[str, Callable[[], bytes]]:
    """The PNGs of a discovered drift, and of a temporally-aware one a GIF too: file -> what makes its bytes.

    Raises:
        config.ConfigError: where the objective has no drift.
    """
    contents: dict[str, Callable[[], bytes]] = {
        f"{title}.png": functools.partial(png, draw) for title, draw in figures(discovered).items()
    }
    if is_temporal(discovered.drift_rule):
        contents["gradient-over-training.gif"] = lambda: animation(side_by_side(discovered), GRADIENT)
    return contents


def write(discovered: Discovered, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the `pictures` of a discovered drift; see `write_all`."""
    return write_all(folder, pictures(discovered), overwrite=overwrite)


def write_all(folder: Path, contents: Mapping[str, Callable[[], bytes]], *, overwrite: bool = False) -> list[Path]:
    """Write files into a folder, which is made; say which.

    Raises:
        FileExistsError: where one is there already, unless `overwrite`; then nothing is written.
    """
    paths = [folder / file for file in contents]
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} exists already: name another folder, or pass --overwrite to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    for path, make in zip(paths, contents.values()):
        write_atomically(path, make())
    return paths


def _values(drift: DriftFunction, quantity: Quantity) -> Callable[[float], np.ndarray]:
    """The values of a drift over the axes at a fraction n/N. [A, r]."""
    ratio, advantage = (jnp.asarray(each) for each in axes_values())
    at = jax.jit(lambda progress: quantity.values(drift, ratio[None, :], advantage[:, None], progress))
    return lambda progress: np.asarray(at(jnp.float32(progress)))


def _moment(progress: float) -> str:
    return f"n/N = {progress:.2f}"


def _panels(panels: Mapping[str, np.ndarray], title: str, limit: float) -> tuple["Figure", list["AxesImage"], "Text"]:
    """Heat maps in a row with one scale beside them, and a text in the corner that is still empty."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    colors = ["#5c2500", PALETTE["a2c"], "#f4f4f2", PALETTE["discovered"], "#00304d"]
    colormap = LinearSegmentedColormap.from_list("drift", colors)
    right = _LEFT + len(panels) * (_SIDE + _GAP)
    width, height = max(right + _BAR + 34, _NARROWEST), _TOP + _SIDE + _BOTTOM
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)

    def draw(left: float, across: float, values: np.ndarray, ends: tuple[float, float, float, float]) -> "Axes":
        axes = figure.add_axes((left / width, _BOTTOM / height, across / width, _SIDE / height))
        axes.grid(visible=False)
        axes.imshow(
            values,
            cmap=colormap,
            vmin=-limit,
            vmax=limit,
            extent=ends,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
        )
        return axes

    ends = (-END_LOG_RATIO, END_LOG_RATIO, -END_ADVANTAGE, END_ADVANTAGE)
    for column, (panel, values) in enumerate(panels.items()):
        axes = draw(_LEFT + column * (_SIDE + _GAP), _SIDE, values, ends)
        axes.axvline(0.0, color=PALETTE["muted"], linewidth=0.7, linestyle=(0, (2, 2)))
        axes.axhline(0.0, color=PALETTE["muted"], linewidth=0.7, linestyle=(0, (2, 2)))
        axes.set_title(panel, loc="left", fontsize=10, pad=4)
        axes.set_xticks(np.log([0.5, 1.0, 2.0]), ["½", "1", "2"])
        axes.set_yticks([-3.0, 0.0, 3.0], [] if column else ["−3", "A = 0", "3"])
    figure.axes[0].set_xlabel("ratio r, log scale", loc="left")
    images = [axes.images[0] for axes in figure.axes]
    scale = draw(right, _BAR, np.linspace(-limit, limit, 256)[:, None], (0.0, 1.0, -limit, limit))
    scale.set(xticks=[])
    scale.yaxis.tick_right()
    scale.set_yticks([-limit, 0.0, limit], [f"≤ −{limit:g}", "0", f"≥ {limit:g}"])
    figure.text(4 / width, 1 - 14 / height, title, weight="bold")
    return figure, images, figure.text(1 - 4 / width, 6 / height, "", horizontalalignment="right")


def png(draw: Callable[[], "Figure"]) -> bytes:
    """A figure as the bytes of a PNG."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        return chart_style.png(draw())
