"""Sections of a report with pictures: training and meta-test as HTML with inline charts and images.

Each section is a function of the log or of `metadisco.evaluation.results.Results`. It returns a piece of a page, a
sentence that says what is missing, or nothing where a run of this kind has no such section.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from markupsafe import Markup

from metadisco.core.score_table import HAND_WRITTEN, by_strength, counted
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.rendering import render_image
from metadisco.evaluation import stats, suites
from metadisco.evaluation.catalog import UPPER_ANCHORS
from metadisco.evaluation.results import Evaluation, Results, learning_agents, upper_anchor
from metadisco.reports import chart_style, plots
from metadisco.reports.markup import NOTHING, grid, missing, note, paragraph, part, stack
from metadisco.reports.plots import learning_curve
from metadisco.reports.svg import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
CELL_SIZE = 32  # pixels, of the pictures of levels
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
PANELS = {  # metric -> what its chart is called
    "pi_hat_scale": "size of π̂ (root mean square)",
    "pi_hat": "mean of π̂",
    "entropy": "entropy of the policy, nats",
    "reward": "reward per step while learning",
    "prediction_entropy": "entropy of the prediction y, nats",
    "prediction_kl": "KL(y ‖ ŷ), nats",
    "kl": "KL(π_old ‖ π) within an update, nats",
    "drift": "mean of the drift D",
    "value_loss": "half the squared error of the value",
    "policy_step": "step of the policy, times the optimizer's",
    "prediction_step": "step of the value, times the optimizer's",
    "entropy_weight": "weight of the entropy bonus",
    "gae_lambda": "λ of advantages and returns",
    "gamma": "discount γ",
    "loss_scale": "scale of the policy's loss",
    "value_weight": "weight of the value's loss",
    "drift_weight": "factor of the drift D",
    "advantage_offset": "share of the mean advantage that is subtracted",
    "bonus": "bonus of an observation met once",
    "bonus_power": "power by which the bonus falls with visits",
}


def training(rows: Sequence[Row], seconds: float) -> Markup:
    """Validation score and fitness against meta-steps."""
    if not rows:
        return missing("No meta-step is logged yet.")
    updates = sum(number(row.get("agent_updates"), 0.0) for row in rows)
    text = f"{counted(rows[-1]['step'], 'meta-step')} in {seconds / 60:.1f} min, "
    text += counted(round(updates), "agent update")
    text += f" ({updates / seconds:,.0f} per second)." if seconds > 0 else "."
    lost = np.mean([1.0 - number(row.get("finite_fraction"), 1.0) for row in rows])
    if lost > 0:
        text += f" {lost:.2%} of the candidates had no finite fitness and were left out."
    charts = []
    steps, values, times = _series(rows, "validation/iqm")
    if len(steps):
        beside, line = validated_beside(rows)
        figure = plots.meta_training(steps, values, times, y_label="IQM on validation levels", a2c=line, agent=beside)
        spoken = f"Validation IQM against meta-steps, from {values[0]:.2f} to {values[-1]:.2f}."
        spoken += f" {chart_style.name(beside)}: {line:.2f}." if line is not None else ""
        caption = "On levels kept out of training. Settings may be tuned on them, so the verdict rests on others."
        charts.append(chart(figure, "validation", spoken, caption))
    steps, values, times = _series(rows, "fitness")
    if len(steps):
        figure = plots.meta_training(steps, values, times, y_label="mean fitness of the population", every_step=True)
        spoken = f"Mean fitness of the population against meta-steps, from {values[0]:.2f} to {values[-1]:.2f}."
        caption = "Raw fitness: new levels and new candidates at each meta-step, hence the noise."
        charts.append(chart(figure, "fitness", spoken, caption))
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith("fitness/")):
        steps, values, times = _series(rows, name)
        if len(steps):
            where = name.partition("/")[2]
            figure = plots.meta_training(steps, values, times, y_label=f"mean return on {where}", every_step=True)
            spoken = f"Mean return on {where} against meta-steps, from {values[0]:.2f} to {values[-1]:.2f}."
            charts.append(chart(figure, f"fitness-{len(charts)}", spoken, f"{where}, one of the environments."))
    return stack(paragraph(text), grid(charts) if charts else missing("No finite fitness is logged."))


def distribution(results: Results) -> Markup:
    """How scores are spread over levels; the first suite open, the others folded."""
    blocks: list[tuple[Markup, Markup]] = []
    for suite, agents in _learning_agents(results):
        scores = {agent: each.scores[-1] for agent, each in agents.items() if np.isfinite(each.scores[-1]).all()}
        charts = []
        if scores:
            medians = ", ".join(f"{chart_style.name(agent)} {np.median(each):.2f}" for agent, each in scores.items())
            spoken = f"Share of lives that score more than a threshold. Medians: {medians}."
            caption = "The higher the curve the better."
            if _scaled(agents):
                one = UPPER_ANCHORS[upper_anchor(results[suite])]
                caption += f" Dotted: the random policy at 0 and {one} at 1."
            charts.append(chart(plots.profile(scores), f"profile-{len(blocks)}", spoken, caption))
        beside = baseline({agent: {"iqm": float(stats.iqm(each))} for agent, each in scores.items()})
        if beside and "discovered" in scores and scores[beside].shape[0] > 1:  # one level would be one point
            theirs, ours = (np.mean(scores[agent], axis=1) for agent in (beside, "discovered"))
            spoken = f"Discovered objective ahead of {chart_style.name(beside)} on "
            spoken += f"{np.sum(ours > theirs)} of {len(ours)} levels."
            caption = "A point is a level, mean of its seeds; above the diagonal the discovered objective is ahead."
            if min(theirs.min(), ours.min()) < plots.LOWEST or max(theirs.max(), ours.max()) > plots.HIGHEST:
                caption += f" Scores outside {plots.LOWEST:g} to {plots.HIGHEST:g} are drawn at the edge."
            charts.append(chart(plots.duel(theirs, ours, agent=beside), f"duel-{len(blocks)}", spoken, caption))
        blocks.append((_title(agents), grid(charts) if charts else missing(f"{suite} has scores that are not finite.")))
    if not blocks:
        return no_curves()
    return stack(paragraph(blocks[0][0]), blocks[0][1], *(part("folded", *block) for block in blocks[1:]))


def learning(results: Results) -> Markup:
    """Learning curves of agents, one chart for each suite."""
    charts: list[Markup] = []
    for suite, agents in _learning_agents(results):
        curves = {agent: learning_curve(each) for agent, each in agents.items()}
        lifetime = next(iter(agents.values())).lifetime
        ends = ", ".join(f"{chart_style.name(agent)} {curve.middle[-1]:.2f}" for agent, curve in curves.items())
        spoken = f"Learning curves of agents on {suite}. At the end: {ends}."
        anchor = upper_anchor(results[suite]) if _scaled(agents) else None
        figure = plots.learning(curves, lifetime=lifetime, upper_anchor=anchor)
        charts.append(chart(figure, f"learning-{len(charts)}", spoken, _title(agents)))
    text = "Each agent is trained from scratch. IQM over levels and seeds, with its 95% bootstrap interval."
    return stack(note(text), grid(charts)) if charts else no_curves()


def history(results: Results, suite: str | None) -> Markup:
    """Outputs of the objective and statistics of the policy against n/N, on one suite and its other lifetimes."""
    by_suite = dict(_learning_agents(results))
    if suite not in by_suite or "discovered" not in by_suite[suite]:
        return no_curves()
    agents = by_suite[suite]
    others = [
        each["discovered"]
        for name, each in by_suite.items()
        if name != suite and suites.same_levels(name, suite) and "discovered" in each
    ]
    charts, idle = [], _says_nothing(agents["discovered"])
    for metric, label in PANELS.items():
        if idle and metric.startswith("prediction_"):
            continue
        lines = {agent: _quantiles(each, metric) for agent, each in agents.items() if metric in each.metrics}
        if "discovered" not in lines:
            continue
        dashed = [("discovered", *_quantiles(each, metric)) for each in others if metric in each.metrics]
        medians = [(agent, x, bands[2]) for agent, x, bands in dashed]
        figure = plots.history(lines, medians, y_label=label, reference=_uniform(agents["discovered"], metric))
        start, end = lines["discovered"][1][2][[0, -1]]
        charts.append(
            chart(figure, f"history-{metric}", f"{label} over the lifetime, median from {start:.3g} to {end:.3g}.", "")
        )
    if not charts:
        return missing("The evaluation kept no metrics of the objective.")
    meaning = "Policy and drift while agents learn."
    if "policy_step" in agents["discovered"].metrics:
        meaning = (
            "What the schedule says, update by update, and what becomes of the policy. Steps are in units of those "
            "that the optimizer proposes."
        )
    elif "pi_hat" in agents["discovered"].metrics:
        meaning = (
            "π̂ takes the place of an advantage: its sign says whether to reinforce "
            "an action, its size how much. y is the agent's prediction, ŷ what the objective says that it should have "
            "been."
        )
        if idle:
            meaning += " Here y stays uniform all life long, so nothing is made of it, and it is not drawn."
    text = (
        f"Median over lives on {suite}, lifetime {agents['discovered'].lifetime}, with the middle 50% and 80% of them."
    )
    if others:
        counts = [f" on {len(each.names)} levels" if len(each.names) > 1 else "" for each in others]
        dashes = " and ".join(f"lifetime {each.lifetime}{count}" for each, count in zip(others, counts))
        text += f" Dashed: the discovered objective at {dashes}."
    return stack(paragraph(meaning), note(text), grid(charts))


def levels(results: Results, suite: str | None) -> Markup:
    """Pictures of the first levels of a suite, with the policies learnt on them; nothing on other environments."""
    agents = results.get(suite or "", {})
    if "discovered" not in agents:
        return no_curves()
    if upper_anchor(agents) != "optimal":
        return NOTHING
    evaluation = agents["discovered"]
    tables = evaluation.agent_params.get("logits")
    if tables is None or tables.ndim != 3:
        return missing("Policies are drawn for tabular agents only.")
    shown = len(tables)
    test_set = suites.suite(evaluation.suite.partition("@")[0]).build(num_levels=shown)
    env = test_set.env
    if not isinstance(env, GridWorld):
        return missing("Only grid worlds are drawn.")
    num_states = env.num_cells * 2**env.num_objects
    if test_set.names != evaluation.names[:shown] or tables.shape[1] != num_states:
        return missing(f"The levels of {evaluation.suite} are no longer those of the evaluation.")
    pictures = []
    for i in range(shown):
        level = jax.device_get(jax.tree.map(lambda leaf: leaf[i], test_set.tasks.level))  # noqa: B023
        subset = sum(1 << k for k in np.flatnonzero(level.object_cell >= 0))
        logits = tables[i].reshape(-1, env.num_cells, tables.shape[2])[subset]
        prob = np.exp(logits - logits.max(axis=1, keepdims=True))
        image = render_image(env, level, policy=prob / prob.sum(axis=1, keepdims=True), cell_size=CELL_SIZE)
        name = evaluation.names[i]
        scores = [
            f"{chart_style.name(agent)} {each.scores[-1, i, 0]:.2f}"
            for agent, each in agents.items()
            if not each.is_exact
        ]
        spoken = f"Level {name} with the policy that the discovered objective taught."
        size = {"width": image.shape[1], "height": image.shape[0]}
        pictures.append(part("picture", png(image), spoken, name, [" · ".join(scores)], size))
    key = (
        "Blue: where the agent starts. Green objects reward and red ones punish, large ones more; the darker the rim, "
        "the likelier the object ends the episode. Arrows: how likely each move is at the end of the lifetime with all "
        "objects there; dot: staying. Where the agent has learnt nothing, arrows are equal. Scores: of the agent shown."
    )
    return stack(note(key), part("grid", pictures, "levels"))


def _scaled(agents: Mapping[str, Evaluation]) -> bool:
    return all(each.is_scaled for each in agents.values())


def chart(figure: "Figure", identifier: str, spoken: str, caption: str | Markup) -> Markup:
    """A chart with its caption; `spoken` is for readers who cannot see it."""
    return part("chart", to_svg(figure, identifier, spoken), caption)


def no_curves() -> Markup:
    """Say that there is nothing to draw."""
    return missing("Nothing to show: the run has no curves of a meta-test (curves.npz).")


def number(value: Any, otherwise: float = math.nan) -> float:
    """A JSON value as a number; what is not a finite one counts as `otherwise`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else otherwise


