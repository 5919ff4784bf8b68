"""Signals that ask a run to stop, sent by notebooks, terminals and schedulers.

Python calls a handler when the main thread comes back from what it has called, and compiling takes a minute. So the
command line lets a thread of its own hear of signals (`heard_at_once`): until meta-training begins, and after it, a
Ctrl-C ends the process at that moment; during meta-training the first one is a request (`Signals`).
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Self

_under_way: "list[Signals]" = []  # the loop that is asked to stop, if there is one
_is_heard = threading.Event()  # a thread hears of signals


@contextlib.contextmanager
def heard_at_once() -> Iterator[None]:
    """A context in which a Ctrl-C is heard whatever the main thread does; for a process that is one command.

    Process 1 of a container gets no SIGTERM that it has no handler for, so there SIGTERM ends it likewise.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = (signal.SIGINT, signal.SIGTERM) if os.getpid() == 1 else (signal.SIGINT,)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # first, so that no signal is left to nobody
    before = {number: signal.signal(number, _leave_to_thread) for number in numbers}
    thread = threading.Thread(target=_hear, args=(reader,), name="signals", daemon=True)
    thread.start()
    _is_heard.set()
    try:
        yield
    finally:
        _is_heard.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        thread.join()
        os.close(reader)


def _leave_to_thread(number: int, _: object) -> None:
    """Handler of a signal that the thread hears of."""


def _hear(reader: int) -> None:
    """Take the numbers of signals from a pipe until it is closed."""
    while numbers := os.read(reader, 64):
        for number in numbers:
            if _under_way:
                _under_way[-1].heed(number)
            elif number in (signal.SIGINT, signal.SIGTERM):
                _end(number)


def _end(number: int) -> None:
    """End the process now; other processes of the run are told, and end too."""
    if os.isatty(1):
        os.write(1, b"\x1b[?25h")  # a live bar hides the cursor
    os.write(2, b"\nmetadisco: interrupted\n")
    processes: Any = sys.modules.get("metadisco.core.processes")  # where it is not imported, nothing is joined
    with contextlib.suppress(Exception):
        if processes is not None and processes.is_joined():
            processes.leave(128 + number, "interrupted")
    os._exit(128 + number)  # an ordinary exit waits for the computation under way


class Signals:
    """Records the first SIGINT or SIGTERM, for the loop to stop after its chunk; a SIGINT after that ends the process.

    A second SIGTERM does not: schedulers repeat it. Slurm preempts with two of them, a hundredth of a second apart.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handler = _leave_to_thread if _is_heard.is_set() else self._receive
            _under_way.append(self)
            self.previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _receive(self, number: int, _: object) -> None:
        self.heed(number)

    def heed(self, number: int) -> None:
        """Record a signal, or end the process at a second SIGINT."""
        if self.received is None:
            self.received = int(number)
            os.write(2, b"\nStopping after this chunk of meta-steps and saving; Ctrl-C (SIGINT) aborts at once.\n")
        elif number == signal.SIGTERM:
            return
        elif "ipykernel" in sys.modules:
            raise KeyboardInterrupt
        else:
            os.write(2, b"\x1b[?25h\n")
            os._exit(128 + number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if self.previous:
            _under_way.remove(self)
