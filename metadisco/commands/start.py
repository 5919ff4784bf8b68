"""Start meta-training at the meta-parameters of an existing objective instead of random ones (`--from`).

The run folder keeps a copy in `start/`, so that a run that is killed before its first checkpoint starts there again.
The provenance of the run and of its objective names the origin (its lineage).
"""

import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import Any

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.core.files import CheckpointError, parse_json
from metadisco.core.processes import is_first, together
from metadisco.core.types import MetaParams
from metadisco.evaluation.agents_under_test import Trainer, inner_loops
from metadisco.runs.run_folder import RunError, read_config

FOLDER = "start"
Place = str | os.PathLike | Discovered
_ORIGIN = ("preset", "seed", "meta_steps", "date", FOLDER)  # what a lineage tells of the start's own provenance


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """The objective at which a run starts.

    Attributes:
        discovered: the objective; its provenance is that of the run that it came from.
        lineage: JSON values: its `name` or path, the `sha256` of its meta-parameters, and its origin, with its own
            lineage where it has one.
    """

    discovered: Discovered
    lineage: dict[str, Any]

    def meta_params_for(self, trainer: Trainer) -> MetaParams:
        """Initial meta-parameters for a trainer.

        Raises:
            config.ConfigError: where they do not fit its objective.
        """
        misfit = checkpoint.misfit_of(inner_loops(trainer)[0].objective, self.discovered.meta_params)
        if misfit:
            raise config.ConfigError(
                f"a run cannot begin at {self.lineage['name']}: {misfit}. Give its objective the settings of that one, "
                "or name another checkpoint."
            )
        return self.discovered.meta_params

    def describe(self, trainer: Trainer) -> str:
        """The start of a run, and differences between its objective and that of the run, as lines."""
        told = {key: self.lineage[key] for key in ("preset", "seed", "meta_steps") if key in self.lineage}
        words = ", ".join(f"{key.replace('_', '-')} {value}" for key, value in told.items())
        changed = config.diff(self.discovered.objective, inner_loops(trainer)[0].objective)
        lines = [f"It begins at {self.lineage['name']}{f' ({words})' if words else ''}, with the same settings."]
        if changed:
            lines[0] = lines[0].replace("with the same settings.", "whose settings differ (there -> here):")
        return "\n".join([*lines, *(f"  {each}" for each in changed)])

    def keep(self, folder: Path) -> None:
        """Leave a copy in a folder, where `kept` finds it. Of several processes, 0 does."""
        with together():
            if is_first():
                checkpoint.save(self.discovered, folder / FOLDER, overwrite=True)


def find(place: Place) -> Start:
    """Look an objective up that a run is to begin at.

    Args:
        place: name in the zoo, a folder or a run's folder, or the objective itself.

    Raises:
        CheckpointError: where there is none, or it has no meta-parameters.
    """
    discovered = place if isinstance(place, Discovered) else checkpoint.load(place)
    origin = discovered.provenance
    name = config.class_name(discovered.objective) if isinstance(place, Discovered) else str(place)
    lineage = {"name": name, "sha256": checkpoint.digest(discovered)}
    return Start(discovered, lineage | {key: origin[key] for key in _ORIGIN if key in origin})


def kept(folder: Path, lineage: dict[str, Any] | None) -> Start | None:
    """The start with this lineage, from its copy in a folder, or from where it was.

    Raises:
        run_folder.RunError: where neither is there any more.
    """
    if lineage is None:
        return None
    for place in (folder / FOLDER, lineage["name"]):
        try:
            found = checkpoint.load(place)
        except (CheckpointError, config.ConfigError):
            continue
        if checkpoint.digest(found) == lineage["sha256"]:
            return Start(found, lineage)
    raise RunError(
        f"{folder} began at {lineage['name']}, of which neither the copy in {FOLDER}/ nor the original is what it was: "
        "put it back, or name another --out."
    )


def of_run(folder: Path, place: Place | Start | None, *, resume: bool) -> Start | None:
    """Where a run in a folder begins: at what was asked for, or at what it began with.

    Raises:
        run_folder.RunError: where it began somewhere else than is asked for now.
    """
    wanted = place if place is None or isinstance(place, Start) else find(place)
    if not resume or not (folder / "config.json").exists():
        return wanted
    lineage = lineage_of(folder)
    if wanted is not None and (lineage or {}).get("sha256") != wanted.lineage["sha256"]:
        began = "random meta-parameters" if lineage is None else lineage["name"]
        raise RunError(f"{folder} began at {began}, not at {wanted.lineage['name']}: name another --out.")
    return kept(folder, lineage)


def lineage_of(folder: Path) -> dict[str, Any] | None:
    """The lineage of the run in a folder; None where it began at random meta-parameters."""
    origin = read_config(folder)["provenance"]
    return origin.get(FOLDER) if isinstance(origin, dict) else None


def of_sweep(folder: Path, place: Place | None, *, resume: bool) -> Start | None:
    """The start of the runs of a sweep: the given one, or that of the sweep when it is resumed."""
    if place is not None or not resume or not (folder / "sweep.json").exists():
        return None if place is None else find(place)
    try:
        lineage = parse_json((folder / "sweep.json").read_bytes())["plan"].get(FOLDER)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # the sweep says what is wrong with its file
    return kept(folder, lineage)


def details(start: Start | None) -> dict[str, Any]:
    """What goes into a provenance."""
    return {} if start is None else {FOLDER: start.lineage}


def init_for(trainer: Any, start: Start | None, objective_of: Trainer) -> Any:
    """The trainer's `init`, at the start where there is one."""
    if start is None:
        return trainer.init
    return partial(trainer.init, meta_params=start.meta_params_for(objective_of))