def baseline(agents: Mapping[str, Row]) -> str | None:
    """The yardstick: the strongest of the hand-written objectives of a suite, or else any other agent."""
    others = [agent for agent in agents if agent not in ("random", *UPPER_ANCHORS, "discovered")]
    return next(iter([*by_strength(agents), *others]), None)


def validated_beside(rows: Sequence[Row]) -> tuple[str, float | None]:
    """The strongest hand-written objective on the validation levels, and its IQM; None where there is none."""
    found = {agent: _series(rows, f"validation/{agent}_iqm")[1] for agent in HAND_WRITTEN}
    ends = {agent: {"iqm": float(values[-1])} for agent, values in found.items() if len(values)}
    best = next(iter(by_strength(ends)), None)
    return ("a2c", None) if best is None else (best, ends[best]["iqm"])


def _series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Meta-steps, values and seconds of the rows that have a finite value."""
    kept = [(row["step"], number(row.get(name)), number(row.get("seconds"))) for row in rows]
    columns = np.array([entry for entry in kept if math.isfinite(entry[1])], np.float64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def _learning_agents(results: Results) -> list[tuple[str, dict[str, Evaluation]]]:
    """The agents that learn, by suite."""
    return [(suite, learning_agents(agents)) for suite, agents in results.items() if learning_agents(agents)]


def _title(agents: Mapping[str, Evaluation]) -> Markup:
    """Suite, levels and lifetime."""
    each = next(iter(agents.values()))
    where = "" if len(each.names) == 1 else f"{len(each.names)} levels, "
    return part("suite", each.suite, f"{where}lifetime {each.lifetime} agent updates")


def _quantiles(evaluation: Evaluation, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the segments [P] and quantiles over lives [5, P]; lives without a finite value do not count."""
    values = evaluation.metrics[metric].reshape(len(evaluation.fractions) - 1, -1).astype(np.float64)
    rows = [row[np.isfinite(row)] for row in values]
    bands = [np.quantile(row, QUANTILES) if row.size else np.full(len(QUANTILES), np.nan) for row in rows]
    return (evaluation.fractions[1:] + evaluation.fractions[:-1]) / 2, np.stack(bands, axis=1)


def _says_nothing(evaluation: Evaluation) -> bool:
    """Whether the prediction y of all agents stays as good as uniform: an objective that makes no use of it."""
    entropy, most = evaluation.metrics.get("prediction_entropy"), _uniform(evaluation, "prediction_entropy")
    if entropy is None:
        return False
    highest = float(np.nanmax(entropy)) if most is None else most[0]
    return bool(np.nanmin(entropy) > (1 - 1e-3) * highest)


def _uniform(evaluation: Evaluation, metric: str) -> tuple[float, str] | None:
    """The largest entropy there is, where the heads of the kept agents tell."""
    head = {"entropy": "logits", "prediction_entropy": "y"}.get(metric)
    values = evaluation.agent_params.get(head or "")
    return None if values is None else (math.log(values.shape[-1]), "uniform")


def png(image: np.ndarray) -> str:
    """An image as a data URI."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
