"""Files on disk: written whole or not at all, verified by digests, and compared with trees by the names of leaves.

A process may be killed, and a disk may fill up, at any moment, so files are written under another name and renamed. A
digest tells later whether a file is still what was written. Before numbers of a file are used, the names and types that
it holds are compared with those of the tree that is wanted.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, with the reason."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there complete or not at all, also after a power cut.

    Raises:
        OSError: with the name of the file, and nothing is left of it.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_folder(folder: Path, contents: Mapping[str, bytes], *, marker: str, overwrite: bool) -> None:
    """Write a folder of files so that it is there complete or not at all; its parents are made.

    Args:
        folder: where to; an absolute path.
        contents: content of each file by name.
        marker: the file by which a folder of this kind is known.
        overwrite: replace an older folder of this kind. Anything else that is there is never replaced.

    Raises:
        CheckpointError: the folder exists or cannot be written.
    """
    if folder.exists() and not (overwrite and (folder / marker).is_file()):
        what = "pass overwrite=True or name another folder" if (folder / marker).is_file() else "name another folder"
        raise CheckpointError(f"{folder} exists already: {what}.")
    partial, replaced = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "replaced"))
    try:
        for leftover in (partial, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, content in contents.items():
            write_atomically(partial / name, content)
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {folder}: {error.strerror or error}. Free space or name another folder."
        ) from error


def hash_document(document: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object without its own entry `sha256`, in hexadecimal."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode()).hexdigest()


def parse_json(content: bytes | str) -> Any:
    """Read JSON of unknown origin.

    Raises:
        ValueError: it is none, with a short reason; nested as deep as no document is, it is none either.
    """
    try:
        return json.loads(content)
    except UnicodeDecodeError as error:  # whose words have all of the content
        raise ValueError(f"no text in UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def in_words(error: Exception) -> str:
    """What a damaged document lacks."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def read_document(path: Path, *, version: int, keys: Collection[str]) -> dict[str, Any]:
    """Read a JSON object that was written with its `format_version` and its `hash_document` as `sha256`.

    Raises:
        CheckpointError: it cannot be read, is of another version, was changed, or lacks one of `keys`.
    """
    try:
        document = parse_json(path.read_bytes())
        found, digest = document["format_version"], hash_document(document)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read, it is truncated or damaged: {in_words(error)}.") from error
    if found != version:
        raise CheckpointError(
            f"{path.parent} has format version {found}; this metadisco reads version {version}. "
            "Use the metadisco version that wrote it (see its provenance)."
        )
    if document.get("sha256") != digest:
        raise CheckpointError(f"{path} was changed after it was written (its digest differs). Get it again.")
    missing = set(keys) - document.keys()
    if missing:
        raise CheckpointError(f"{path} has no {', '.join(sorted(missing))}. Get it again.")
    return document


def read_hashed(path: Path, sha256: str, *, document: str) -> bytes:
    """Read a file whose digest the file called `document` beside it gives.

    Raises:
        CheckpointError: it cannot be read or has another digest.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path.parent} is not complete: {path.name} cannot be read. Copy the whole folder again."
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(
            f"{path} does not match the digest in {document}: it is truncated, damaged or tampered with. "
            "Get the folder again from its source."
        )
    return content


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder and the folders in it, by relative path."""
    return {str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves of a tree by their path, such as `.params['kernel']`."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def leaf_types(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf by its path, such as `float32[2, 3]`."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in named_leaves(tree).items()}


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
