"""`metadisco distill`: formulas in the place of a learned rule, printed with their fronts, and kept as a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.files import CheckpointError
from metadisco.distillation import distillation, regression, rules
from metadisco.distillation.distillation import Settings
from metadisco.reports.formulas import FOLDER
from metadisco.reports.inspection import formulas


def distill(
    name: str, out: Path | None, suites: Sequence[str], *, settings: Settings, overwrite: bool, console: Any
) -> Discovered:
    """Distill a checkpoint, say what was found, and save it.

    Args:
        name: of the checkpoint, or its folder.
        out: folder of the formulas; None for `formula/` in a run's folder, where its report finds them, or else one in
            `runs/` that is called after the checkpoint.
        suites: where agents live for the samples; the tasks of its meta-training where there are none.
        settings: how.
        overwrite: replace an older checkpoint in that folder.
        console: of rich.

    Raises:
        CheckpointError: where the folder is there already.
        config.ConfigError: where the checkpoint cannot be distilled, or a library is missing.
    """
    regression.check_installed()
    is_run = (Path(name) / "config.json").is_file()
    out = out or (Path(name) / FOLDER if is_run else Path("runs") / f"{Path(name).name}-formula")
    if out.exists() and not overwrite:  # known before the work is done
        raise CheckpointError(f"{out} exists already: name another --out, or pass --overwrite to replace it")
    discovered = checkpoint.load(name)
    rules.of(discovered)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    where = distillation.places(discovered, suites, settings)
    found, _ = distillation.distill(discovered, where, settings, name=Path(name).name, say=say)
    console.print(formulas.section(found))
    checkpoint.save(found, out, overwrite=overwrite)
    shown = f" Its report shows the formulas: metadisco report {name}" if is_run and out.name == FOLDER else ""
    say(f"Saved in {out}. Test it beside its original: metadisco evaluate original={name} formula={out}{shown}")
    return found
