"""Several processes, one run: join them, agree on what depends on a clock, and stop all when one has to.

This wraps `jax.distributed`. Every process makes the same calls in the same order; process 0 alone writes logs and
reports. In a run of a single process every function here is trivial. Three things must not happen: that processes go on
with different settings or code (`require_same`), that they disagree on when to save or stop, so that some wait for the
others forever (`agree`), and that one fails without the others being told (`together` at one point, `leave` at any).
"""

import contextlib
import hashlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from metadisco.core import config
from metadisco.core.rendezvous import DistributedError, rendezvous

JOIN_SECONDS = 20.0
HEARTBEAT_SECONDS = 20  # without a sign of life, until JAX gives a process up
LOST = 75  # exit code where another process is gone: EX_TEMPFAIL, "try again"
_POLL = 0.5  # seconds between looks at whether another process has failed
_SYNC_MS = 600_000  # for processes to come to the same point; a failure on the way ends all of them before that
_WEEK_MS = 7 * 24 * 3_600_000
_names = itertools.count()
_leaving = threading.Event()


class LostError(DistributedError):
    """Another process of the run is gone."""


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    seconds: float = JOIN_SECONDS,
) -> None:
    """Join the other processes of a run; before JAX has touched a device.

    Args:
        coordinator: `HOST:PORT` of process 0. This and the two below are detected on Slurm, on Kubernetes (with the
            package `kubernetes`), under Open MPI and on Cloud TPU.
        num_processes: How many there are.
        process_id: Which one this is, from 0.
        seconds: How long to wait for the others.

    Raises:
        DistributedError: Where there is nothing to join, a process is missing, or they do not agree on their number.
    """
    membership, devices = _find(coordinator, num_processes, process_id, seconds)
    rendezvous(*membership, seconds)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # signals are the loop's, which saves and stops
    try:
        jax.distributed.initialize(
            *membership,
            local_device_ids=devices,
            cluster_detection_method="deactivate",
            initialization_timeout=int(seconds) + 10,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=10,
        )
    except (RuntimeError, ValueError) as error:
        raise DistributedError(f"JAX cannot join the processes at {membership[0]}: {error}") from error
    _leaving.clear()
    threading.Thread(target=_watch, args=(_client(),), daemon=True).start()


def is_joined() -> bool:
    """Whether this is one of several processes."""
    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this is process 0, which alone writes logs and reports. A single process touches no device for that."""
    return not is_joined() or jax.process_index() == 0


def exchange(text: str, *, patient: bool = False) -> list[str]:
    """Gather a text from every process, by its number; `patient`: wait for the others without a limit."""
    if not is_joined():
        return [text]
    client, name = _client(), f"metadisco/{next(_names)}"
    client.key_value_set(f"{name}/{jax.process_index()}", text)
    with lost_processes():
        client.wait_at_barrier(name, _WEEK_MS if patient else _SYNC_MS)
        return [client.blocking_key_value_get(f"{name}/{i}", _SYNC_MS) for i in range(jax.process_count())]


def of_first(value: Any) -> Any:
    """Broadcast the JSON value of process 0; the others wait for it without a limit."""
    return json.loads(exchange(json.dumps(value) if is_first() else "", patient=True)[0])


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A context that raises on all processes if it raises on one, with that one's reason.

    Raises:
        DistributedError: On those that did not fail themselves.
    """
    failure: Exception | None = None
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if not is_joined() or isinstance(error, LostError):
            raise
        failure = error
    reasons = exchange("" if failure is None else str(failure) or repr(failure))
    if failure is not None:
        raise failure
    for index, reason in enumerate(reasons):
        if reason:
            raise DistributedError(f"process {index}: {reason}")


def require_same(items: Mapping[str, Any]) -> None:
    """Refuse to go on where processes differ in what they are about to do.

    Args:
        items: JSON values by name.

    Raises:
        DistributedError: On all processes, if `items` are not the same on all; it says what differs.
    """
    if not is_joined():
        return
    text = json.dumps(items, sort_keys=True)
    first = exchange(text if is_first() else "")[0]
    same = exchange(hashlib.sha256(text.encode()).hexdigest())
    with together():
        if same[jax.process_index()] != same[0]:
            lines = "".join(f"\n  {each}" for each in config.diff(json.loads(first), json.loads(text)))
            raise DistributedError(
                f"process {jax.process_index()} was started with other settings or code than process 0 (there -> "
                f"here):{lines}\nStart all processes with the same command and the same version."
            )


