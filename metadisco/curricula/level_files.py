"""A level buffer as a folder, so that the levels which one run found can be the fixed set of another.

It holds `curriculum.json` (what the tasks are drawn from, the types of all arrays, digests, provenance) and the arrays
as `curriculum.safetensors`. Like a portable objective it appears complete or not at all, is verified before it is used,
and there is no pickle in it.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from metadisco.core import config
from metadisco.core.files import CheckpointError, leaf_types, named_leaves
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.tensor_folder import TensorFolder
from metadisco.core.types import Task
from metadisco.curricula import buffer as level_buffer
from metadisco.curricula.buffer import LevelBuffer
from metadisco.curricula.tasks import TaskDistribution

FOLDER = TensorFolder(
    document="curriculum.json",
    tensors="curriculum.safetensors",
    digest="arrays_sha256",
    version=1,
    keys=frozenset({"tasks", "capacity", "arrays", "provenance"}),
)


@dataclasses.dataclass(frozen=True)
class Levels:
    """A level buffer with the distribution of its tasks and its origin.

    Attributes:
        buffer: the levels. Once read from a folder its arrays are NumPy arrays, so that they can be read while JAX
            traces; `jax.device_put` makes them JAX arrays.
        tasks: the distribution that its tasks belong to, and with it the environment that they are for.
        provenance: JSON values: which run, which commit.
    """

    buffer: LevelBuffer
    tasks: TaskDistribution
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def ranked(self) -> np.ndarray:
        """The filled places, best score first. [number of levels] int64.

        Raises:
            CheckpointError: no place is filled.
        """
        is_filled = np.asarray(self.buffer.is_filled)
        if not is_filled.any():
            raise CheckpointError(
                "No level of the buffer was ever played. Save it after some lives have ended, or use DrawnTasks."
            )
        order = np.argsort(np.where(is_filled, -np.asarray(self.buffer.score), np.inf), kind="stable")
        return order[: is_filled.sum()]

    def played(self) -> Task:
        """The tasks in filled places, best score first.

        Raises:
            CheckpointError: no place is filled.
        """
        places = self.ranked()
        return jax.tree.map(lambda leaf: np.asarray(leaf)[places], self.buffer.tasks)


@own_defaults
def save_levels(levels: Levels, folder: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Write a level buffer as a folder.

    Args:
        levels: what to write.
        folder: where to. Its parents are made.
        overwrite: replace older levels that are there. Anything else that is there is never replaced.

    Raises:
        CheckpointError: the folder exists or cannot be written, or the buffer does not belong to the tasks.
        config.ConfigError: the tasks are not a component.
    """
    folder = Path(folder).absolute()
    described = config.to_data(levels.tasks)
    _check_types(leaf_types(levels.buffer), levels.tasks, levels.buffer.capacity, "the buffer")
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named_leaves(levels.buffer).items()}
    blob = safetensors.numpy.save(arrays, FOLDER.metadata)
    document = {
        "tasks": described,
        "capacity": levels.buffer.capacity,
        "arrays": leaf_types(levels.buffer),
        "provenance": levels.provenance,
    }
    FOLDER.write(folder, FOLDER.seal(document, blob), blob, overwrite=overwrite)
    return folder


@own_defaults
def load_levels(folder: str | os.PathLike, *, allow: tuple[str, ...] = ()) -> Levels:
    """Read a level buffer and verify it.

    Args:
        folder: what `save_levels` wrote.
        allow: packages of your own that the tasks may be imported from; see `config.from_data`.

    Raises:
        CheckpointError: it is not there, truncated, of another format version, tampered with or inconsistent.
        config.ConfigError: the class or fields of its tasks are unknown, or their module is not allowed.
    """
    folder = Path(folder)
    if not FOLDER.is_in(folder):
        raise CheckpointError(
            f"{folder} is not a folder of levels: it has no {FOLDER.document}. Name one that save_levels wrote."
        )
    document, arrays = FOLDER.read(folder, safetensors.numpy.load_file)
    tasks = config.from_data(document["tasks"], allow=allow)
    capacity = document["capacity"]
    if type(capacity) is not int or capacity < 1:
        raise CheckpointError(
            f"{folder / FOLDER.document} gives the capacity {capacity!r}: it must be at least 1. Get it again."
        )
    stored = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in arrays.items()}
    _check_types(stored, tasks, capacity, str(folder))
    template = _template(tasks, capacity)
    buffer = jax.tree_util.tree_map_with_path(lambda path, _: arrays[jax.tree_util.keystr(path)], template)
    return Levels(buffer, tasks, document["provenance"])


def _template(tasks: TaskDistribution, capacity: int) -> LevelBuffer:
    """Shapes of the buffer."""
    return jax.eval_shape(lambda key: level_buffer.empty(tasks.sample(key), capacity), jax.random.key(0))


def _check_types(found: dict[str, str], tasks: TaskDistribution, capacity: int, where: str) -> None:
    wanted = leaf_types(_template(tasks, capacity))
    for name in dict.fromkeys([*wanted, *found]):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{where} does not fit its tasks: {name} is {found.get(name, 'absent')} there, and "
                f"{wanted.get(name, 'absent')} for a buffer of {capacity} tasks of {config.class_name(tasks)}. "
                "Give the tasks that the buffer was filled from."
            )
