"""A disk that is really full: whatever is written next, the run says so, stops, and goes on once there is room."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace

import jax
import pytest

from metadisco.commands import discovery
from metadisco.core.files import CheckpointError
from metadisco.evaluation import results
from metadisco.presets import registry
from metadisco.runs import loop, progress, trackers
from metadisco.runs.run_folder import RunError
from metadisco.runs.train_state import Checkpoints
from tests.runs.test_faults import assert_nothing_differs, num_lines, whole
from tests.support.disk import fill, free, small_disk
from tests.support.many import ROOT, finish, start
from tests.support.toy import Toy, bits, numbers_logged, quiet, run, validation, weights_every

TRAINER, RARELY = Toy(num_steps=400), 3600.0
WRITERS = {  # what is on the full disk, and what the run writes there: the first to meet it is the one of that name
    "log": ("", {"track": ()}),
    "heartbeat": ("", {"track": ()}),
    "tensorboard": ("tensorboard", {}),
    "snapshots": ("snapshots", {"hooks": [weights_every(8)]}),
    "checkpoints": ("checkpoints", {"checkpoint_seconds": 0.0}),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("full") / "whole"
    return bits(run(TRAINER, out).state), numbers_logged(out)


@pytest.mark.parametrize("name", WRITERS)
def test_whoever_meets_a_full_disk_says_so_and_the_run_goes_on_once_there_is_room(
    tmp_path, monkeypatch, capfd, caplog, uninterrupted, name
):
    monkeypatch.setattr(progress, "MIN_SECONDS", 0.0 if name == "heartbeat" else RARELY)
    monkeypatch.setattr(trackers.TensorBoard, "flush_seconds", 0.0)
    part, changes = WRITERS[name]
    options = {"chunk": 4, "checkpoint_seconds": RARELY, "resume": True} | changes
    hooks = options.pop("hooks", [])
    out = tmp_path / "run"
    run(TRAINER, out, hooks, steps=8, **options)
    with small_disk(out / part) as disk:

        def fill_up(state):
            fill(disk)
            return {}

        with pytest.raises((RunError, CheckpointError), match="No space left on device"):
            run(TRAINER, out, [validation(fill_up, 20), *hooks], **options)
        assert 8 <= Checkpoints(out / "checkpoints").steps()[-1] <= 20
        free(disk)
        result = run(TRAINER, out, hooks, **options)
        assert (bits(result.state), numbers_logged(out)) == uninterrupted
    assert not capfd.readouterr().err
    assert not caplog.records


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # threads of tensorstore
def test_a_disk_that_fills_up_under_a_checkpoint_costs_that_checkpoint(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Checkpoints, "_check_space", lambda *_: None)
    with small_disk(tmp_path / "disk") as disk:
        checkpoints, state = Checkpoints(disk), Toy().init(jax.random.key(0))
        checkpoints.save(1, state)
        fill(disk)
        with pytest.raises(CheckpointError, match="No space left on device"):
            checkpoints.save(2, state)
        free(disk)
        with pytest.warns(UserWarning, match="0000000002: it was not finished"):
            assert checkpoints.restore_latest(state).step == 1
    assert not caplog.records


def test_a_full_disk_at_the_start_is_said(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)
        with pytest.raises(RunError, match=r"Cannot write in .*: No space left on device. Free space"):
            run(Toy(), disk / "run")


def test_a_full_disk_after_the_meta_test_is_said(tmp_path, monkeypatch):
    preset, write = replace(registry.preset("smoke"), suites=(), validate_every=0), results.write_json
    state = preset.trainer.init(jax.random.key(0))
    monkeypatch.setattr(loop, "run", lambda *_, **__: loop.Result("finished", 30, state, 1.0))
    monkeypatch.setattr(discovery, "run_tests", lambda *_, **__: {})
    monkeypatch.setattr(discovery.starts, "lineage_of", lambda _: None)  # the run folder is of the loop
    with small_disk(tmp_path / "disk") as disk:
        monkeypatch.setattr(results, "write_json", lambda *args: (fill(disk), write(*args)))
        with pytest.raises(RunError, match=r"Cannot write in .*run: No space left on device. Free space"):
            discovery.discover(preset, disk / "run", console=quiet())


def fill_while_it_runs(processes, disk, out, num_rows):
    """Fill the disk once a run has logged some meta-steps, and wait for its end: exit codes, and what was said."""
    deadline = time.monotonic() + 120
    while num_lines(out) < num_rows:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.01)
    fill(disk)
    return finish(processes)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_run_whose_disk_fills_up_ends_with_2_and_goes_on_bit_identical(tmp_path, num_processes):
    trainer = {1: "long", 2: "long spread"}[num_processes]
    with small_disk(tmp_path / "disk") as disk:
        spec = {"trainer": trainer, "out": str(disk / "killed"), "options": {"chunk": 4, "checkpoint_seconds": 0.3}}
        processes = start(spec, num_processes, stderr=subprocess.PIPE)
        codes, said = fill_while_it_runs(processes, disk, disk / "killed", 40)
        assert codes == [2] * num_processes, said
        assert all("No space left on device" in each for each in said), said
        assert not any("Traceback" in each for each in said), said
        free(disk)
        result = [str(tmp_path / f"killed-{index}.npz") for index in range(num_processes)]
        codes, said = finish(start(spec, num_processes, stderr=subprocess.PIPE, result=result), timeout=300)
        assert codes == [0] * num_processes, said
        shutil.copytree(disk / "killed", tmp_path / "killed")
    assert_nothing_differs(tmp_path, result[0], whole(tmp_path, trainer, num_processes))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_says_that_the_disk_is_full_and_goes_on_bit_identical(tmp_path):
    def command(out, *more):
        words = ["discover", "smoke", "--out", str(out), "--num_tasks", "4", "--num_steps", "400", *more]
        code = "import sys; from metadisco.cli import main; sys.exit(main())"
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return [subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, **streams)]

    with small_disk(tmp_path / "disk") as disk:
        out = disk / "run"
        codes, said = fill_while_it_runs(command(out), disk, out, 5)
        assert codes == [2], said
        assert said[0].startswith("metadisco: error: Cannot write")
        assert "No space left on device" in said[0]
        assert "Traceback" not in said[0]
        free(disk)
        codes, said = finish(command(out, "--resume"), timeout=300)
        assert codes == [0], said
        resumed = (out / "objective" / "meta_params.safetensors").read_bytes()
    codes, said = finish(command(tmp_path / "whole"), timeout=300)
    assert codes == [0], said
    assert (tmp_path / "whole" / "objective" / "meta_params.safetensors").read_bytes() == resumed
