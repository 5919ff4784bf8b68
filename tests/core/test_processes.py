"""One run, any number of devices and processes: the same numbers, and an error on all where there is one on one."""

import json
import os
import subprocess
import time

import jax
import numpy as np
import pytest

from metadisco import cli
from metadisco.core import processes, sharding
from metadisco.core.files import is_key, named_leaves
from metadisco.runs import compiled_steps
from metadisco.runs.train_state import Checkpoints
from tests.support import toy
from tests.support.many import finish, start, trainer_named

# What the order of a reduction may change: a few units in the last place of float32 in every sum, over few meta-steps.
# Relative to the largest number of an array.
BOUND = 1e-5


def numbers(path):
    with np.load(path) as found:
        return dict(found)


def assert_same_up_to_order(found, wanted, bound=BOUND):
    """On several processes what is spread over them is left out."""
    assert set(found) <= set(wanted)
    assert any("meta" in name or "weights" in name for name in found)
    for name, values in found.items():
        size = np.abs(wanted[name])
        largest = size.max(initial=1e-3, where=np.isfinite(size))  # what was never measured is infinite on all
        np.testing.assert_allclose(values, wanted[name], rtol=0, atol=bound * largest)


def go(folder, name, num_processes=1, **spec):
    """Run to the end; what each process ends with."""
    results = [str(folder / f"{name}-{index}.npz") for index in range(num_processes)]
    spec = {"out": str(folder / name)} | spec
    codes, said = finish(start(spec, num_processes, stderr=subprocess.PIPE, result=results), timeout=900)
    assert codes == [0] * num_processes, said
    return [numbers(result) for result in results]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def eight(folder):
    return go(folder, "eight", trainer="spread", devices=8)[0]


@pytest.fixture(scope="module")
def stopped(folder):
    """Two processes, of which one is told to stop: exit codes, what they said, and how long it took."""
    spec = {"trainer": "long spread", "out": str(folder / "stopped"), "options": {"chunk": 4, "steps": 3000}}
    started = start(spec, 2, stderr=subprocess.PIPE)
    path, deadline = folder / "stopped" / "metrics.jsonl", time.monotonic() + 100
    while not (path.exists() and path.read_bytes().count(b"\n") > 8) and time.monotonic() < deadline:
        time.sleep(0.01)
    started[1].terminate()
    begun = time.monotonic()
    codes, said = finish(started)
    return codes, said, time.monotonic() - begun


@pytest.mark.parametrize("num_devices", [1, 2])
def test_one_two_and_eight_devices_give_the_same_numbers(tmp_path, monkeypatch, eight, num_devices):
    mesh = sharding.population_mesh(jax.devices()[:num_devices])
    for module in (compiled_steps, toy):
        monkeypatch.setattr(module, "population_mesh", lambda: mesh)
    state = toy.run(toy.Spread(), tmp_path / "run").state
    found = {name: np.asarray(leaf) for name, leaf in named_leaves(state).items() if not is_key(leaf)}
    assert_same_up_to_order(found, eight)


def test_two_processes_give_the_same_numbers_as_eight_devices(folder, eight):
    first, second = go(folder, "two processes", 2, trainer="spread", devices=2)
    assert_same_up_to_order(first, eight)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_signal_to_one_process_saves_and_stops_all_in_time(folder, stopped):
    codes, said, seconds = stopped
    assert codes == [143, 143], said
    out = folder / "stopped"
    heartbeat = json.loads((out / "heartbeat.json").read_text())
    assert heartbeat["status"] == "interrupted"
    assert seconds < heartbeat["stop_seconds"] + 10.0  # and what JAX needs to shut down
    assert Checkpoints(out / "checkpoints").steps()[-1] == heartbeat["meta_step"]
    assert heartbeat["meta_step"] == json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def test_what_two_processes_saved_one_goes_on_with(folder, stopped):
    out = folder / "stopped"
    before = Checkpoints(out / "checkpoints").steps()[-1]
    result = toy.run(trainer_named("long spread"), out, resume=True, chunk=4, steps=before + 4)
    assert result.step == before + 4
    rows = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, before + 5))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trainer", ["evolution", "gradient"])
def test_meta_training_gives_the_same_numbers_on_1_2_and_8_devices_and_2_processes(tmp_path, trainer):
    one = go(tmp_path, "one", trainer=trainer, devices=1)[0]
    for name, num_processes, devices in (("two", 1, 2), ("eight", 1, 8), ("two processes", 2, 1), ("2 x 4", 2, 4)):
        for found in go(tmp_path, name, num_processes, trainer=trainer, devices=devices):
            assert_same_up_to_order(found, one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"options": [{"seed": 3}, {"seed": 4}]}, "seed: 3 -> 4"),
        ({"devices": [1, 2]}, "local_devices: 1 -> 2"),
        ({"trainer": ["spread", "long"]}, "settings: 'tests.support.toy:Spread' -> 'tests.support.toy:Toy'"),
    ],
)
def test_processes_with_different_settings_are_refused_on_all(tmp_path, changes, complaint):
    spec = {"trainer": "spread", "out": str(tmp_path / "run")}
    codes, said = refused(spec, 2, **changes)
    assert codes == [2, 2], said
    assert all("process 1" in each and complaint in each for each in said), said


