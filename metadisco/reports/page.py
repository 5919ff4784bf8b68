"""The report of a run: one HTML file that needs nothing else, from what the run folder holds.

It reads `config.json`, `metrics.jsonl`, `levels/`, `evaluation.json`, `curves.npz` and `objective/`; only the first has
to be there, so a run that is still going has a report too. A file that is missing or cannot be read is noted
in its place. Anything else that goes wrong is a mistake in this package, and is raised. The HTML is in `templates` (see
`metadisco.reports.markup`), the pictures are in `metadisco.reports.sections`, `metadisco.reports.gallery`,
`metadisco.reports.drift_section` and `metadisco.reports.formulas`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from metadisco.core.config import ConfigError
from metadisco.core.files import CheckpointError, parse_json, write_atomically
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.score_table import HAND_WRITTEN
from metadisco.evaluation import results, stats, suites
from metadisco.evaluation.results import Results
from metadisco.reports import chart_style, drift_section, formulas, gallery, markup, sections, tables
from metadisco.reports.markup import NOTHING, missing, note, paragraph, part, stack
from metadisco.reports.sections import number
from metadisco.reports.tables import NO_BREAK, interval
from metadisco.runs import run_folder

_UNREADABLE = (OSError, CheckpointError, ConfigError, run_folder.RunError)  # what can be wrong with a run's files


@dataclass(frozen=True, eq=False)
class Run:
    """What was found in a run folder."""

    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]  # one for each meta-step
    scores: dict[str, dict[str, dict[str, Any]]]  # suite -> agent -> row of the table; empty before the meta-test
    curves: Results  # empty where there are none
    origin: dict[str, Any]  # provenance
    damaged: tuple[str, ...] = ()  # files that cannot be read, and why

    @property
    def suite(self) -> str | None:
        """The first suite on which the discovered objective was tested."""
        return next((suite for suite, agents in self.scores.items() if "discovered" in agents), None)

    @property
    def objective(self) -> str:
        """What the objective is called."""
        data = run_folder.objective_of(self.config["trainer"])
        drift = data.get("drift")
        rule = drift if isinstance(drift, Mapping) else data  # of mirror learning only the drift is learned
        kind = str(rule.get("class", "objective")).rpartition(":")[2].removesuffix("Drift")
        return f"TA-{kind}" if rule.get("lifetime_features") or rule.get("temporal") else kind

    @property
    def seconds(self) -> float:
        """Of meta-training."""
        return max((number(row.get("seconds"), 0.0) for row in self.rows), default=0.0)


@own_defaults
def write(folder: str | os.PathLike) -> Path:
    """Write `report.html` into a run folder.

    Args:
        folder: of a run, also of one that is still going.

    Returns:
        The path of the report.

    Raises:
        run_folder.RunError: where it is not a run folder.

    Example:
        >>> write("runs/quickstart")  # doctest: +SKIP
    """
    run = read(folder)
    is_drift = drift_section.has_drift(run.config["trainer"])
    parts: dict[str, tuple[str, Callable[[], Markup]]] = {
        "scores": ("Scores", lambda: _score_tables(run)),
        "drift": ("The drift", lambda: drift_section.drift(Path(folder)) if is_drift else NOTHING),
        "formulas": ("As formulas", lambda: formulas.section(Path(folder))),
        "training": ("Meta-training", lambda: sections.training(run.rows, run.seconds)),
        "distribution": (
            "How scores are spread" if is_drift else "Scores level by level",
            lambda: sections.distribution(run.curves),
        ),
        "learning": ("How agents learn", lambda: sections.learning(run.curves)),
        "history": (
            "What agents go through over a lifetime" if is_drift else "What the objective does over a lifetime",
            lambda: sections.history(run.curves, run.suite),
        ),
        "levels": ("Levels and learnt policies", lambda: sections.levels(run.curves, run.suite)),
        "kept": ("Levels that the curriculum kept", lambda: gallery.kept_levels(Path(folder), run.config["trainer"])),
        "settings": ("Settings", lambda: _settings(run)),
        "provenance": ("Provenance", lambda: _provenance(run)),
    }
    contents = {identifier: _noted(section) for identifier, (_, section) in parts.items()}
    page = markup.template(
        "report.html",
        title=f"{run.objective} · {run.name} · metadisco",
        name=run.name,
        verdict=stack(_verdict(run), *map(missing, run.damaged)),
        parts=[
            {"id": identifier, "title": title, "content": contents[identifier]}
            for identifier, (title, _) in parts.items()
            if contents[identifier]
        ],
    )
    path = Path(folder) / "report.html"
    write_atomically(path, page.encode())
    return path


def read(folder: str | os.PathLike) -> Run:
    """Read a run folder, as far as it goes.

    Raises:
        run_folder.RunError: where there is no readable `config.json`.
    """
    folder = Path(folder).absolute()
    document, damaged = run_folder.read_config(folder), []

    def found(name: str, read_file: Callable[[Path], Any]) -> Any:
        """What is in a file; nothing where it is not there or cannot be read."""
        try:
            return read_file(folder / name) if (folder / name).exists() else {}
        except (OSError, ValueError) as error:
            damaged.append(f"{name} cannot be read and is left out: {error}")
            return {}

    scores = found("evaluation.json", results.read_table)
    curves = Results(found("curves.npz", results.load_curves) if scores else {})
    portable = found("objective/objective.json", _read_provenance)
    rows = run_folder.read_metrics(folder / "metrics.jsonl")
    begun = document["provenance"]
    origin = {**(begun if isinstance(begun, Mapping) else {}), **portable}
    return Run(folder.name, document, rows, scores, curves, origin, tuple(damaged))


def _read_provenance(path: Path) -> dict[str, Any]:
    """Of a portable objective. Raises ValueError where there is none."""
    document = parse_json(path.read_bytes())
    provenance = document.get("provenance") if isinstance(document, dict) else None
    if not isinstance(provenance, dict):
        raise ValueError("it has no provenance")
    return provenance


def _noted(section: Callable[[], Markup]) -> Markup:
    """A section, or which of its files cannot be read."""
    try:
        return section()
    except _UNREADABLE as error:
        return missing(f"This part could not be made: {type(error).__name__}: {error}")


def _verdict(run: Run) -> Markup:
    """The result in one sentence, and how it is with other lifetimes."""
    time = f"{run.seconds / 60:.1f} min"
    if run.suite is None:
        steps = f"meta-step {run.rows[-1]['step'] if run.rows else 0} of {run.config['trainer'].get('num_steps', '?')}"
        return part("paragraph", f"{run.objective}, not tested yet: {steps} after {time}.", "verdict")
    agents = run.scores[run.suite]
    row, beside = agents["discovered"], sections.baseline(agents)
    text = f"{run.objective} discovered in {time}: IQM{NO_BREAK}{interval(row)}"
    where = results.tested_on(row.get("num_tasks", "?"), agents)
    if run.suite.startswith("grid-unseen"):
        text += f" on {where.replace(' ', ' unseen ')}"
    else:
        text += f" on {run.suite}" if where == "1 environment" else f" on {where} of {run.suite}"
    if beside:
        text += f", {_compared(row, agents[beside])} {chart_style.name(beside)} at {interval(agents[beside])}"
        text += _strongest_of(agents)
    if number(row.get("iqm_low"), 0.0) <= 0:
        text += "; not distinguishable from the random policy" if number(row.get("iqm_high")) >= 0 else "; below random"
    said = [part("paragraph", f"{text}.", "verdict")]
    for suite, others in run.scores.items():
        if suite != run.suite and suites.same_levels(suite, run.suite) and "discovered" in others:
            said.append(paragraph(_at_other_lifetime(run, suite)))
    said.append(
        note(
            "IQM: interquartile mean of normalised scores, where 0 is the random policy and 1 the optimum "
            "(where that is not known: PPO at its usual budget), with its 95% bootstrap interval. Two objectives whose "
            "intervals overlap are called not distinguishable. Worst 10%: mean of the worst tenth of the levels; "
            "optimality gap: how far scores stay below 1 on average."
        )
    )
    return stack(*said)


def _strongest_of(agents: Mapping[str, Any]) -> str:
    """Among which baselines the one that is named is the strongest; empty where there is one."""
    names = [chart_style.name(name).removeprefix("tuned ") for name in HAND_WRITTEN if name in agents]
    if len(names) < 2:
        return ""
    return f", the {'stronger' if len(names) == 2 else 'strongest'} of {', '.join(names[:-1])} and {names[-1]}"


def _at_other_lifetime(run: Run, suite: str) -> str:
    """The result on a suite that has levels of `run.suite`, beside that on the same levels at its lifetime."""
    agents = run.scores[suite]
    row = agents["discovered"]
    factor = number(row.get("lifetime")) / number(run.scores[run.suite or ""]["discovered"].get("lifetime"))
    where = results.tested_on(row.get("num_tasks", "?"), agents)
    on_where = "" if where == "1 environment" else f", on {where}"
    text = f"With {factor:g} times the lifetime{on_where}: IQM{NO_BREAK}{interval(row)}"
    beside = sections.baseline(agents)
    if beside:
        text += f", {_compared(row, agents[beside])} {chart_style.name(beside)} at {interval(agents[beside])}"
    here, there = (run.curves.get(name or "", {}).get("discovered") for name in (run.suite, suite))
    if here is not None and there is not None and here.names[: len(there.names)] == there.names:
        same = stats.iqm_interval(here.scores[-1, : len(there.names)])
        ends = {"iqm": same.point, "iqm_low": same.low, "iqm_high": same.high}
        text += f"; {'on these levels ' if on_where else ''}at lifetime {here.lifetime} it is "
        text += interval(ends)
    return f"{text}."


def _compared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What the intervals say."""
    if number(ours.get("iqm_low")) > number(theirs.get("iqm_high")):
        return "better than"
    if number(ours.get("iqm_high")) < number(theirs.get("iqm_low")):
        return "worse than"
    return "not distinguishable from"


