"""Where a result comes from: command, date, commit, versions and hardware, written beside whatever is kept of it."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def provenance(**details: Any) -> dict[str, Any]:
    """Describe where a result comes from: command, date, commit, versions, hardware, and `details` such as the seed."""
    packages = ("metadisco", "jax", "jaxlib", "flax", "optax", "evosax", "gymnax", "orbax-checkpoint")
    installed = {package: installed_version(package) for package in packages}
    devices = [device.device_kind for device in jax.devices()]
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{key: value for key, value in installed.items() if value}},
        "hardware": f"{len(devices)} x {devices[0]}, {os.cpu_count()} CPU cores, {platform.machine()}",
        **details,
    }


def code_digest(modules: Iterable[str] = ()) -> str:
    """A digest of metadisco's own source, and of the `modules` outside of it that take part in a run.

    Args:
        modules: Dotted names of imported modules; those of metadisco, and those without a source file, add nothing.

    Returns:
        16 hexadecimal digits.
    """
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    for name in sorted(name for name in set(modules) if name.partition(".")[0] != "metadisco"):
        source = getattr(sys.modules.get(name), "__file__", None)
        if source is not None:
            digest.update(f"{name}\0".encode() + Path(source).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def installed_version(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that metadisco runs from, marked when files differ from it; None outside of one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
