"""Devices of this process, the cache of compilations, and programs of a process that compiles many of them."""

import contextlib
import os
from pathlib import Path

import jax

from metadisco.core.sharding import num_usable_cores

# Compiler options of a program that runs for less time than compiling it takes: XLA is told not to try hard.
QUICK_COMPILATION = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
_MAPS = Path("/proc/self/maps")
_LIMIT = Path("/proc/sys/vm/max_map_count")


def prepare_jax() -> None:
    """One device per core on a CPU, and compilations that last.

    XLA's threads inside one device scale poorly on small arrays; a population sharded over one device per core
    does better.
    """
    with contextlib.suppress(RuntimeError):  # the backend runs already: it is decided
        jax.config.update("jax_num_cpu_devices", int(os.environ.get("JAX_NUM_CPU_DEVICES") or num_usable_cores()))
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]  # its options are set at run time
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "metadisco" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def forget_if_many() -> None:
    """Drop all compiled programs where they have taken half of the memory maps that Linux gives a process.

    Each takes some, and where none is left XLA ends the process. What is needed again is compiled again, or comes from
    the persistent cache.
    """
    if 2 * _num_maps() > _max_maps():
        jax.clear_caches()


def _num_maps() -> int:
    return _MAPS.read_bytes().count(b"\n") if _MAPS.exists() else 0


def _max_maps() -> int:
    return int(_LIMIT.read_text()) if _LIMIT.exists() else 65_530
