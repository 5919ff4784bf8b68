"""Signals that ask a run to stop, sent by notebooks, terminals and schedulers."""

import os
import signal
import sys
import threading
from typing import Any, Self


class Signals:
    """Records the first SIGINT or SIGTERM, for the loop to stop after its chunk; a SIGINT after that ends the process.

    A second SIGTERM does not: schedulers repeat it. Slurm preempts with two of them, a hundredth of a second apart.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _receive(self, number: int, _: object) -> None:
        if self.received is None:
            self.received = int(number)
            os.write(2, b"\nStopping after this chunk of meta-steps and saving; Ctrl-C (SIGINT) aborts at once.\n")
        elif number == signal.SIGTERM:
            return
        elif "ipykernel" in sys.modules:
            raise KeyboardInterrupt
        else:
            os.write(2, b"\x1b[?25h\n")  # the live bar hides the cursor
            os._exit(128 + number)  # an ordinary exit waits for the computation under way

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
