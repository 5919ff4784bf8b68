"""Sweeps: what is refused before anything runs, seeds in one program, and going on after an interruption."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
import pytest

import metadisco
from metadisco import cli
from metadisco.commands import discovery, sweep, sweep_table
from metadisco.core import config
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_training import memory_estimate
from metadisco.meta_training.batched_seeds import BatchedSeeds, SeedLogs, label, log_of_seed, rows_of_seed
from metadisco.presets import registry
from metadisco.runs import run_folder
from metadisco.runs.compiled_steps import compile_chunk, first_key
from metadisco.runs.train_state import Checkpoints
from tests.support import small, toy
from tests.support.disk import fill, small_disk
from tests.support.many import ROOT, finish, free_address
from tests.support.toy import Toy, quiet

TINY = ["--num_tasks", "2", "--inner.num_workers", "2", "--inner.num_test_workers", "2"]
LENGTHS = ["--sweep", "num_steps=2,3", "--seeds", "2", "--seed", "3"]  # not in the program: it is compiled once
FIRST = "num_steps=2"
BOUND = 1e-6  # of meta-parameters of order 1, after some meta-steps: what the order of reductions can do


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two settings and two seeds that was interrupted in the third meta-test and gone on with."""
    folder = tmp_path_factory.mktemp("sweep") / "runs"
    arguments = ["discover", "smoke", "--out", str(folder), *LENGTHS, *TINY]
    finish, calls = discovery.finish, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return finish(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discovery, "finish", interrupted)
        assert cli.main(arguments) == 130
        tested = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/evaluation.json")}
        assert cli.main([*arguments, "--resume"]) == 0
    return folder, arguments, tested, len(calls)


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_and_skips_what_is_done(swept):
    folder, _, tested, num_calls = swept
    assert len(tested) == 2
    assert all(path.stat().st_mtime_ns == before for path, before in tested.items())
    assert num_calls == 5  # the interrupted test again, and the last
    runs = json.loads((folder / "sweep.json").read_text())["runs"]
    assert [run["status"] for run in runs.values()] == ["done"] * 4


@pytest.mark.slow
def test_every_run_of_a_sweep_has_a_folder_that_can_be_reported(swept):
    folder = swept[0]
    runs = sorted(folder.glob("*/seed*"))
    assert len(runs) == 4
    assert cli.main(["report", str(runs[0])]) == 0
    for run in runs:
        num_steps = int(run.parent.name.removeprefix("num_steps="))
        assert len(run_folder.read_metrics(run / "metrics.jsonl")) == num_steps
        assert metadisco.load(run / "objective").provenance["seed"] == int(run.name.removeprefix("seed"))


@pytest.mark.slow
def test_table_has_the_mean_over_seeds_of_each_setting(swept):
    folder = swept[0]
    rows = json.loads((folder / "sweep.json").read_text())["table"]
    assert [row["values"] for row in rows] == [{"num_steps": "2"}, {"num_steps": "3"}]
    for row in rows:
        score = row["scores"]["grid-tiny"]
        paths = [folder / row["setting"] / f"seed{seed}" / "evaluation.json" for seed in (3, 4)]
        iqms = [json.loads(path.read_text())["grid-tiny"]["discovered"]["iqm"] for path in paths]
        assert score["mean"] == pytest.approx(np.mean(iqms))
        # Student's quantile for one degree of freedom is 12.706; the error of a mean of two is half their distance.
        assert score["high"] - score["mean"] == pytest.approx(12.706 * abs(iqms[0] - iqms[1]) / 2, rel=1e-4)
        assert f"{score['mean']:.3f} ({score['low']:.3f} to {score['high']:.3f})" in (folder / "sweep.md").read_text()


@pytest.mark.slow
def test_a_run_of_a_sweep_ends_as_the_run_alone(swept, tmp_path):
    trainer = config.from_data(run_folder.read_config(swept[0] / FIRST / "seed4")["trainer"])
    alone, placement = compile_chunk(trainer)
    first = jax.device_put(jax.jit(trainer.init)(first_key(jax.random.key(4))), placement)
    state, _ = alone(4, first, 2)
    small.assert_trees_close(
        trainer.meta_params(state), metadisco.load(swept[0] / FIRST / "seed4" / "objective").meta_params, atol=BOUND
    )
    restored = Checkpoints(swept[0] / FIRST / "seed4" / "checkpoints").restore_latest(state)
    small.assert_trees_close(state, restored.state, atol=BOUND)


