"""`metadisco` and `python -m metadisco`: the command line in a process of its own, which ends at a Ctrl-C.

The handler comes before whatever takes milliseconds to import: without it, Ctrl-C prints a traceback of an import.
"""

import os
import signal
import sys


def main() -> int:
    """Run the command of the process."""
    signal.signal(signal.SIGINT, _end)  # until `runs.signals` hears of signals, and after it
    from metadisco.cli import main as run

    return run()


def _end(number: int, _: object) -> None:
    os.write(2, b"\nmetadisco: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
