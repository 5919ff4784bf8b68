"""The host loop: the same numbers however a run is cut up."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.runs import loop, run_folder
from metadisco.runs.hooks import Measurement, Snapshot
from metadisco.runs.train_state import Checkpoints
from tests.support.toy import (
    LONG,
    Toy,
    bits,
    leave_weights,
    numbers_logged,
    quiet,
    run,
    snapshots,
    steps_logged,
    validation,
    weights_every,
)

ROOT = Path(__file__).parents[2]
SNAPSHOTS = [weights_every(500)]


def command(out, trainer="LONG", **options):
    """Run a long toy in another process; it ends only when killed or stopped."""
    code = (
        f"import sys; from tests.support.toy import {trainer}, run, weights_every; "
        f"hooks = [weights_every({SNAPSHOTS[0].every})]; "
        f"sys.exit(run({trainer}, {str(out)!r}, hooks, resume=True, **{options!r}).exit_code)"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with out.with_suffix(".stderr").open("w") as stderr:
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=stderr)


def num_lines(out):
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition, process, out, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, out.with_suffix(".stderr").read_text()
        assert time.monotonic() < deadline, f"nothing within {timeout} s"
        time.sleep(0.002)


def wait_for_lines(out, process, count):
    wait_until(lambda: num_lines(out) >= count, process, out)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return out, run(LONG, out, SNAPSHOTS)


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """A run killed twice at random moments and then told to stop: its folder, exit code and steps at the last start."""
    out, moments = tmp_path_factory.mktemp("runs") / "terminated", random.Random(0)
    for _ in range(2):
        process = command(out, chunk=4, checkpoint_seconds=0.05)
        wait_for_lines(out, process, num_lines(out) + moments.randrange(1, 300))
        time.sleep(moments.random() * 0.15)
        process.kill()
        process.wait()
    before = num_lines(out)
    process = command(out, chunk=4, checkpoint_seconds=3600)
    wait_for_lines(out, process, before + 20)
    process.terminate()
    return out, process.wait(timeout=60), before


def test_sigterm_saves_and_exits_with_143(terminated):
    out, exit_code, before = terminated
    logged = steps_logged(out)
    assert exit_code == 143
    assert before + 20 <= logged[-1] < LONG.num_steps
    assert Checkpoints(out / "checkpoints").steps()[-1] == logged[-1]


def test_run_killed_at_random_moments_and_resumed_is_bit_identical(terminated, uninterrupted):
    out, _, before = terminated
    stopped = set(snapshots(out))
    result = run(LONG, out, SNAPSHOTS, resume=True)
    assert result.status == "finished"
    assert bits(result.state) == bits(uninterrupted[1].state)
    assert steps_logged(out) == list(range(1, LONG.num_steps + 1))
    assert numbers_logged(out) == numbers_logged(uninterrupted[0])
    regular, found = snapshots(uninterrupted[0]), snapshots(out)
    assert sorted(regular) == list(range(0, LONG.num_steps + 1, 500))
    assert {step: found[step] for step in regular} == regular
    assert max(stopped) > before  # where it was told to stop, which may be where there is a snapshot anyway
    assert found.keys() == regular.keys() | {max(stopped)}


def told_to_stop(out, first):
    """A run of slow meta-steps that has one behind it, is in the next, and has got this signal."""
    process = command(out, trainer="SLOW", checkpoint_seconds=3600)
    wait_for_lines(out, process, 1)
    time.sleep(0.2)
    process.send_signal(first)
    wait_until(lambda: "Stopping after this chunk" in out.with_suffix(".stderr").read_text(), process, out)
    time.sleep(0.1)
    assert process.poll() is None
    return process


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_sigint_after_a_signal_aborts_at_once(tmp_path, first):
    process = told_to_stop(tmp_path / "run", first)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130
    assert steps_logged(tmp_path / "run") == [1]


def test_repeated_sigterm_still_saves(tmp_path):
    def terminate(state):
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        return {}

    result = run(Toy(), tmp_path / "run", [validation(terminate, 15)])
    assert (result.status, result.step, result.exit_code) == ("interrupted", 15, 143)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == 15


def test_interrupted_run_saves_and_resumes_bit_identical(tmp_path):
    def interrupt(state):
        signal.raise_signal(signal.SIGINT)
        return {}

    handler = signal.getsignal(signal.SIGINT)
    result = run(Toy(), tmp_path / "run", [validation(interrupt, 15)])
    assert (result.status, result.step, result.exit_code) == ("interrupted", 15, 130)
    assert signal.getsignal(signal.SIGINT) is handler
    assert bits(run(Toy(), tmp_path / "run", resume=True).state) == bits(run(Toy(), tmp_path / "whole").state)


@pytest.mark.parametrize("chunk", [1, 7, 128])
def test_chunk_size_changes_no_bit(tmp_path, chunk):
    result = run(Toy(), tmp_path / "cut", chunk=chunk)
    whole = run(Toy(), tmp_path / "whole", chunk=40)
    assert bits(result.state) == bits(whole.state)
    assert numbers_logged(tmp_path / "cut") == numbers_logged(tmp_path / "whole")


def test_meta_step_i_gets_the_key_folded_in_with_i(tmp_path):
    root, trainer = jax.random.key(3), Toy(num_steps=3)
    result = run(trainer, tmp_path / "run")
    state = jax.jit(trainer.init)(jax.random.fold_in(root, np.uint32(2**32 - 1)))
    for index in range(3):
        state, _ = jax.jit(trainer.step)(jax.random.fold_in(root, index), state)
    np.testing.assert_allclose(result.state.weights, state.weights, rtol=1e-4, atol=1e-5)


def test_steps_pauses_and_resuming_finishes_bit_identical(tmp_path):
    paused = run(Toy(), tmp_path / "run", steps=17)
    assert (paused.status, paused.step) == ("paused", 17)
    finished = run(Toy(), tmp_path / "run", resume=True)
    assert (finished.status, finished.step) == ("finished", 40)
    assert bits(finished.state) == bits(run(Toy(), tmp_path / "whole").state)
    assert steps_logged(tmp_path / "run") == list(range(1, 41))


def test_resuming_a_finished_run_says_so_and_returns_its_state(tmp_path):
    first, console = run(Toy(), tmp_path / "run"), quiet()
    again = run(Toy(), tmp_path / "run", resume=True, console=console)
    assert again.status == "finished"
    assert bits(again.state) == bits(first.state)
    assert "nothing is left to do" in console.file.getvalue()


def test_out_of_time_stops_after_whole_meta_steps_and_saves(tmp_path):
    result = run(LONG, tmp_path / "run", minutes=1e-6)
    assert (result.status, result.step) == ("out_of_time", 1)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 1]


def test_minutes_count_the_whole_run_and_not_each_call(tmp_path):
    """A job that is started again and again ends: its log has a minute, so a limit of a minute is used up."""
    run(LONG, tmp_path / "run", steps=5)
    log = tmp_path / "run" / "metrics.jsonl"
    lines = log.read_text().splitlines()
    rows = [json.loads(line) | {"seconds": 12.0 * number} for number, line in enumerate(lines, 1)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = run(LONG, tmp_path / "run", minutes=1.0, resume=True)
    assert (again.status, again.step) == ("out_of_time", 5)
    assert again.seconds == 60.0
    assert run(LONG, tmp_path / "run", minutes=10.0, steps=6, resume=True).step == 6


def test_a_run_that_its_time_has_ended_is_not_trained_on_by_the_same_limit(tmp_path):
    """It stops before its time is up, where there is none for one more meta-step: what is left is not used either."""
    first = run(LONG, tmp_path / "run", minutes=1e-6)
    assert first.status == "out_of_time"
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(json.dumps(json.loads(log.read_text()) | {"seconds": 0.0}) + "\n")
    again = run(LONG, tmp_path / "run", minutes=1e-6, resume=True)
    assert (again.status, again.step) == ("out_of_time", first.step)
    assert run(LONG, tmp_path / "run", minutes=0.02, resume=True).step > first.step


def test_a_run_that_has_lost_its_checkpoints_is_not_begun_anew(tmp_path):
    run(Toy(), tmp_path / "run", steps=5)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(run_folder.RunError, match="lost its checkpoints: 5 meta-steps logged"):
        run(Toy(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("cut", [None, 5])
def test_a_run_ends_with_the_meta_step_that_uses_up_its_environment_steps(tmp_path, cut):
    """7 + 10 + 7 + ...: 85 after ten meta-steps, 92 after eleven."""
    options = {"env_steps": 86.0, "resume": True}
    if cut is not None:
        assert run(LONG, tmp_path / "run", steps=cut, **options).status == "paused"
    result = run(LONG, tmp_path / "run", **options)
    assert (result.status, result.step) == ("spent", 11)
    again = run(LONG, tmp_path / "run", **options)
    assert (again.status, again.step) == ("spent", 11)
    assert run(LONG, tmp_path / "run", **(options | {"env_steps": 93.0})).step == 12


def test_generation_without_a_finite_candidate_stops_and_keeps_the_checkpoint_before(tmp_path):
    trainer = Toy(fails_at=20)
    run(trainer, tmp_path / "run", steps=10)
    with pytest.raises(loop.TrainingError, match=r"meta-step 21 .* of meta-step 10"):
        run(trainer, tmp_path / "run", resume=True)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 10]


def test_validation_is_logged_at_its_steps_however_the_run_is_cut(tmp_path):
    hooks = [validation(lambda state: {"norm": jnp.sum(state.weights**2)}, 15)]
    run(Toy(), tmp_path / "whole", hooks)
    run(Toy(), tmp_path / "cut", hooks, steps=22, chunk=4)
    run(Toy(), tmp_path / "cut", hooks, resume=True)
    assert numbers_logged(tmp_path / "cut") == numbers_logged(tmp_path / "whole")
    assert [row["step"] for row in numbers_logged(tmp_path / "cut") if "validation/norm" in row] == [15, 30, 40]


def test_snapshots_are_taken_at_their_steps_and_wherever_a_run_stops(tmp_path):
    hooks = [weights_every(15)]
    result = run(Toy(), tmp_path / "whole", hooks, chunk=4)
    whole = snapshots(tmp_path / "whole")
    assert sorted(whole) == [0, 15, 30, 40]
    assert whole[40] == np.asarray(result.state.weights).tobytes()
    run(Toy(), tmp_path / "cut", hooks, steps=17)
    assert sorted(snapshots(tmp_path / "cut")) == [0, 15, 17]
    run(Toy(), tmp_path / "cut", hooks, resume=True)
    assert {step: content for step, content in snapshots(tmp_path / "cut").items() if step != 17} == whole


def test_resuming_a_finished_run_leaves_its_last_snapshot(tmp_path):
    run(Toy(), tmp_path / "run")
    run(Toy(), tmp_path / "run", [weights_every(15)], resume=True)
    assert sorted(snapshots(tmp_path / "run")) == [40]


def test_failed_run_leaves_a_snapshot_of_its_end(tmp_path):
    with pytest.raises(loop.TrainingError):
        run(Toy(fails_at=20), tmp_path / "run", [weights_every(15)], chunk=1)
    assert sorted(snapshots(tmp_path / "run")) == [0, 15, 21]


def test_snapshots_and_validation_change_no_bit(tmp_path):
    result = run(Toy(), tmp_path / "cut", [validation(lambda state: {}, 6), weights_every(7)])
    assert bits(result.state) == bits(run(Toy(), tmp_path / "whole").state)
    assert sorted(snapshots(tmp_path / "cut")) == [0, 7, 14, 21, 28, 35, 40]


def test_corrupted_newest_checkpoint_costs_time_not_bits(tmp_path):
    run(Toy(), tmp_path / "run", steps=10)
    run(Toy(), tmp_path / "run", resume=True, steps=20)
    newest = tmp_path / "run" / "checkpoints" / f"{20:010d}"
    next(path for path in newest.rglob("*") if path.is_file()).write_bytes(b"x")
    with pytest.warns(UserWarning, match="0000000020"):
        result = run(Toy(), tmp_path / "run", resume=True)
    assert bits(result.state) == bits(run(Toy(), tmp_path / "whole").state)
    assert steps_logged(tmp_path / "run") == list(range(1, 41))


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 41},
        {"chunk": 129},
        {"minutes": math.nan},
        {"env_steps": 0.0},
        {"seed": -1},
        {"checkpoint_seconds": -1.0},
    ],
)
def test_bad_option_fails_before_anything_is_written(tmp_path, options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"RunOptions\.{name} = \S+: it must be .*; .*\."):
        run(Toy(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("hook", [Measurement, Snapshot])
def test_hook_that_would_never_be_due_fails_at_construction(hook):
    with pytest.raises(ValueError, match=r"every = 0: it must be 1 to .* without 'thing', leave the hook out"):
        hook("thing", 0, leave_weights)


def test_two_hooks_of_one_name_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="'weights' is the name of two hooks"):
        run(Toy(), tmp_path / "run", [weights_every(3), weights_every(4)])
    assert not (tmp_path / "run").exists()


def test_hooks_come_before_the_checkpoint_of_their_state_and_snapshots_after_its_row_is_logged(tmp_path):
    out, seen = tmp_path / "run", {"measured": [], "left": []}

    def note(kind, state):
        newest = max(Checkpoints(out / "checkpoints").steps(), default=None)
        seen[kind].append((int(state.step), num_lines(out), newest))
        return {}

    hooks = [Snapshot("look", 20, lambda _, state: note("left", state)), validation(lambda s: note("measured", s), 10)]
    run(Toy(), out, hooks, chunk=10, checkpoint_seconds=0.0)
    assert seen["measured"] == [(10, 0, 0), (20, 10, 10), (30, 20, 20), (40, 30, 30)]
    assert seen["left"] == [(0, 0, None), (20, 20, 10), (40, 40, 30)]


def test_every_measurement_is_logged_under_its_own_name(tmp_path):
    hooks = [Measurement(name, every, lambda state: {"step": state.step}) for name, every in (("a", 20), ("b", 16))]
    run(Toy(), tmp_path / "run", hooks)
    rows = numbers_logged(tmp_path / "run")
    logged = {name: [row[f"{name}/step"] for row in rows if f"{name}/step" in row] for name in "ab"}
    assert logged == {"a": [20.0, 40.0], "b": [16.0, 32.0, 40.0]}