@pytest.mark.slow
def test_a_changed_sweep_is_refused_and_the_change_named(swept, capsys):
    _, arguments, _, _ = swept
    changes = {
        ("--seeds", "1"): "seed 4: is not asked for now",
        ("--num_tasks", "3"): "trainer.domains.0.num_tasks: 2 -> 3",
        ("--sweep", "num_steps=2,4"): "num_steps=3: is not asked for now",
    }
    for (option, value), words in changes.items():
        changed = list(arguments)
        changed[changed.index(option) + 1] = value
        assert cli.main([*changed, "--resume"]) == 2
        message = capsys.readouterr().err
        assert "holds another sweep" in message
        assert words in message
    assert cli.main(arguments) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sweep", "num_tasks"], ["num_tasks=64,128"]),
        (["--sweep", "num_tasks=2,,4"], ["FIELD=VALUE"]),
        (["--sweep", "num_tsks=2,4"], ["num_tsks", "num_tasks"]),
        (["--sweep", "num_tasks=2,many"], ["many"]),
        (["--sweep", "num_tasks=2,0"], ["num_tasks must be at least 1"]),
        (["--sweep", "num_tasks=2,2"], ["value 2 twice"]),
        (["--sweep", "num_tasks=2", "--sweep", "num_tasks=3"], ["num_tasks twice"]),
        (["--sweep", "meta_optimizer.sigma.start=0.1,0.10"], ["the same setting"]),
        (["--sweep", "num_tasks=2,3", "--num_tasks", "4"], ["one of the two"]),
        (["--sweep", "inner.num_workers=8,100000000"], ["GiB"]),
        (["--sweep", "num_tasks=2,3", "--seeds", "0"], ["--seeds must be 1 to"]),
        (["--seeds", "99999999"], ["at most 10,000"]),
        (["--sweep", "num_tasks=2,3", "--seeds", "9999"], ["19,998 runs"]),
    ],
)
def test_a_mistake_in_a_sweep_is_known_before_anything_runs(options, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["discover", "smoke", *options]) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message, message
    assert not list(tmp_path.iterdir())


def test_settings_are_every_combination():
    fields = sweep.parse(["num_tasks=2,3", "inner.num_workers=4,8"])
    planned = sweep.plan(registry.preset("smoke"), fields, range(2))
    domains = [each.preset.trainer.domains[0] for each in planned.settings]
    chosen = [(domain.num_tasks, domain.inner.num_workers) for domain in domains]
    assert chosen == [(2, 4), (2, 8), (3, 4), (3, 8)]
    assert planned.settings[1].name == "num_tasks=2,inner.num_workers=8"


def test_commas_in_brackets_belong_to_a_value():
    assert sweep.parse(["inner.torso.widths=(32,32),(64,)"]) == {"inner.torso.widths": ("(32,32)", "(64,)")}


def test_meta_gradients_and_caps_on_env_steps_are_queued(monkeypatch):
    monkeypatch.setattr(memory_estimate, "num_side_by_side", lambda trainer: 2)
    smoke = registry.preset("smoke")
    assert sweep._groups(smoke, (0, 1, 2)) == [(0, 1), (2,)]
    assert sweep._groups(replace(smoke, env_steps=1e6), (0, 1)) == [(0,), (1,)]
    assert sweep._groups(registry.preset("lpg-grid-gradient"), (0, 1)) == [(0,), (1,)]


def test_groups_that_were_begun_stay_when_seeds_are_added(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_estimate, "num_side_by_side", lambda trainer: 3)
    smoke = registry.preset("smoke")
    (tmp_path / "together-3-4").mkdir()
    for seed in (3, 4, 6):
        (tmp_path / f"seed{seed}" / "checkpoints").mkdir(parents=True)
    begun = sweep._begun(tmp_path, tuple(range(10)))
    assert begun == [(3, 4), (6,)]
    assert sweep._groups(smoke, tuple(range(10)), begun) == [(0, 1, 2), (3, 4), (5,), (6,), (7, 8, 9)]
    assert sweep._begun(tmp_path / "none", (0, 1)) == []


