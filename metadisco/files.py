"""What everything that is kept on disk shares: files written whole, digests, and leaves of a tree by name.

A process may be killed, and a disk may fill up, at any moment. So a file is there complete or not at all, and a digest
tells later whether it is still what was written. A tree is compared by the names and types of its leaves with what a
file claims to hold before a number of it is used.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, with the reason."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there complete or not at all, also after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