def agree(*values: int) -> list[int]:
    """The minimum over processes of each value. All processes must call it at the same point."""
    if not is_joined():
        return list(values)
    from jax.experimental import multihost_utils

    with lost_processes():
        return multihost_utils.process_allgather(np.array(values, np.int32)).min(axis=0).tolist()


@contextlib.contextmanager
def lost_processes() -> Iterator[None]:
    """A context in which an error that comes from the loss of another process becomes a `LostError`."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        is_of_jax = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error)
        if not is_joined() or not (is_of_jax or "Gloo" in str(error)):
            raise
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise LostError(
            f"another process of this run is gone ({reason[:200]}). Everything up to the newest checkpoint is kept: "
            "start all processes again with --resume."
        ) from error


def leave(code: int, failure: str | None = None) -> None:
    """End this process's part in the run.

    Without a failure, wait for the others (process 0 has more to do than they) and return. After a failure, tell the
    others, which ends them within seconds, and exit at once.

    Args:
        code: The exit code, of the others too.
        failure: What was wrong.
    """
    if not is_joined():
        return
    if failure is None:
        with lost_processes():
            _client().wait_at_barrier("metadisco/end", _WEEK_MS)
        _leaving.set()
        time.sleep(2 * _POLL)
        jax.distributed.shutdown()
        return
    if code == LOST:
        time.sleep(4 * _POLL)  # it may have said why: then `_watch` prints that and ends this process
    _leaving.set()
    with contextlib.suppress(RuntimeError, ValueError):  # another process was first, or process 0 is gone
        message = {"process": jax.process_index(), "code": code, "failure": failure}
        _client().key_value_set("metadisco/failure", json.dumps(message))
    time.sleep(2 * _POLL)
    _exit(code)


def _find(
    coordinator: str | None, num_processes: int | None, process_id: int | None, seconds: float
) -> tuple[tuple[str, int, int], Any]:
    """Coordinator, number of processes and this one's id; and which local devices it has, None for all."""
    from jax._src.clusters import ClusterEnv  # what `jax.distributed.initialize` asks; it has no public name

    known: tuple[Any, ...] = (coordinator, num_processes, process_id, None)
    if None in known[:3]:
        try:
            known = ClusterEnv.auto_detect_unset_distributed_params(
                coordinator, num_processes, process_id, None, None, int(seconds)
            )
        except Exception as error:  # of whatever asks the cluster
            raise DistributedError(f"The cluster cannot be asked who is in this run: {error}") from error
    address, count, index, devices = known
    for name, value in (("--coordinator", address), ("--num-processes", count), ("--process-id", index)):
        if value is None:
            raise DistributedError(
                f"No Slurm, Kubernetes, Open MPI or Cloud TPU was found that says who is in this run: give {name} too."
            )
    if not 0 <= index < count:
        raise DistributedError(f"--process-id must be 0 to {count - 1} of {count} processes, got {index}.")
    return (address, count, index), devices


def _client() -> Any:
    """The processes' common key-value store and barriers, which have no public name; Orbax uses them the same way."""
    from jax._src import distributed

    return distributed.global_state.client


def _watch(client: Any) -> None:
    """Poll for the failure of another process, print it and end this one, which may be blocked in a collective."""
    while not _leaving.wait(_POLL):
        try:
            message = json.loads(client.key_value_try_get("metadisco/failure"))
        except (RuntimeError, ValueError):  # nothing there
            continue
        if _leaving.is_set():
            return
        print(f"metadisco: process {message['process']} failed: {message['failure']}", file=sys.stderr)  # noqa: T201
        _exit(int(message["code"]))


def _exit(code: int) -> None:
    """Exit without waiting for computations under way, or for processes that are gone; process 0 last.

    Process 0 holds the key-value store with the failure, and JAX aborts processes that lose the connection to it.
    """
    if is_first():
        time.sleep(6 * _POLL)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