def test_a_sweep_can_grow_in_seeds_and_settings(tmp_path, monkeypatch):
    """Queued runs: what is done stays, and only what is new is run."""
    smoke, asked = replace(registry.preset("smoke"), env_steps=1e9), []

    def discover(preset, out, *, seed, resume, start, console):
        asked.append((preset.trainer.num_steps, seed))
        out.mkdir(parents=True)
        (out / "evaluation.json").write_text(json.dumps({"grid-tiny": {"discovered": {"iqm": 0.5 + 0.1 * seed}}}))
        return discovery.Discovery(None, out, 0)

    monkeypatch.setattr(discovery, "discover", discover)
    plans = [(("2",), 2), (("2",), 3), (("2", "3"), 3)]
    for values, num_seeds in plans:
        planned = sweep.plan(smoke, {"num_steps": values}, range(num_seeds))
        assert sweep.run(planned, tmp_path / "out", resume=True, console=quiet()) == 0
    assert asked == [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["table"]
    assert [row["seeds"] for row in rows] == [[0, 1, 2], [0, 1, 2]]
    with pytest.raises(run_folder.RunError, match="seed 2: is not asked for now"):
        sweep.run(sweep.plan(smoke, {"num_steps": ("2", "3")}, range(2)), tmp_path / "out", resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [small.trainer().meta_optimizer, LowRankEvolution()], ids=["full", "low rank"])
def test_seeds_in_one_program_end_as_each_alone(optimizer):
    trainer, seeds, num_steps = small.trainer(optimizer, num_steps=20), (3, 4, 8), 20
    together = BatchedSeeds(trainer, seeds)
    advance, placement = compile_chunk(together)
    begun = jax.device_put(together.init(jax.random.key(0)), placement)
    states, rows = advance(0, begun, num_steps)
    alone, placement = compile_chunk(trainer)
    for seed in seeds[:2]:
        root = jax.random.key(seed)
        state, expected = alone(seed, jax.device_put(jax.jit(trainer.init)(first_key(root)), placement), num_steps)
        np.testing.assert_array_equal(rows[label("fitness", seed)], expected["fitness"])
        found = trainer.meta_params(together.of_seed(states, seed))
        small.assert_trees_close(trainer.meta_params(state), found, rtol=0, atol=BOUND)


def test_log_of_one_seed_is_as_its_own():
    own = {"fitness/seed1": 0.25, "validation/iqm/seed1": 0.125}
    row = {"step": 1, "seconds": 2.0, "fitness": 0.5, "fitness/seed11": 3.0} | own
    assert rows_of_seed([row], 1) == [{"step": 1, "seconds": 2.0, "fitness": 0.25, "validation/iqm": 0.125}]


def test_equal_seeds_are_refused():
    with pytest.raises(ValueError, match="different"):
        BatchedSeeds(small.trainer(), (1, 1))


def test_a_run_that_fails_is_noted_and_the_others_are_tabled(tmp_path, monkeypatch):
    """Queued runs of which the second has no finite candidate; the table has the others, and says why."""
    planned = sweep.plan(replace(registry.preset("smoke"), env_steps=1e9), {}, (0, 1, 2))
    asked = []

    def discover(preset, out, *, seed, resume, start, console):
        asked.append(seed)
        if seed == 1:
            raise metadisco.runs.loop.TrainingError("No candidate of meta-step 7 has a finite fitness")
        out.mkdir(parents=True)
        (out / "evaluation.json").write_text(json.dumps({"grid-tiny": {"discovered": {"iqm": 0.5 + 0.1 * seed}}}))
        return discovery.Discovery(None, out, 0)

    monkeypatch.setattr(discovery, "discover", discover)
    for resume in (False, True):
        assert sweep.run(planned, tmp_path / "out", resume=resume, console=quiet()) == 0
    assert asked == [0, 1, 2]  # a failed run would meet the same numbers again
    text = (tmp_path / "out" / "sweep.md").read_text()
    assert "2 of 3" in text
    assert "0.600" in text
    assert "preset/seed1: No candidate of meta-step 7" in text


def test_a_signal_stops_a_sweep(tmp_path, monkeypatch):
    planned = sweep.plan(replace(registry.preset("smoke"), env_steps=1e9), {}, (0, 1))
    monkeypatch.setattr(discovery, "discover", lambda preset, out, **_: discovery.Discovery(None, out, 143))
    assert sweep.run(planned, tmp_path / "out", console=quiet()) == 143
    assert not json.loads((tmp_path / "out" / "sweep.json").read_text())["runs"]


@dataclass(frozen=True)
class Labelled:
    """A toy whose metrics are those of two seeds."""

    num_steps: int = 40

    def init(self, key):
        return Toy().init(key)

    def step(self, key, state):
        state, metrics = Toy().step(key, state)
        return state, metrics | {label("fitness", seed): seed * metrics["fitness"] for seed in (1, 2)}


def test_seeds_show_their_own_rows_on_the_way_and_none_twice_after_a_kill(tmp_path):
    homes, seen = {seed: tmp_path / f"seed{seed}" for seed in (1, 2)}, []
    for home in homes.values():
        home.mkdir()

    def look(_):
        seen.append([len(run_folder.read_metrics(home / "metrics.jsonl")) for home in homes.values()])
        return {}

    options, hooks = {"track": [partial(SeedLogs, homes=homes)], "chunk": 4}, [toy.validation(look, 8)]
    group = tmp_path / "group"
    toy.run(Labelled(), group, hooks, steps=20, **options)
    assert seen == [[4, 4], [12, 12]]  # all but the present chunk
    for folder in (group, homes[1]):  # a kill after more meta-steps, which come again
        with (folder / "metrics.jsonl").open("a") as log:
            log.write('{"step": 21, "fitness/seed1": 0.0, "seconds": 99.0}\n{"step": 22, ')
    toy.run(Labelled(), group, hooks, resume=True, **options)
    rows = run_folder.read_metrics(group / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 41))
    for seed, home in homes.items():
        assert (home / "metrics.jsonl").read_text() == log_of_seed(rows, seed, 2)
        assert run_folder.read_metrics(home / "metrics.jsonl")[9]["fitness"] == rows[9][f"fitness/seed{seed}"]
        assert len(list((home / "tensorboard").iterdir())) == 2


