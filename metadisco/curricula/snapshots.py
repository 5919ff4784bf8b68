"""Snapshots of a curriculum's level buffer in the run folder: `levels/<meta-step>/`.

Each is a folder of levels (`metadisco.curricula.level_files`): something to look at, a fixed set for another run
(`fixed.SavedTasks`), or what the buffer of another run begins with (`PrioritizedLevelReplay.warm_start`). Snapshots of
equal states are the same, byte for byte.
"""

from pathlib import Path
from typing import Any

import jax

from metadisco.curricula.base import Curriculum, CurriculumState, LevelKeeper
from metadisco.curricula.level_files import Levels, save_levels

FOLDER = "levels"  # in a run folder
NUM_SNAPSHOTS = 10  # over a whole run


def level_keeper(curriculum: Curriculum) -> LevelKeeper | None:
    """The curriculum itself, if it has a level buffer."""
    return curriculum if isinstance(curriculum, LevelKeeper) else None


def snapshot_interval(num_steps: int) -> int:
    """Meta-steps between snapshots, for at most `NUM_SNAPSHOTS` evenly over a run."""
    return -(-num_steps // NUM_SNAPSHOTS)


def save_snapshot(
    run_folder: Path, step: int, keeper: LevelKeeper, state: CurriculumState, provenance: dict[str, Any]
) -> Path | None:
    """Leave the levels of a moment in a run folder, in the place of those that are there of the same moment.

    Args:
        run_folder: of the run.
        step: meta-steps done.
        keeper: the curriculum.
        state: of the curriculum.
        provenance: JSON values that are the same whenever this moment is reached, so no times.

    Returns:
        The folder of the levels; None where no level was played yet, and nothing is written.
    """
    buffer = jax.device_get(keeper.kept(state))
    if not buffer.is_filled.any():
        return None
    levels = Levels(buffer, keeper.tasks, {**provenance, "meta_step": step})
    return save_levels(levels, run_folder / FOLDER / str(step), overwrite=True)


def find_snapshots(run_folder: Path) -> dict[int, Path]:
    """The snapshots of a run by meta-step, ascending; whether they are intact is not checked."""
    paths = (path for path in (run_folder / FOLDER).glob("[0-9]*") if path.name.isdecimal() and path.is_dir())
    return dict(sorted((int(path.name), path) for path in paths))
