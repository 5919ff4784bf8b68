"""Files of a sweep: the manifest of its runs (`sweep.json`), and the table of scores (`sweep.md`)."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from metadisco.core import config, score_table
from metadisco.core.files import in_words, parse_json, write_atomically
from metadisco.core.processes import is_first, of_first, together
from metadisco.evaluation import stats
from metadisco.runs.run_folder import RunError, read_metrics

FORMAT_VERSION = 1
TRAINED, DONE, FAILED = "trained", "done", "failed"
VALIDATION = "validation"


@dataclass(frozen=True)
class Run:
    """Status of one run.

    Attributes:
        status: "trained", to be tested still; "done"; or "failed".
        step: meta-steps done, where it is trained.
        seconds: that they took.
        reason: why it failed.
    """

    status: str
    step: int = 0
    seconds: float = 0.0
    reason: str = ""


class Manifest:
    """`sweep.json`: the plan of a sweep, what has become of its runs, and the table. Written anew after each run.

    Of several processes, 0 reads and writes it, and the others know what it knows.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], runs: dict[str, Run]) -> None:
        self.folder, self.plan, self.runs = folder, plan, runs
        self.table: list[dict[str, Any]] = []

    @classmethod
    def shared(cls, folder: Path, plan: dict[str, Any], resume: bool) -> Self:
        """As `open`, on all processes; what is wrong on process 0 is an error on all."""
        with together():
            manifest = cls.open(folder, plan, resume) if is_first() else cls(folder, plan, {})
        manifest._share()
        return manifest

    @classmethod
    def open(cls, folder: Path, plan: dict[str, Any], resume: bool) -> Self:
        """Begin a sweep, or take up the one that is there.

        Raises:
            RunError: if the folder holds something else, another sweep, or a sweep without `resume`.
        """
        manifest = cls.check(folder, plan, resume)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            manifest.write()
        except OSError as error:
            raise RunError(f"Cannot write in {folder}: {error.strerror or error}. Name another --out.") from error
        return manifest

    @classmethod
    def check(cls, folder: Path, plan: dict[str, Any], resume: bool) -> Self:
        """As `open`, and write nothing."""
        path = folder / "sweep.json"
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file: name another --out.")
        if not path.exists():
            if folder.exists() and any(not each.name.startswith(".") for each in folder.iterdir()):
                raise RunError(f"{folder} holds files that are not a sweep: name a new or empty folder as --out.")
            return cls(folder, plan, {})
        if not resume:
            raise RunError(f"{folder} holds another sweep: go on with it with --resume, or name another --out.")
        try:
            document = parse_json(path.read_bytes())
            if document["format_version"] != FORMAT_VERSION:
                raise RunError(
                    f"{path} has format version {document['format_version']}; this metadisco reads {FORMAT_VERSION}."
                )
            changed = _changes(document["plan"], plan)  # and not what is new: a sweep may grow
            runs = {name: Run(**each) for name, each in document["runs"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {in_words(error)}. Start a new sweep in another folder.") from error
        if changed:
            lines = "".join(f"\n  {change}" for change in changed)
            raise RunError(f"{folder} holds another sweep:{lines}\nResume with its own, or name another --out.")
        manifest = cls(folder, plan, runs)
        manifest.table = document.get("table", [])
        return manifest

    def find(self, setting: str, seed: int) -> Run | None:
        """Status of a run; None if it has not been trained."""
        return self.runs.get(_name(setting, seed))

    def is_over(self, setting: str, seed: int) -> bool:
        """Whether nothing is left to do for a run."""
        known = self.find(setting, seed)
        return known is not None and known.status != TRAINED

    def note(self, setting: str, seed: int, run: Run) -> None:
        """Record the status of a run. Every process calls it; the others wait for process 0."""
        self.runs[_name(setting, seed)] = run
        self.write()
        self._share()

    def _share(self) -> None:
        runs = of_first({name: asdict(run) for name, run in self.runs.items()})
        self.runs = {name: Run(**run) for name, run in runs.items()}

    def write(self) -> None:
        """Write everything, complete or not at all."""
        if not is_first():
            return
        runs = {name: asdict(run) for name, run in self.runs.items()}
        document = {"format_version": FORMAT_VERSION, "plan": self.plan, "runs": runs, "table": self.table}
        write_atomically(self.folder / "sweep.json", (json.dumps(document, indent=1) + "\n").encode())


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """How a plan lacks something of another or differs from it, a line each."""
    first, second = before["settings"], after["settings"]
    lines = [f"{name}: is not asked for now" for name in first if name not in second]
    lines += [f"seed {seed}: is not asked for now" for seed in before["seeds"] if seed not in after["seeds"]]
    common = {name: second[name] for name in first if name in second}
    kept = {**before, "settings": {name: first[name] for name in common}}
    return lines + [str(each) for each in config.diff(kept, {**after, "settings": common, "seeds": before["seeds"]})]


def _name(setting: str, seed: int) -> str:
    return f"{setting}/seed{seed}"


def write_table(folder: Path, manifest: Manifest) -> str:
    """Write the table of the runs that are done into `sweep.json` and `sweep.md`, and return it as text."""
    manifest.table = [_row(folder, manifest, setting) for setting in manifest.plan["settings"]]
    manifest.write()
    text = as_markdown(manifest)
    write_atomically(folder / "sweep.md", text.encode())
    return text


def _row(folder: Path, manifest: Manifest, setting: str) -> dict[str, Any]:
    """One setting: its values, how many runs it has, and its scores with Student's intervals over seeds."""
    seeds = [seed for seed in manifest.plan["seeds"] if (run := manifest.find(setting, seed)) and run.status == DONE]
    failed = [seed for seed in manifest.plan["seeds"] if (run := manifest.find(setting, seed)) and run.status == FAILED]
    values: dict[str, list[float]] = {}
    for seed in seeds:
        for suite, score in scores(folder / _name(setting, seed)).items():
            values.setdefault(suite, []).append(score)
    found = {}
    for suite, each in values.items():
        interval = stats.mean_interval(np.array(each))
        found[suite] = {"mean": interval.point, "low": interval.low, "high": interval.high, "values": each}
    chosen = manifest.plan["settings"][setting]["values"]
    return {"setting": setting, "values": chosen, "seeds": seeds, "failed": failed, "scores": found}


def scores(run: Path) -> dict[str, float]:
    """The score of a tested run on the validation levels, where it has one, and on each suite."""
    found = {}
    validated = [row for row in read_metrics(run / "metrics.jsonl") if row.get("validation/iqm") is not None]
    if validated:
        found[VALIDATION] = validated[-1]["validation/iqm"]
    for suite, agents in parse_json((run / "evaluation.json").read_bytes()).items():
        found[suite] = agents["discovered"]["iqm"]
    return found


def as_markdown(manifest: Manifest) -> str:
    """The table as text: a setting a line, a suite a column."""
    fields = list(dict.fromkeys(name for row in manifest.table for name in row["values"]))
    suites = list(dict.fromkeys(suite for row in manifest.table for suite in row["scores"]))
    total = len(manifest.plan["seeds"])
    lines = [
        f"# Sweep of {manifest.plan['preset']}",
        "",
        "Interquartile means of normalized scores: the mean over seeds, and Student's 95% interval of it where there "
        "are two or more.",
        "",
    ]
    rows = []
    for row in manifest.table:
        cells = [_cell(row["scores"].get(suite)) for suite in suites]
        chosen = [row["values"][field] for field in fields] or [row["setting"]]
        rows.append([*chosen, f"{len(row['seeds'])} of {total}", *cells])
    head = [*(fields or ["setting"]), "runs", *suites]
    lines.append(score_table.markdown(score_table.Table(head, rows)))
    failures = [f"- {name}: {run.reason}" for name, run in manifest.runs.items() if run.status == FAILED]
    if failures:
        lines += ["", "Failed:", "", *failures]
    return "\n".join(lines) + "\n"


def _cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return score_table.DASH
    if len(score["values"]) < 2:
        return score_table.decimal(score["mean"])
    return score_table.point(score["mean"], score["low"], score["high"])
