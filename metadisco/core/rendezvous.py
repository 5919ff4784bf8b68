"""A rendezvous: are all processes of a run there, and do they agree on how many they are?

JAX connects processes itself, but where one is missing or one too many it aborts the others with an error that does not
say what to do. So the processes are counted before that, on the port that JAX uses afterwards: process 0 listens, each
of the others sends its number, and all get the same reply, which is an error message or empty.
"""

import contextlib
import json
import socket
import time
from typing import Any

MAX_LINE = 4096  # bytes of a message; other programs may connect to the port and send more
EXTRA_SECONDS = 5.0  # that the others wait for the reply after process 0's time is up


class DistributedError(RuntimeError):
    """What keeps several processes from working on one run."""


def parse_address(address: str) -> tuple[str, int]:
    """Split `HOST:PORT`, where an IPv6 host stands in brackets.

    Raises:
        DistributedError: If it is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise DistributedError(f"{address!r} is no coordinator: write HOST:PORT, the port being 1 to {2**16 - 1}.")
    return host.strip("[]"), int(port)


def rendezvous(address: str, num_processes: int, process_id: int, seconds: float) -> None:
    """Return when all processes of a run have connected.

    Args:
        address: `HOST:PORT` at which process 0 listens.
        num_processes: How many there should be, this one included.
        process_id: Which one this is, from 0.
        seconds: How long to wait for the others.

    Raises:
        DistributedError: If not all came in time, or not all agree on how many there are; on every process that came.
    """
    host, port = parse_address(address)
    deadline = time.monotonic() + seconds
    if process_id == 0:
        _ask(address, port, num_processes, seconds, deadline)
    else:
        _answer(address, (host, port), num_processes, process_id, seconds, deadline)


def _ask(address: str, port: int, num_processes: int, seconds: float, deadline: float) -> None:
    """Process 0: wait for the others and send them the reply."""
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(address, port))
        reply = ""
        while not reply and len(present) < num_processes - 1:
            server.settimeout(max(0.0, deadline - time.monotonic()) or 1e-3)
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                missing = [str(index) for index in range(1, num_processes) if index not in present]
                reply = (
                    f"Of {num_processes} processes only {len(present) + 1} came to {address} within {seconds:g} s; "
                    f"missing: {', '.join(missing[:20])}. Start all of them at about the same time, or wait longer "
                    "with --join-seconds."
                )
                break
            index, reply = _register(connection, num_processes, present)
            if index is not None:
                present[index] = connection
        for connection in present.values():
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps({"reply": reply}).encode() + b"\n")
    if reply:
        raise DistributedError(reply)


def _listen(address: str, port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise DistributedError(
            f"Process 0 cannot listen at {address}: {error.strerror or error}. Name another port; one on which nothing "
            "listens yet."
        ) from error


def _register(
    connection: socket.socket, num_processes: int, present: dict[int, socket.socket]
) -> tuple[int | None, str]:
    """The number of the process that has connected (None for another program), and what is wrong with it."""
    message = _read(connection, 2.0)
    try:
        index, count = int(message["process"]), int(message["of"])
    except (KeyError, TypeError, ValueError):
        return None, ""
    if count != num_processes:
        return index, (
            f"Process {index} was started as one of {count} processes and process 0 as one of {num_processes}: give "
            "all of them the same --num-processes."
        )
    if index in present:
        present[-1 - index] = connection  # it, too, gets the reply
        return None, f"Two processes were started as number {index}: give each its own --process-id."
    return index, ""


def _answer(
    address: str, place: tuple[str, int], num_processes: int, process_id: int, seconds: float, deadline: float
) -> None:
    """Another process: send this one's number and wait for the reply."""
    with _connect(address, place, seconds, deadline) as host:
        with contextlib.suppress(OSError):
            host.sendall(json.dumps({"process": process_id, "of": num_processes}).encode() + b"\n")
        reply = _read(host, max(0.0, deadline - time.monotonic()) + EXTRA_SECONDS).get("reply")
    if reply is None:
        raise DistributedError(
            f"Something answers at {address}, but not the process 0 that process {process_id} of {num_processes} waits "
            "for: it has gone, or was started with a smaller --num-processes, or another program uses the port."
        )
    if reply:
        raise DistributedError(str(reply))


def _connect(address: str, place: tuple[str, int], seconds: float, deadline: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection(place, timeout=max(0.1, deadline - time.monotonic()))
        except OSError as error:
            if time.monotonic() >= deadline:
                raise DistributedError(
                    f"No coordinator at {address} within {seconds:g} s ({error.strerror or error}). Start process 0 "
                    "there at about the same time, name its address as --coordinator, open the port, or wait longer "
                    "with --join-seconds."
                ) from error
            time.sleep(0.2)


def _read(connection: socket.socket, seconds: float) -> dict[str, Any]:
    """One line of JSON; empty if none comes in time."""
    content, deadline = b"", time.monotonic() + seconds
    try:
        while not content.endswith(b"\n") and len(content) < MAX_LINE:
            connection.settimeout(max(1e-3, deadline - time.monotonic()))
            part = connection.recv(MAX_LINE)
            if not part:
                break
            content += part
        found = json.loads(content)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
