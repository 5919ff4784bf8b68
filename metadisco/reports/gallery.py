"""The levels that a curriculum kept: pictures of the best of them, and how far they have shifted from those drawn.

All is read from the run folder: what the run is from its settings, the levels from the snapshots that it left (see
`metadisco.curricula.snapshots`). The base distribution, what new levels are drawn from, is sampled anew.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from markupsafe import Markup

from metadisco.core.files import CheckpointError
from metadisco.core.types import Task
from metadisco.curricula.level_files import Levels, load_levels
from metadisco.curricula.snapshots import find_snapshots, level_keeper
from metadisco.curricula.tasks import TaskDistribution
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.features import level_features
from metadisco.envs.gridworld.rendering import render_image
from metadisco.evaluation import agents_under_test, stats
from metadisco.reports import chart_style, plots
from metadisco.reports.markup import NOTHING, grid, missing, note, part, stack
from metadisco.reports.sections import QUANTILES, chart, png
from metadisco.reports.tables import decimal

NUM_SHOWN = 6  # levels in a row of pictures
MAX_ROWS = 5  # moments with pictures
MAX_MOMENTS = 12  # moments in the charts
NUM_BASE = 2000  # draws from the base distribution
CELL_SIZE = 16  # pixels


class Feature(NamedTuple):
    """What is told of levels."""

    title: str
    unit: str
    logarithmic: bool = False


FEATURES = {
    "num_free": Feature("size", "free cells"),
    "max_steps": Feature("episode length", "steps", logarithmic=True),
    "num_objects": Feature("objects", "number"),
    "reward_distance": Feature("distance to the nearest reward", "steps"),
    "lifetime": Feature("lifetime", "agent updates", logarithmic=True),
}
Values = dict[str, np.ndarray]  # feature -> [n]; an infinite distance is that of no reward in reach


@dataclass(frozen=True, eq=False)
class Moment:
    """The levels that were kept after so many meta-steps, best score first."""

    step: int
    tasks: Task  # NumPy arrays [n, ...]
    score: np.ndarray  # [n]
    age: np.ndarray  # [n] meta-steps since they entered
    num_plays: np.ndarray  # [n]

    @classmethod
    def read(cls, step: int, levels: Levels) -> "Moment":
        """Take what is shown from a level buffer."""
        slots, buffer = levels.ranked(), levels.buffer
        score, age, num_plays = (
            np.asarray(values)[slots] for values in (buffer.score, buffer.clock - buffer.born, buffer.num_plays)
        )
        return cls(step, levels.played(), score, age, num_plays)


def kept_levels(folder: Path, trainer: Mapping[str, Any]) -> Markup:
    """The gallery of a run, and the shift of its levels.

    Nothing for a curriculum that keeps no levels, or for a run on several domains, which leaves none.

    Args:
        folder: of the run.
        trainer: its settings, for `config.from_data`.

    Raises:
        config.ConfigError: where the settings name something that is not known here.
    """
    domains = agents_under_test.decoded(trainer).domains
    if len(domains) > 1:
        return NOTHING
    curriculum, env = domains[0].curriculum, domains[0].inner.env
    keeper = level_keeper(curriculum)
    if keeper is None:
        return NOTHING
    if not isinstance(env, GridWorld):
        return missing(f"Levels are shown of grid worlds only, and this run is on {type(env).__name__}.")
    moments, num_damaged = _read_moments(folder)
    text = f"{num_damaged} of the snapshots in levels/ cannot be read and are left out."
    damaged = [missing(text)] if num_damaged else []
    if not moments:
        return stack(*damaged or [missing("No snapshot of the kept levels yet (levels/).")])
    return stack(_gallery(env, moments), _shift(env, keeper.tasks, moments), *damaged)


def _read_moments(folder: Path) -> tuple[list[Moment], int]:
    """The snapshots to show, evenly over the run, and how many of them cannot be read."""
    moments, num_damaged = [], 0
    for step, path in spread(list(find_snapshots(folder).items()), MAX_MOMENTS):
        try:
            moments.append(Moment.read(step, load_levels(path)))
        except CheckpointError:
            num_damaged += 1
    return moments, num_damaged


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most so many of the items, evenly, the first and the last among them."""
    return [items[place] for place in chart_style.evenly(len(items), count)]


def _gallery(env: GridWorld, moments: Sequence[Moment]) -> Markup:
    """Rows of pictures, one row for each moment."""
    shown = spread(moments, MAX_ROWS)
    images = [[_picture(env, moment, i) for i in range(min(NUM_SHOWN, len(moment.score)))] for moment in shown]
    widest = max(image.shape[1] for row in images for image in row)
    rows = []
    for moment, row in zip(shown, images):
        figures = [_figure(moment, i, image, widest) for i, image in enumerate(row)]
        title = f"After meta-step {moment.step:,}: the {len(row)} best of {len(moment.score):,} levels"
        rows.append(part("gallery", title, figures))
    text = (
        "Score: of the latest life that ended on the level; the curriculum keeps the levels with the highest scores. "
        "Lifetime in agent updates, episodes in steps; age in meta-steps since the level was first kept; plays: lives "
        "that ended on it. Cells of all pictures are equally large. Blue: where the agent starts. Green objects reward "
        "and red ones punish, large ones more; the darker the rim, the likelier the object ends the episode."
    )
    return stack(note(text), *rows)


def _picture(env: GridWorld, moment: Moment, i: int) -> np.ndarray:
    return render_image(env, jax.tree.map(lambda leaf: leaf[i], moment.tasks.level), cell_size=CELL_SIZE)