def processes(folder, *arguments):
    """A sweep in two processes, with the arguments of each."""
    address, code = free_address(), "import sys; from metadisco.cli import main; sys.exit(main())"
    several = ["--distributed", "--coordinator", address, "--num-processes", "2"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    several += ["--out", str(folder), "--resume"]
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments[index], *several, "--process-id", str(index)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_of_two_processes_of_which_one_is_killed_ends_with_the_table_of_one(swept, tmp_path):
    first, arguments = tmp_path / "runs" / FIRST / "seed3", ["discover", "smoke", *LENGTHS, *TINY]
    begun, deadline = processes(tmp_path / "runs", arguments, arguments), time.monotonic() + 300
    while not run_folder.read_metrics(first / "metrics.jsonl"):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in begun), finish(begun)
        time.sleep(0.01)
    assert cli.main(["report", str(first)]) == 0
    begun[1].kill()
    codes, said = finish(begun)
    assert codes[0] in (75, -6), said
    codes, said = finish(processes(tmp_path / "runs", arguments, arguments), timeout=400)
    assert codes == [0, 0], "\n".join(said)
    assert_same_sweep(tmp_path / "runs", swept[0])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_full_disk_in_a_meta_test_ends_the_processes_that_wait_for_it(tmp_path):
    arguments = ["discover", "smoke", *LENGTHS, *TINY]
    with small_disk(tmp_path / "disk") as disk:
        begun, deadline = processes(disk / "runs", arguments, arguments), time.monotonic() + 300
        while not (disk / "runs" / FIRST / "seed3" / "objective").exists():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in begun), finish(begun)
            time.sleep(0.01)
        fill(disk)
        codes, said = finish(begun)
    assert codes == [2, 2], "\n".join(said)
    assert all("No space left on device" in each for each in said), said


def assert_same_sweep(found, wanted):
    tables = [json.loads((folder / "sweep.json").read_text())["table"] for folder in (found, wanted)]
    for one, other in zip(*tables, strict=True):
        assert {**one, "scores": None} == {**other, "scores": None}
        for suite, score in one["scores"].items():
            np.testing.assert_allclose(score["values"], other["scores"][suite]["values"], atol=1e-5)
    for path in sorted(wanted.glob("*/seed*")):
        own = found / path.relative_to(wanted)
        trainer = config.from_data(run_folder.read_config(path)["trainer"])
        shapes = jax.eval_shape(trainer.init, jax.random.key(0))
        states = [Checkpoints(folder / "checkpoints").restore_latest(shapes).state for folder in (own, path)]
        small.assert_trees_close(*states, rtol=0, atol=1e-5)
        logs = [run_folder.read_metrics(folder / "metrics.jsonl") for folder in (own, path)]
        assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]


@pytest.mark.slow
def test_different_sweeps_are_refused_on_all_processes(tmp_path):
    arguments = [["discover", "smoke", *LENGTHS, *TINY, "--seed", str(seed)] for seed in (3, 4)]
    codes, said = finish(processes(tmp_path / "runs", *arguments))
    assert codes == [2, 2], said
    assert all("seeds.0: 3 -> 4" in each for each in said), said


def test_folders_that_are_no_sweep_are_refused(tmp_path):
    (tmp_path / "thing").write_text("")
    with pytest.raises(run_folder.RunError, match="not a sweep"):
        sweep_table.Manifest.open(tmp_path, {}, False)
    with pytest.raises(run_folder.RunError, match="is a file"):
        sweep_table.Manifest.open(tmp_path / "thing", {}, False)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(run_folder.RunError, match="damaged"):
        sweep_table.Manifest.open(tmp_path, {}, True)
