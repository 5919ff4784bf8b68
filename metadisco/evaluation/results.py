"""Results of a meta-test: learning curves, their table, and the two files that they are kept in.

`evaluation.json` is the table. `curves.npz` has everything, so that a report can be written later; no pickle is in it.
"""

import io
import itertools
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from metadisco.core.files import parse_json, write_atomically
from metadisco.core.score_table import Table, plain, score_table
from metadisco.evaluation import stats
from metadisco.evaluation.catalog import UPPER_ANCHORS

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Returns and scores of one agent on a test set of N tasks with S seeds, at P + 1 points of its lifetime."""

    suite: str
    lifetime: int  # agent updates
    env_steps: int  # of one life, all workers together; 0 for an exact return
    is_exact: bool  # an expected return of a policy, not of trained agents
    names: tuple[str, ...]  # [N] tasks
    fractions: np.ndarray  # [P + 1] of the lifetime, from 0 to 1
    returns: np.ndarray  # [P + 1, N, S] mean episode return
    scores: np.ndarray  # [P + 1, N, S] 0 for the random policy, 1 for the upper anchor
    metrics: dict[str, np.ndarray]  # name -> [P, N, S] means over the updates between two points
    agent_params: dict[str, np.ndarray]  # path in the tree -> [some first tasks, ...] at the end, first seed
    is_scaled: bool = True  # whether scores have a scale; else they are returns


class Results(dict[str, dict[str, Evaluation]]):
    """Results of a meta-test: suite -> agent -> evaluation. It shows itself as tables of scores.

    Example:
        >>> Results().records()
        []
    """

    def records(self) -> list[dict[str, Any]]:
        """One row for each agent on each suite, as `summarize` makes it, with `suite` and `agent` in front."""
        return [
            {"suite": suite, "agent": agent, **row}
            for suite, agents in table(self).items()
            for agent, row in agents.items()
        ]

    def to_frame(self) -> Any:
        """`records` as a pandas DataFrame.

        Raises:
            ImportError: where pandas is not installed; metadisco itself does not need it.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("Results.to_frame needs pandas: pip install pandas, or take Results.records()") from error
        return pandas.DataFrame(self.records())

    def __repr__(self) -> str:
        tables = [f"{suite}\n{plain(_scores(agents))}" for suite, agents in table(self).items()]
        return "\n\n".join(tables) or "no results"

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        return "\n".join(f"<h4>{escape(suite)}</h4>\n{_as_html(_scores(rows))}" for suite, rows in table(self).items())


