"""What is kept of a comparison: `results.json`, `table.md` and figures, in a folder that is complete or not there.

The JSON has what a reader needs to interpret the numbers: how the objectives differ, how each agent was trained, how
each baseline was tuned and on what, and where everything comes from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config, score_table
from metadisco.core.files import CheckpointError, write_folder
from metadisco.core.provenance import provenance
from metadisco.core.score_table import MEASURES, counted
from metadisco.evaluation import results, suites
from metadisco.evaluation.meta_test import Comparison, improvement_table, trained_lifetimes
from metadisco.evaluation.results import Results
from metadisco.lives import tuned
from metadisco.lives.life import InnerLoop
from metadisco.reports import chart_style, plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_VERSION = 1
TABLE = "results.json"


def document(named: Mapping[str, Discovered], comparison: Comparison, **details: Any) -> dict[str, Any]:
    """All that is kept of a comparison, as JSON.

    Args:
        named: the checkpoints.
        comparison: of them.
        **details: for its provenance, such as the seed.

    Returns:
        `scores` (suite -> agent -> row, as in `evaluation.json`), `improvement` (suite -> agent -> other agent),
        `differences`, `agents` (their inner loops), `baselines` (how each was tuned), `checkpoints` and `provenance`.
    """
    return {
        "format_version": FORMAT_VERSION,
        "scores": results.table(comparison.results),
        "improvement": {suite: results.improvement(agents) for suite, agents in comparison.results.items()},
        "differences": comparison.differences,
        "agents": {
            test.name: {agent.name: _settings(agent.inner) for agent in test.agents} for test in comparison.tests
        },
        "baselines": {
            test.name: {agent.name: tuning(test.name, agent.name) for agent in test.agents if agent.is_hand_written}
            for test in comparison.tests
        },
        "checkpoints": {
            name: {"trained_lifetimes": trained_lifetimes(each)}
            | {key: value for key, value in each.provenance.items() if key != "trainer"}
            for name, each in named.items()
        },
        "provenance": provenance(**details),
    }


def _settings(inner: InnerLoop) -> dict[str, Any]:
    """How an agent lives and learns, as JSON."""
    parts = {"torso": inner.torso, "learner": inner.learner, "objective": inner.objective}
    sizes = {"num_workers": inner.num_workers, "num_steps": inner.num_steps}
    return sizes | {name: config.to_data(part) for name, part in parts.items()}


def tuning(suite: str, baseline: str) -> dict[str, Any]:
    """How a baseline was tuned that competes on a suite, `NAME` or `NAME@LIFETIME`.

    Returns:
        The grid and what was chosen, where a grid is kept; a note; and whether the levels of tuning were others.
    """
    name = suite.partition("@")[0]
    if suites.suite(name).inner is not None:
        return {"note": tuned.FOR_NETWORKS_NOTE, "grid": None, "levels_are_separate": False}
    record = tuned.TUNED_FOR_TABLES[baseline]
    are_same = any(suites.same_levels(name, each) for each in record.suites)
    return asdict(record) | {"levels_are_separate": not are_same}


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written later.

    Raises:
        CheckpointError: where it is not empty, unless it is an older comparison that may be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / TABLE).is_file():
        raise CheckpointError(f"{folder} is not a comparison (it has no {TABLE}): name another folder for --out.")
    if not overwrite:
        raise CheckpointError(f"{folder} exists already: name another folder, or pass --overwrite to replace it.")


def write(folder: Path, document: Mapping[str, Any], outcome: Results, *, overwrite: bool = False) -> None:
    """Write a comparison: `results.json`, `table.md` and figures of each suite as PNG; complete or not at all.

    Raises:
        CheckpointError: as `check_folder`, or where it cannot be written.
    """
    folder = folder.absolute()
    check_folder(folder, overwrite=overwrite)
    pictures = {
        f"{kind}-{suite.replace(':', '-')}.png": chart_style.png(figure)
        for suite, agents in outcome.items()
        for kind, figure in figures(agents, document["scores"][suite]).items()
    }
    contents = {TABLE: results.to_json(document), "table.md": markdown(document, list(pictures)).encode()}
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    write_folder(folder, contents | pictures, marker=TABLE, overwrite=overwrite)


def figures(agents: Mapping[str, results.Evaluation], rows: Mapping[str, Any]) -> dict[str, "Figure"]:
    """Charts of one suite by name: aggregate statistics, performance profiles and learning curves."""
    trained = results.learning_agents(agents)
    if not trained:
        return {}
    curves = {agent: plots.learning_curve(each) for agent, each in trained.items()}
    lifetime = next(iter(trained.values())).lifetime
    if not results.are_scaled(rows):
        return {"learning": plots.learning(curves, lifetime=lifetime, upper_anchor=None)}
    return {
        "aggregates": plots.aggregates({agent: rows[agent] for agent in trained}, MEASURES),
        "profiles": plots.profile({agent: each.scores[-1] for agent, each in trained.items()}),
        "learning": plots.learning(curves, lifetime=lifetime, upper_anchor=results.upper_anchor(agents)),
    }


def markdown(document: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The tables of a comparison as a Markdown page."""
    key = "Higher is better, but for the optimality gap (↓). A level's score is the mean of its seeds."
    lines = ["# Comparison", key, *results.remarks(document["scores"])]
    lines += [f"**{sentence}**" for sentence in document["differences"]]
    for suite, agents in document["scores"].items():
        first = next(iter(agents.values()))
        about = f"{counted(first['num_tasks'], 'level')}, {counted(first['num_seeds'], 'seed')} each, "
        about += f"lifetime {counted(first['lifetime'], 'update')}"
        lines.append(
            f"## {suite}\n\nNormalised scores with 95% intervals from resampling {first['resampled']}: {about}."
        )
        lines.append(score_table.markdown(score_table.score_table(agents, called=chart_style.name)))
        improvement = improvement_table(document["improvement"][suite])
        if improvement.rows:
            lines.append("Probability that a run of the first scores more than one of the second on the same level:")
            lines.append(score_table.markdown(improvement))
        lines.extend(f"![{each}]({each})" for each in pictures if each.endswith(f"-{suite}.png"))
        for agent, record in document["baselines"][suite].items():
            lines.append(f"Tuning of {agent}: {_tuning_in_words(record)}.")
    return "\n\n".join(lines) + "\n"


def _tuning_in_words(record: Mapping[str, Any]) -> str:
    if record["grid"] is None:
        return record["note"]
    grid = "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in record["grid"].items())
    where = f"{record['num_levels']} levels of {' and '.join(record['suites'])}, which are "
    where += "none of these" if record["levels_are_separate"] else "among these"
    chosen = ", ".join(f"{name} {value:g}" for name, value in record["chosen"].items())
    lifetimes = ", ".join(map(str, record["lifetimes"]))
    return f"{record['num_tried']} settings of {grid}; on {where}, at lifetimes {lifetimes}; {record['note']}: {chosen}"
