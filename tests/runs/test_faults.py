"""Processes killed at random moments, and full disks: nothing is lost but the last interval, and no bit differs."""

import json
import random
import subprocess
import time

import numpy as np
import pytest

from metadisco.runs.run_folder import read_metrics
from metadisco.runs.train_state import Checkpoints
from tests.support.many import finish, start

SAVED_EVERY = {"chunk": 4, "checkpoint_seconds": 0.3}  # a checkpoint of two processes takes about as long
NUM_KILLS = 20


def half_written(out):
    """Names of checkpoints that are half written at this moment, or were left so by a kill."""
    folders = {path.name for path in (out / "checkpoints").glob("[0-9]*") if path.suffix != ".json"}
    return folders - {f"{step:010d}" for step in Checkpoints(out / "checkpoints").steps()}


def num_lines(out):
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def lost_at(out):
    """How many meta-steps are logged beyond the newest checkpoint, no more than came in the last interval.

    A checkpoint is begun after the first chunk that ends an interval or more after the one before was written, which
    was before the first chunk in question ended. So of what is lost all but that chunk and the last one took less than
    an interval, whatever chunks and checkpoints take; `seconds` are those at a chunk's end, to the millisecond.
    """
    newest, chunk = Checkpoints(out / "checkpoints").steps()[-1], SAVED_EVERY["chunk"]
    lost = [row for row in read_metrics(out / "metrics.jsonl") if row["step"] > newest]
    between = lost[chunk - 1 : len(lost) - chunk]
    if between:
        assert between[-1]["seconds"] - between[0]["seconds"] < SAVED_EVERY["checkpoint_seconds"] + 0.002, lost
    return len(lost)


def kill(processes, out, moments, *, in_write):
    """Kill one process at a random moment, or in the middle of a checkpoint, and wait for all to end."""
    before, left, deadline = num_lines(out), half_written(out), time.monotonic() + 120
    goal = before + moments.randrange(1, 40)
    while num_lines(out) < goal:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.002)
    if in_write:
        while not half_written(out) - left and time.monotonic() < deadline:
            pass
    else:
        time.sleep(moments.random() * 0.2)
    victim = moments.randrange(len(processes))
    processes[victim].kill()
    begun = time.monotonic()
    codes, said = finish(processes)
    assert time.monotonic() - begun < 40.0  # no process waits for a dead one
    assert codes[victim] == -9
    others = [code for index, code in enumerate(codes) if index != victim]
    assert set(others) <= {75, -6}, (codes, said)  # -6: JAX noticed first


def survive(folder, trainer, num_processes, num_kills, seed=0, full_at=()):
    """Kill a run again and again and let it end: what is found, and how many meta-steps each kill has cost."""
    out, moments = folder / "killed", random.Random(seed)
    spec = {"trainer": trainer, "out": str(out), "options": SAVED_EVERY}
    lost = []
    for number in range(num_kills):
        processes = start(spec, num_processes, stderr=subprocess.PIPE)
        kill(processes, out, moments, in_write=number % 2 == 1)
        lost.append(lost_at(out))
    for step in full_at:
        at = Checkpoints(out / "checkpoints").steps()[-1] + step
        codes, said = finish(start(spec | {"full_at": at}, num_processes, stderr=subprocess.PIPE))
        assert codes == [2] * num_processes, said
        assert all("No space left on device" in each for each in said), said
        assert Checkpoints(out / "checkpoints").steps()[-1] < at
        lost.append(lost_at(out))
    result = folder / "killed.npz"
    results = [str(result), *[str(folder / f"killed-{index}.npz") for index in range(1, num_processes)]]
    codes, said = finish(start(spec, num_processes, stderr=subprocess.PIPE, result=results), timeout=300)
    assert codes == [0] * num_processes, said
    return result, lost


def whole(folder, trainer, num_processes):
    result = folder / "whole.npz"
    results = [str(result), *[str(folder / f"whole-{index}.npz") for index in range(1, num_processes)]]
    spec = {"trainer": trainer, "out": str(folder / "whole"), "options": SAVED_EVERY | {"checkpoint_seconds": 3600}}
    codes, said = finish(start(spec, num_processes, stderr=subprocess.PIPE, result=results), timeout=300)
    assert codes == [0] * num_processes, said
    return result


def assert_nothing_differs(folder, killed, uninterrupted):
    with np.load(killed) as found, np.load(uninterrupted) as wanted:
        assert set(found) == set(wanted)
        for name in found:
            assert found[name].tobytes() == wanted[name].tobytes(), name
    logs = []
    for name in ("killed", "whole"):
        rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        logs.append([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
    assert logs[0] == logs[1]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_processes_of_which_one_is_killed_end_bit_identical(tmp_path):
    killed, _ = survive(tmp_path, "long spread", 2, 1)
    assert_nothing_differs(tmp_path, killed, whole(tmp_path, "long spread", 2))


@pytest.mark.slow
@pytest.mark.parametrize("dies_in", ["validation", "meta-test"])
def test_a_process_that_dies_while_the_other_waits_for_it_ends_the_other(tmp_path, dies_in):
    spec = {"trainer": "spread", "out": str(tmp_path / "run"), "dies_in": dies_in}
    processes = start(spec, 2, stderr=subprocess.PIPE)
    assert processes[0].wait(timeout=120) == -9
    begun = time.monotonic()
    codes, said = finish(processes)
    seconds = time.monotonic() - begun
    print(f"killed in its {dies_in}: the other ends with {codes[1]} after {seconds:.1f} s")
    assert codes[1] in (75, -6), said
    assert seconds < 30.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_run_killed_20_times_and_without_space_twice_ends_bit_identical(tmp_path, num_processes):
    trainer = {1: "long", 2: "long spread"}[num_processes]
    killed, lost = survive(tmp_path, trainer, num_processes, NUM_KILLS, seed=num_processes, full_at=(40, 90))
    assert_nothing_differs(tmp_path, killed, whole(tmp_path, trainer, num_processes))
    print(f"{num_processes} processes: meta-steps lost by each kill and full disk: {lost}")
