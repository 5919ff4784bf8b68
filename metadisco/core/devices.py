"""Compiled programs of a process that compiles many of them, one suite or setting after the other."""

from pathlib import Path

import jax

_MAPS = Path("/proc/self/maps")
_LIMIT = Path("/proc/sys/vm/max_map_count")


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
