"""Printing on terminals that know fewer signs than are printed.

A batch system, or a terminal of another language, may encode its output in ASCII. A sign that it does not know is
printed as a question mark there; by itself Python would end the process over it.
"""

import io
from typing import Any

_STRICT = ("strict", "surrogateescape")


def forgive(stream: Any) -> None:
    """Let a text stream replace what it cannot encode. Streams that cannot fail are left as they are."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in _STRICT:
        stream.reconfigure(errors="replace")


def console_for(console: Any = None) -> Any:
    """The `rich` console, a new one by default, on a stream that forgives."""
    if console is None:
        from rich.console import Console

        console = Console()
    forgive(console.file)
    return console