def _score_tables(run: Run) -> Markup:
    if not run.scores:
        return missing("No evaluation yet: the meta-test comes when meta-training is over.")
    told = results.remarks(run.scores)
    return stack(*(tables.html_score_table(suite, agents) for suite, agents in run.scores.items()), *map(note, told))


def _settings(run: Run) -> Markup:
    rows = [("seed", str(run.config["seed"])), *tables.flatten(run.config["trainer"], "")]
    return part("folded", f"All {len(rows)} settings of this run", part("facts", rows))


def _provenance(run: Run) -> Markup:
    origin = {name: value for name, value in run.origin.items() if name not in ("trainer", "versions", "minutes")}
    first = ("command", "preset", "seed", "commit", "date", "hardware")
    origin = {"seed": run.config["seed"], **origin}
    rows = [(name, str(origin[name])) for name in first if origin.get(name) is not None]
    rows += [(name.replace("_", " "), str(value)) for name, value in origin.items() if name not in first]
    rows.append(("minutes of meta-training", f"{run.seconds / 60:.1f}"))
    if "minutes" in run.origin:
        rows.append(("minutes in all", str(run.origin["minutes"])))
    versions = run.origin.get("versions")
    if isinstance(versions, Mapping):
        rows.append(("versions", ", ".join(f"{package} {version}" for package, version in versions.items())))
    return part("facts", rows)