@pytest.mark.slow
def test_another_folder_is_refused_on_all(tmp_path):
    codes, said = refused({"trainer": "spread"}, 2, out=[str(tmp_path / "one"), str(tmp_path / "other")])
    assert codes == [2, 2], said
    assert all("is not the same folder here as on process 0" in each for each in said), said


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_checkpoint_folder_that_is_not_writable_is_refused_on_all(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True, mode=0o500)
    codes, said = refused({"trainer": "spread", "out": str(tmp_path / "run")}, 2)
    assert codes == [2, 2], said


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_refused_on_all(tmp_path):
    (tmp_path / "file").write_text("")
    codes, said = refused({"trainer": "spread", "out": str(tmp_path / "file" / "run")}, 2)
    assert codes == [2, 2], said
    assert all("Cannot write in" in each for each in said), said


@pytest.mark.slow
def test_other_settings_on_resume_are_refused_on_all(tmp_path):
    spec = {"trainer": "spread", "out": str(tmp_path / "run"), "options": {"steps": 2}}
    assert finish(start(spec))[0] == [0]
    codes, said = refused(spec | {"options": {"steps": 2, "seed": 5}}, 2)
    assert codes == [2, 2], said
    assert all("seed: 3 -> 5" in each for each in said), said


@pytest.mark.slow
def test_a_failure_in_the_middle_ends_all_with_its_reason(tmp_path):
    spec = {"trainer": "long spread", "out": str(tmp_path / "run"), "options": {"checkpoint_seconds": 0.0}}
    codes, said = refused(spec, 2, full_at=[10**9, 50])
    assert codes == [2, 2], said
    assert all("No space left on device" in each for each in said), said


def refused(spec, num_processes, **changes):
    """Exit codes and what was said, all within 30 seconds but for what starting Python takes."""
    begun = time.monotonic()
    ended = finish(start(spec, num_processes, stderr=subprocess.PIPE, **changes))
    assert time.monotonic() - begun < 60.0
    return ended


def test_alone_everything_is_trivial():
    assert not processes.is_joined()
    assert processes.is_first()
    assert processes.exchange("word") == ["word"]
    assert processes.agree(3, -1) == [3, -1]
    processes.require_same({"seed": 0})
    processes.leave(1, "failure")
    with pytest.raises(OSError, match="full"), processes.together():
        raise OSError("full")
    with pytest.raises(ValueError, match="Gloo"), processes.lost_processes():
        raise ValueError("Gloo")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--coordinator", "localhost:1"], "need --distributed"),
        (["--distributed", "--coordinator", "nowhere", "--num-processes", "2", "--process-id", "1"], "write HOST:PORT"),
        (["--distributed", "--coordinator", "h:1", "--num-processes", "2", "--process-id", "2"], "must be 0 to 1"),
        (["--distributed"], "give --coordinator too"),
    ],
)
def test_a_run_of_several_processes_that_cannot_be_is_refused(options, complaint, capsys, monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["discover", "smoke", *options]) == 2
    assert complaint in capsys.readouterr().err


def test_no_coordinator_is_exit_code_2_in_time(capsys):
    begun = time.monotonic()
    options = ["--coordinator", "127.0.0.1:9", "--num-processes", "2", "--process-id", "1", "--join-seconds", "0.5"]
    assert cli.main(["discover", "smoke", "--distributed", *options]) == 2
    assert time.monotonic() - begun < 10.0
    assert "No coordinator at 127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("num_tasks", "replicas", "num_devices", "nearest"),
    [(10, 1, 8, "8 or 16"), (3, 1, 8, "8"), (6, 2, 8, "4 or 8"), (5, 2, 6, "3 or 6"), (7, 2, 3, "6 or 9")],
)
def test_a_population_that_devices_cannot_share_is_refused_with_the_nearest_that_they_can(
    monkeypatch, num_tasks, replicas, num_devices, nearest
):
    monkeypatch.setattr(jax, "device_count", lambda: num_devices)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match=f"nearest that they can is tasks = {nearest}. "):
        sharding.check_even(num_tasks, replicas, name="tasks")
    for each in nearest.split(" or "):
        sharding.check_even(int(each), replicas)


def test_on_a_cpu_alone_any_population_runs(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 6)
    sharding.check_even(64, 2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="num_tasks = 63 or 66"):
        sharding.check_even(64, 2)


def test_the_code_of_a_run_is_its_sources():
    from metadisco.core.provenance import code_digest

    assert code_digest() == code_digest(["metadisco.runs.loop"]) != code_digest([type(toy.LONG).__module__])
