"""Who is missing, or one too many, is said on every process that came, and in time."""

import socket
import threading
import time

import pytest

from metadisco.core.rendezvous import DistributedError, parse_address, rendezvous
from tests.support.many import free_address


def roll(*processes, seconds=0.8):
    """What each of (number of processes, number of this one) hears: None where all is well."""
    address, heard = free_address(), [None] * len(processes)

    def take_part(place):
        try:
            rendezvous(address, *processes[place], seconds)
        except DistributedError as error:
            heard[place] = str(error)

    threads = [threading.Thread(target=take_part, args=(place,)) for place in range(len(processes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    return heard


def test_all_there_is_no_error_on_any():
    assert roll((4, 0), (4, 1), (4, 2), (4, 3), seconds=10.0) == [None] * 4


def test_one_process_needs_nobody():
    assert roll((1, 0)) == [None]


def test_who_is_missing_is_said_to_everybody_who_came():
    first, second = roll((4, 0), (4, 2))
    assert "only 2 came" in first
    assert "missing: 1, 3" in first
    assert second == first


def test_other_counts_are_said_to_everybody():
    heard = roll((2, 0), (3, 1))
    assert all("Process 1 was started as one of 3 processes and process 0 as one of 2" in each for each in heard)


def test_one_number_twice_is_said_to_everybody():
    heard = roll((3, 0), (3, 1), (3, 1))
    assert all("Two processes were started as number 1" in each for each in heard)


def test_no_coordinator_is_an_error_in_time():
    begun = time.monotonic()
    with pytest.raises(DistributedError, match=r"No coordinator at .* within 0\.5 s"):
        rendezvous(free_address(), 2, 1, 0.5)
    assert time.monotonic() - begun < 3.0


def test_other_connections_to_the_port_do_not_count():
    address = free_address()
    host, port = parse_address(address)
    heard = []

    def be_first():
        try:
            rendezvous(address, 2, 0, 10.0)
        except DistributedError as error:
            heard.append(str(error))

    first = threading.Thread(target=be_first)
    first.start()
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            other = socket.create_connection((host, port), timeout=1.0)
            break
        except OSError:
            time.sleep(0.05)
    other.sendall(b"GET / HTTP/1.1\r\n\r\n\n")
    rendezvous(address, 2, 1, 10.0)
    first.join(timeout=10)
    other.close()
    assert not heard


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DistributedError, match=f"cannot listen at {address}"):
            rendezvous(address, 2, 0, 0.5)


def test_whoever_answers_but_is_no_process_0_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=lambda: server.accept()[0].close()).start()
        with pytest.raises(DistributedError, match="but not the process 0 that process 1 of 2 waits for"):
            rendezvous(address, 2, 1, 0.5)


@pytest.mark.parametrize("address", ["host", "host:", ":1", "host:port", "host:0", "host:70000"])
def test_an_address_without_host_or_port_is_refused(address):
    with pytest.raises(DistributedError, match="write HOST:PORT"):
        parse_address(address)


def test_an_address_is_a_host_and_a_port():
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("node-3.cluster:1234") == ("node-3.cluster", 1234)