def _scores(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    return score_table(rows, ("iqm", "cvar", "optimality_gap", "mean_score", "mean_return"))


def _as_html(table: Table) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(table.head, "th") + "".join(line(row, "td") for row in table.rows) + "</table>"


def summarize(evaluation: Evaluation) -> dict[str, Any]:
    """One row of the table: scores at the end of the lifetime.

    Returns:
        `iqm`, `optimality_gap`, `cvar` (mean of the worst tenth of the levels) and `mean_score` of the normalized
        scores, each with the ends of its 95% interval as `NAME_low` and `NAME_high`, and what they were computed from.
        `resampled` says what was resampled for the intervals, see `metadisco.evaluation.stats.bootstrap`. Where scores
        have no scale they are returns, `is_scaled` is false, and there is no gap to an optimum.
    """
    returns, scores = evaluation.returns[-1], evaluation.scores[-1]
    row: dict[str, Any] = {}
    for name, interval in stats.aggregates(scores).items():
        if evaluation.is_scaled or name != "optimality_gap":
            row |= {name: interval.point, f"{name}_low": interval.low, f"{name}_high": interval.high}
    if not evaluation.is_scaled:
        row["is_scaled"] = False
    return row | {
        "mean_return": float(np.mean(returns)),
        "num_tasks": scores.shape[0],
        "num_seeds": scores.shape[1],
        "lifetime": evaluation.lifetime,
        "env_steps": evaluation.env_steps,
        "is_exact": evaluation.is_exact,
        "resampled": "seeds within tasks" if scores.shape[1] > 1 else "tasks",
    }


def learning_agents(agents: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """The agents of a suite that learn: without the two anchors of its scores."""
    return {agent: each for agent, each in agents.items() if not each.is_exact}


def improvement(agents: Mapping[str, Evaluation]) -> dict[str, dict[str, dict[str, float]]]:
    """Probability of improvement of every agent over every other, on a task of the suite.

    Returns:
        Agent -> every other agent that learns -> `probability`, with the ends of its 95% interval as `low` and `high`.
    """
    ends = {agent: each.scores[-1] for agent, each in learning_agents(agents).items()}
    found: dict[str, dict[str, dict[str, float]]] = {agent: {} for agent in ends}
    for first, second in itertools.combinations(ends, 2):
        each = stats.improvement_interval(ends[first], ends[second])
        found[first][second] = {"probability": each.point, "low": each.low, "high": each.high}
        found[second][first] = {"probability": 1.0 - each.point, "low": 1.0 - each.high, "high": 1.0 - each.low}
    return found


def remarks(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """What a reader of tables has to know, each said once: scores above 1, and intervals that have no width.

    Example:
        >>> remarks({"grid-tiny": {"a2c": {"iqm": 0.9, "iqm_low": 0.8, "iqm_high": 1.0}}})
        []
    """
    told: list[str] = []
    lone: list[str] = []
    alike: list[str] = []
    above: set[str] = set()
    for suite, agents in scores.items():
        for agent, row in learning_rows(agents).items():
            low, high = row.get("iqm_low"), row.get("iqm_high")
            if low is not None and low == high:
                is_lone = row.get("num_tasks") == row.get("num_seeds") == 1
                (lone if is_lone else alike).append(f"{agent} on {suite}")
            if are_scaled(agents) and any(
                isinstance(row.get(name), int | float) and row[name] > 1 for name in ("iqm", "iqm_high", "mean_score")
            ):
                above.add(upper_anchor(agents))
    if "optimal" in above:
        told.append(
            "Scores above 1 are the luck of the evaluation episodes: 1 is the expected return of the optimum, and the "
            "return of an agent is the mean of few episodes."
        )
    if above - {"optimal"}:
        told.append("Scores above 1 are above what has the score 1 here: PPO at its usual budget, or a human.")
    if lone:
        told.append(f"One life has no interval: {', '.join(lone)}. More seeds give one.")
    if alike:
        told.append(
            f"An interval of zero width means that all lives ended alike ({', '.join(alike)}). It is about other seeds "
            "here, and says nothing of other levels or environments."
        )
    return told


def learning_rows(agents: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rows of a suite that are measured: without the two anchors of its scores."""
    anchors = ("random", *UPPER_ANCHORS)
    return {agent: row for agent, row in agents.items() if not row.get("is_exact") and agent not in anchors}


def are_scaled(agents: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the scores of a suite have a scale; else they are returns."""
    return all(row.get("is_scaled", True) for row in agents.values())


def upper_anchor(agents: Mapping[str, Any]) -> str:
    """The row of a suite with score 1, see `metadisco.evaluation.test_sets.UPPER_ANCHORS`."""
    return next((name for name in UPPER_ANCHORS if name in agents), "reference")


def tested_on(number: Any, agents: Mapping[str, Any]) -> str:
    """How many tasks a suite has, in words: levels where their optimum is known, else one environment or its levels.

    Example:
        >>> tested_on(1, {"optimal": ...}), tested_on(1, {"reference": ...}), tested_on(20, {})
        ('1 level', '1 environment', '20 levels')
    """
    if number == 1:
        return "1 level" if upper_anchor(agents) == "optimal" else "1 environment"
    return f"{number} levels"


def table(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """Suite -> agent -> row, as in `evaluation.json`."""
    return {
        suite: {agent: summarize(evaluation) for agent, evaluation in agents.items()}
        for suite, agents in results.items()
    }


def read_table(path: str | os.PathLike) -> dict[str, dict[str, dict[str, Any]]]:
    """Read an `evaluation.json`; entries other than tables of suites are left out.

    Raises:
        OSError: where it is not there.
        ValueError: where it is not a JSON object.
    """
    document = parse_json(Path(path).read_bytes())
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a table of scores: it holds a {type(document).__name__}")
    return {
        suite: agents
        for suite, agents in document.items()
        if isinstance(agents, dict) and agents and all(isinstance(row, dict) for row in agents.values())
    }


def write_json(path: str | os.PathLike, document: Mapping[str, Any]) -> None:
    """Write a table atomically."""
    write_atomically(Path(path), to_json(document))


def to_json(document: Mapping[str, Any]) -> bytes:
    """A table as the content of a file."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def save_curves(path: str | os.PathLike, results: Results) -> None:
    """Write everything atomically: arrays by suite, agent and what they are, `grid-unseen/a2c/scores`."""
    arrays: dict[str, np.ndarray] = {}

    def store(value: Any, name: str) -> Any:
        """Arrays go to the archive."""
        if isinstance(value, np.ndarray):
            arrays[name] = value
            return {"array": name}
        if isinstance(value, dict):
            return {"dict": {key: store(entry, f"{name}/{key}") for key, entry in value.items()}}
        return list(value) if isinstance(value, tuple) else value

    evaluations = [
        {"agent": agent}
        | {
            field.name: store(getattr(evaluation, field.name), f"{suite}/{agent}/{field.name}")
            for field in fields(Evaluation)
        }
        for suite, agents in results.items()
        for agent, evaluation in agents.items()
    ]
    index = json.dumps({"format_version": FORMAT_VERSION, "evaluations": evaluations})
    content = io.BytesIO()
    np.savez_compressed(content, index=np.array(index), **arrays)  # type: ignore[arg-type]  # no array is an option
    write_atomically(Path(path), content.getvalue())


def load_curves(path: str | os.PathLike) -> Results:
    """Read what `save_curves` wrote.

    Raises:
        OSError: where it is not there.
        ValueError: where it is damaged or of another format version.
    """
    try:
        return _read_curves(Path(path))
    except (KeyError, TypeError, AttributeError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _read_curves(path: Path) -> Results:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        index = parse_json(archive["index"].item())
        if index["format_version"] != FORMAT_VERSION:
            raise ValueError(f"{path} has format version {index['format_version']}, this reads {FORMAT_VERSION}")

        def restore(value: Any) -> Any:
            if isinstance(value, dict) and "array" in value:
                return archive[str(value["array"])]  # a number in files of version 0.1
            if isinstance(value, dict):
                return {name: restore(entry) for name, entry in value["dict"].items()}
            return tuple(value) if isinstance(value, list) else value

        results = Results()
        for entry in index["evaluations"]:
            evaluation = Evaluation(
                **{field.name: restore(entry[field.name]) for field in fields(Evaluation) if field.name in entry}
            )
            results.setdefault(evaluation.suite, {})[entry["agent"]] = evaluation
    return results
