"""`metadisco doctor`: what this installation is, whether it computes, and what is missing for what.

It says what a report of a fault should have in it, and whatever is wrong it says what to do about.
"""

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from metadisco.core.provenance import installed_version

OPTIONAL = {  # library -> (extra or package to install, what it is for)
    "ale_py": ("metadisco[atari]", "the suites atari-*"),
    "pyoperon": ("metadisco[distill]", "metadisco distill"),
    "wandb": ("metadisco[wandb]", "--wandb"),
    "optuna": ("metadisco[optuna]", "discover --trials"),
    "jupyterlab": ("metadisco[notebooks]", "the notebooks"),
    "pandas": ("pandas", "Results.to_frame"),
}


def doctor(console: Any) -> int:
    """Print what there is. Returns 1 where a package is missing or too old, or JAX does not compute."""

    def say(name: str, text: str) -> None:
        console.print(f"{name + ':':<12} {text}", markup=False, highlight=False, soft_wrap=True)

    say("metadisco", f"{installed_version('metadisco')}, in {Path(__file__).parents[1]}")
    say("python", f"{platform.python_version()}, {platform.platform()}")
    wrong = list(unmet(importlib.metadata.requires("metadisco") or []))
    for name in ("jax", "jaxlib", "flax", "optax", "evosax", "gymnax", "brax", "gymnasium"):
        say(name, installed_version(name) or "not installed")
    try:
        for line in _devices():
            say("device", line)
    except Exception as error:  # whatever a backend raises: this command is for just that
        wrong.append(f"JAX does not compute: {error}")
    say("cache", _cache())
    for library, (install, purpose) in OPTIONAL.items():
        if importlib.util.find_spec(library) is None:
            say("optional", f"{library} is not installed, for {purpose}: pip install {install}")
    for each in wrong:
        say("wrong", each)
    say("verdict", "this installation works" if not wrong else "mend what is wrong above")
    return 1 if wrong else 0


def unmet(requirements: list[str]) -> Iterator[str]:
    """What of some requirements is missing or of another version, a sentence each; extras are left out.

    Example:
        >>> list(unmet(["numpy>=1.0", "a-package-of-no-name>=2"]))
        ['a-package-of-no-name is not installed: pip install "a-package-of-no-name>=2"']
    """
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found, wanted = installed_version(requirement.name), f"{requirement.name}{requirement.specifier}"
        if found is None:
            yield f'{requirement.name} is not installed: pip install "{wanted}"'
        elif not requirement.specifier.contains(found, prereleases=True):
            yield f'{requirement.name} is {found}: pip install "{wanted}"'


def _devices() -> Iterator[str]:
    """Each device with its memory, after it has computed something."""
    import jax

    from metadisco.meta_training.memory_estimate import available_bytes

    for device in jax.devices():
        begun = time.monotonic()
        total = float(jax.jit(lambda x: (x @ x).sum())(jax.device_put(jax.numpy.ones((64, 64)), device)))
        if total != 64.0**3:
            raise ValueError(f"{device} has {total} where {64.0**3} is right")
        memory = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else available_bytes()
        size = f", {memory / 2**30:.0f} GiB" if memory else ""
        yield f"{device} ({device.device_kind}{size}), compiles and computes in {time.monotonic() - begun:.1f} s"


def _cache() -> str:
    """Where compilations are kept, and how much is in it."""
    import jax

    options: Any = jax.config  # whose names are known at run time only
    folder = Path(options.jax_compilation_cache_dir or "")
    if not folder.is_dir():
        return f"{folder}, empty so far"
    sizes = [path.stat().st_size for path in folder.iterdir() if path.is_file()]
    writable = "" if os.access(folder, os.W_OK) else ", which cannot be written: set JAX_COMPILATION_CACHE_DIR"
    return f"{folder}, {len(sizes):,} compilations, {sum(sizes) / 2**20:,.0f} MiB{writable}"
