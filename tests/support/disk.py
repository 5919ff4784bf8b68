"""What the tests of kept files share: a look at them, ways to damage them, and a disk that is soon full."""

import contextlib
import shutil
import subprocess

import jax
import numpy as np
import pytest


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def trees_equal(left, right):
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes(), left, right
    )
    return jax.tree.all(same)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


@contextlib.contextmanager
def small_disk(folder, mebibytes=8):
    """A context in which a folder, with what is in it, is a small file system of its own; else the test is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    before = folder.with_name(f"{folder.name}-before")
    shutil.copytree(folder, before)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        shutil.copytree(before, folder, dirs_exist_ok=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Let a file in a folder eat up what is free."""
    with (folder / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def free(folder):
    """Take the file away again."""
    (folder / "ballast").unlink()