def _figure(moment: Moment, i: int, image: np.ndarray, widest: int) -> Markup:
    """A picture with its caption; narrower than its place where the level is small."""
    lifetime, max_steps = int(moment.tasks.lifetime[i]), int(moment.tasks.level.max_steps[i])
    age, num_plays = int(moment.age[i]), int(moment.num_plays[i])
    plays = "1 play" if num_plays == 1 else f"{num_plays} plays"
    spoken = f"Level {i + 1} of those kept after meta-step {moment.step}."
    size = {"style": f"width:{image.shape[1] / widest:.1%}"}
    texts = [f"lifetime {lifetime}", f"{max_steps} steps", f"age {age}, {plays}"]
    return part("picture", png(image), spoken, f"score {decimal(float(moment.score[i]))}", texts, size)


def _shift(env: GridWorld, tasks: TaskDistribution, moments: Sequence[Moment]) -> Markup:
    """Charts of features against meta-steps, and a table of how far the last kept levels are from the base."""
    base, *kept = task_features(env, [draw_tasks(tasks), *(moment.tasks for moment in moments)])
    steps, last_step = np.array([moment.step for moment in moments]), moments[-1].step
    draw = functools.partial(plots.distribution_shift, steps, last_step=last_step)
    charts = []

    def add(name: str, title: str, bands: np.ndarray, base: np.ndarray | None, logarithmic: bool = False) -> None:
        figure = draw(bands, base, y_label=title, logarithmic=logarithmic)
        first, last = bands[len(bands) // 2][[0, -1]]
        spoken = f"{title} of kept levels against meta-steps, from {first:.3g} to {last:.3g} in the middle"
        spoken += "." if base is None else f"; {base[len(base) // 2]:.3g} in the base distribution."
        charts.append(chart(figure, f"shift-{name}", spoken, ""))

    for name in base:
        feature = FEATURES[name]
        bands = np.stack([_quantiles(each[name]) for each in kept], axis=1)
        title = f"{feature.title}, {feature.unit}"
        add(name, title, bands, _quantiles(base[name]), feature.logarithmic)
        if not all(np.isfinite(each[name]).all() for each in (base, *kept)):
            shares = np.array([[_unreachable(each[name]) for each in kept]])
            add("unreachable", "no reward in reach, % of levels", shares, np.array([_unreachable(base[name])]))
    add("score", "score", np.stack([_quantiles(moment.score) for moment in moments], axis=1), None)
    add("age", "age, meta-steps", np.stack([_quantiles(moment.age) for moment in moments], axis=1), None)
    text = (
        "Dots: median of the levels that were kept; thick and thin bars: the middle 50% and 80% of them. Dashed line, "
        f"gray area and dotted lines: the same of {NUM_BASE:,} draws from the base distribution, from which new levels "
        "come."
    )
    title = part("heading", "How they differ from the base distribution")
    return stack(title, note(text), grid(charts), _shift_table(base, kept[-1], moments[-1]))


def _shift_table(base: Values, last: Values, moment: Moment) -> Markup:
    """Kolmogorov-Smirnov distances between the base and the last levels, with what chance would give."""
    num_kept = len(moment.score)
    critical = stats.ks_critical(num_kept, NUM_BASE)
    rows = []
    for name in base:
        distance = stats.ks_distance(base[name], last[name])
        cells = (_median(base[name]), _median(last[name]), decimal(distance), "yes" if distance > critical else "no")
        rows.append((FEATURES[name].title, cells))
    text = (
        "KS distance: two-sample Kolmogorov-Smirnov, the largest difference of the two distribution functions, from 0 "
        f"to 1. Two samples of one distribution, of {num_kept:,} and {NUM_BASE:,} independent levels, would be more "
        f"than {decimal(critical)} apart in at most 5% of all cases, for each feature by itself; mutated levels are "
        "not independent. Distance to the nearest reward: steps of the shortest walk around walls from the start to "
        "an object with a positive reward; where none is in reach it counts as longer than any other here, and is left "
        "out of its chart."
    )
    return stack(part("features", f"{moment.step:,}", decimal(critical), rows), note(text))


def draw_tasks(tasks: TaskDistribution) -> Task:
    """`NUM_BASE` draws, always the same ones, as NumPy arrays."""
    keys = jax.random.split(jax.random.key(0), NUM_BASE)
    return jax.device_get(jax.jit(jax.vmap(tasks.sample))(keys))


def task_features(env: GridWorld, groups: Sequence[Task]) -> list[Values]:
    """Features of each group of tasks, without those that these levels do not have.

    Args:
        env: of the levels.
        groups: NumPy arrays with leading axis n, which may be another for each group.
    """
    levels = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(group.level for group in groups))
    describe = jax.jit(jax.vmap(functools.partial(level_features, env)))  # of all at once: compiling takes longest
    values = vars(jax.device_get(describe(levels)))
    values = {**values, "lifetime": np.concatenate([group.lifetime for group in groups])}
    ends = np.cumsum([len(group.lifetime) for group in groups])[:-1]
    parts = {
        name: np.split(values[name].astype(np.float64), ends) for name in FEATURES if not np.isnan(values[name]).any()
    }
    return [{name: part[i] for name, part in parts.items()} for i in range(len(groups))]


def _quantiles(values: np.ndarray) -> np.ndarray:
    """Of the finite values; NaN where there are none. [5]."""
    finite = values[np.isfinite(values)]
    return np.quantile(finite, QUANTILES) if finite.size else np.full(len(QUANTILES), np.nan)


def _unreachable(distances: np.ndarray) -> float:
    """Share of levels without a reward in reach, in percent."""
    return 100.0 * float(np.mean(np.isinf(distances)))


def _median(values: np.ndarray) -> str:
    """The median of the finite values, as a number to read."""
    middle = _quantiles(values)[len(QUANTILES) // 2]
    return f"{middle:g}" if np.isfinite(middle) else "–"
