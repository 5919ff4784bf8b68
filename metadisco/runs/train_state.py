"""The train state of a run on disk, so that the run can be resumed: written through Orbax, trusted only when intact.

`Checkpoints` keeps the whole state, one folder per saved meta-step, and beside it a manifest with the SHA-256 of every
file. A checkpoint counts only with its manifest, which is renamed into place last, so a process may be killed at any
moment; one that does not match its manifest is skipped for the one before. Where all are damaged, that is an error: to
start over would delete them.
"""

import errno
import json
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metadisco.core.files import (
    CheckpointError,
    hash_file,
    hash_files,
    is_key,
    leaf_types,
    named_leaves,
    parse_json,
    write_atomically,
)
from metadisco.core.processes import LostError, exchange, is_first, lost_processes, together

FORMAT_VERSION = 1
SPARE_BYTES = 2**20  # for what Orbax writes about the arrays, and for the manifest


class _DamageError(Exception):
    """What is wrong with a checkpoint."""


class Restored(NamedTuple):
    """A train state read back, and the meta-step that it was saved under."""

    step: int
    state: Any


class Checkpoints:
    """The resumable train states of one run, newest last; see the module's docstring for what makes one count.

    On several hosts every process makes the same calls on a shared file system and writes its part of the arrays;
    process 0 alone chooses what is restored, writes manifests and deletes. A state is restored on any number of devices
    and hosts: files hold whole arrays, and the target says where they go.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int = 3) -> None:
        """Use `folder` (made when needed) and keep the newest `keep` checkpoints."""
        if keep < 2:
            raise ValueError(f"keep = {keep}: keep at least 2, so that a damaged newest checkpoint has one before it.")
        self.folder = Path(folder).absolute()
        self.keep = keep

    def save(self, step: int, state: Any) -> None:
        """Write `state` as of `step`; when this returns, the checkpoint is on disk and older surplus is gone.

        A checkpoint of a later step is deleted: a run resumes from the newest intact one, so what is ahead is damaged.
        """
        from orbax.checkpoint import v1 as orbax  # slow to import

        logging.getLogger("absl").addFilter(_is_not_of_orbax_thread)
        path, manifest = self._paths(step)
        leaves = _to_leaves(state)
        try:
            with together():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._delete(lambda known: known >= step)
                self._check_space(leaves)
            with lost_processes():
                orbax.save(path, leaves)  # returns when every host has written; renames into place itself
            with together():
                if is_first():
                    document = {
                        "format_version": FORMAT_VERSION,
                        "step": step,
                        "leaves": leaf_types(state),
                        "files": hash_files(path),
                    }
                    write_atomically(manifest, json.dumps(document, indent=1).encode())
                    self._delete(lambda known: known not in self.steps()[-self.keep :])
        except LostError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"Cannot write checkpoint {path}: {error}. Free space or make the folder writable; the checkpoints "
                "before it are intact, so the run can be resumed."
            ) from error

    def _check_space(self, leaves: dict[str, jax.Array]) -> None:
        """Fail before Orbax writes: on a full disk each of its threads would log a traceback."""
        needed = 2 * sum(leaf.nbytes for leaf in leaves.values()) + SPARE_BYTES
        if is_first() and shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def steps(self) -> list[int]:
        """List the steps that were completely written, ascending; whether they are still intact is not checked."""
        return sorted(int(path.name.partition(".")[0]) for path in self.folder.glob("[0-9]*.json"))

    def restore_latest(self, target: Any) -> Restored | None:
        """Read the newest intact checkpoint, with a warning for each newer one that is damaged or unfinished.

        Args:
            target: The state, or its shapes (`jax.eval_shape`), possibly with shardings; without one, a leaf goes to
                the first device.

        Returns:
            The step and the state, bit for bit as saved; None if no checkpoint was ever finished.

        Raises:
            CheckpointError: If the checkpoint is intact but of another format version, or holds a state of other
                leaves, shapes or types; if there are checkpoints and all are damaged.
        """
        with together():
            found = self._newest_intact() if is_first() else None
        found = json.loads(exchange(json.dumps(found))[0])
        if found is None:
            return None
        step, leaves = found
        return Restored(step, self._read(self._paths(step)[0], leaves, target))

    def _newest_intact(self) -> tuple[int, dict[str, str]] | None:
        """The step to restore and the types of its leaves; None where no checkpoint was ever finished."""
        for step in reversed(self._candidates()):
            path, manifest = self._paths(step)
            try:
                leaves = _check(path, manifest)
            except _DamageError as damage:
                warnings.warn(f"Skipping checkpoint {path}: {damage}.", stacklevel=3)
            else:
                return step, leaves
        if self.steps():
            raise CheckpointError(
                f"All checkpoints in {self.folder} are damaged. Put intact ones there from a copy, or delete the "
                "folder to start the run anew."
            )
        return None

    def _read(self, path: Path, saved: dict[str, str], target: Any) -> Any:
        from orbax.checkpoint import v1 as orbax  # slow to import

        wanted = leaf_types(target)
        for name in dict.fromkeys([*saved, *wanted]):
            if saved.get(name) != wanted.get(name):
                raise CheckpointError(
                    f"{path} holds another train state: {name or 'the state'} is {saved.get(name, 'absent')} there and "
                    f"{wanted.get(name, 'absent')} here. Resume with the settings and the version that wrote it."
                )
        shapes = jax.eval_shape(_to_leaves, target)
        default = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = {name: getattr(leaf, "sharding", None) or default for name, leaf in named_leaves(target).items()}
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name])
            for name, leaf in shapes.items()
        }
        with lost_processes():
            return _from_leaves(orbax.load(path, abstract), target)

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / f"{step:010d}", self.folder / f"{step:010d}.json"

    def _candidates(self) -> list[int]:
        """Steps that have a folder or a manifest, finished or not."""
        names = {path.name.partition(".")[0] for path in self.folder.glob("[0-9]*")}
        return sorted(int(name) for name in names if name.isdigit())

    def _delete(self, surplus: Any) -> None:
        """Delete unfinished and `surplus` steps; the manifest first, since a checkpoint counts only with it."""
        if is_first():
            for step in filter(surplus, self._candidates()):
                path, manifest = self._paths(step)
                manifest.unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)
            for path in self.folder.iterdir():
                if ".orbax-checkpoint-tmp" in path.name:
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name.endswith(".json.partial"):
                    path.unlink()


def _is_not_of_orbax_thread(record: logging.LogRecord) -> bool:
    """Drop the tracebacks that failed threads of Orbax log: `orbax.save` raises the same error."""
    return not record.pathname.endswith("orbax/checkpoint/_src/futures/future.py")


def _to_leaves(tree: Any) -> dict[str, jax.Array]:
    """The arrays of a tree by path: keys as their data, and without empty arrays, which Orbax refuses."""
    leaves = {name: jax.random.key_data(leaf) if is_key(leaf) else leaf for name, leaf in named_leaves(tree).items()}
    return {name: leaf for name, leaf in leaves.items() if leaf.size}


def _from_leaves(leaves: dict[str, jax.Array], target: Any) -> Any:
    def restore(path: Any, wanted: Any) -> jax.Array:
        leaf = leaves.get(jax.tree_util.keystr(path))
        if leaf is None:
            sharding = getattr(wanted, "sharding", None)
            return jax.jit(lambda: jnp.zeros(wanted.shape, wanted.dtype), out_shardings=sharding)()
        return jax.random.wrap_key_data(leaf, impl=_key_impl(wanted)) if is_key(wanted) else leaf

    return jax.tree_util.tree_map_with_path(restore, target)


def _key_impl(keys: Any) -> Any:
    """The generator of keys of which only the shape and type are known."""
    found = []
    jax.eval_shape(lambda traced: found.append(jax.random.key_impl(traced)), keys)
    return found[0]


def _check(path: Path, manifest: Path) -> dict[str, str]:
    """Types of the leaves that an intact checkpoint holds; `_DamageError` says what is wrong with another."""
    try:
        document = parse_json(manifest.read_bytes())
        version, step, files, leaves = (document[name] for name in ("format_version", "step", "files", "leaves"))
    except FileNotFoundError:
        raise _DamageError("it was not finished (it has no manifest)") from None
    except (ValueError, KeyError, TypeError):
        raise _DamageError(f"its manifest {manifest.name} is damaged") from None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise CheckpointError(
            f"{manifest} has format version {version}; this metadisco reads {FORMAT_VERSION}. Resume with the version "
            "that wrote it."
        )
    if version != FORMAT_VERSION or step != int(manifest.stem) or not (_is_table(files) and _is_table(leaves)):
        raise _DamageError(f"its manifest {manifest.name} is damaged")
    for name, digest in files.items():
        if not (path / name).is_file():
            raise _DamageError(f"its file {name} is missing")
        if hash_file(path / name) != digest:
            raise _DamageError(f"its file {name} is not what was written (truncated or damaged)")
    return leaves


def _is_table(value: Any) -> bool:
    """Whether a JSON value is an object with at least one entry and only text in it."""
    return isinstance(value, dict) and bool(value) and all(isinstance(entry, str) for entry in value.values())
