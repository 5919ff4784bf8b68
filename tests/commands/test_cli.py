"""The command line as its user meets it: what works, and what is said when something cannot."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import metadisco
from metadisco import cli
from metadisco.checkpoints import checkpoint
from metadisco.commands import discovery
from metadisco.core import config
from metadisco.evaluation import suites
from metadisco.evaluation.agents_under_test import inner_loops
from metadisco.meta_training import memory_estimate
from metadisco.objectives.drift import DPODrift
from metadisco.presets import registry
from tests.support import small

FAST = ["--num_steps", "2", "--num_tasks", "2", "--inner.num_workers", "2", "--inner.num_test_workers", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a whole `discover smoke`, shortened."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["discover", "smoke", "--out", str(folder), "--seed", "3", *FAST]) == 0
    return folder


def test_a_run_leaves_everything_that_it_promises(run):
    for name in (
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "objective",
        "evaluation.json",
        "curves.npz",
        "report.html",
    ):
        assert (run / name).exists(), name
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    assert "<html" in (run / "report.html").read_text()


def test_the_evaluation_has_every_agent_and_field(run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert list(evaluation) == ["grid-tiny"]
    agents = evaluation["grid-tiny"]
    assert list(agents) == ["random", "a2c", "discovered", "optimal"]
    for row in agents.values():
        assert {"iqm", "iqm_low", "iqm_high", "mean_return", "num_tasks", "num_seeds"} <= set(row)
        assert row["iqm_low"] <= row["iqm"] <= row["iqm_high"]
    assert agents["random"]["iqm"] == 0.0
    assert agents["optimal"]["iqm"] == 1.0


def test_settings_on_the_command_line_reach_the_run(run):
    (domain,) = json.loads((run / "config.json").read_text())["trainer"]["domains"]
    assert domain["num_tasks"] == 2
    assert domain["inner"]["num_workers"] == 2


def test_the_objective_can_be_loaded_and_taught_with(run):
    discovered = metadisco.load(run / "objective")
    assert discovered.objective.lifetime_features
    assert discovered.provenance["seed"] == 3
    assert discovered.provenance["preset"] == "smoke"
    inner = metadisco.commands.discovery.inner_loop(discovered)
    assert inner.num_workers == 2
    assert inner.objective == discovered.objective


def test_evaluate_writes_the_scores_that_the_run_had(run, tmp_path, capsys):
    path = tmp_path / "scores.json"
    arguments = ["evaluate", str(run / "objective"), "--suite", "grid-tiny", "--seeds", "2", "--seed", "3"]
    arguments += ["--against", *registry.preset("smoke").baselines]
    assert cli.main([*arguments, "--json", str(path)]) == 0
    scores = json.loads(path.read_text())["scores"]
    assert scores == json.loads((run / "evaluation.json").read_text())
    assert "discovered" in capsys.readouterr().out


def test_inspect_says_what_a_checkpoint_is(run, capsys):
    assert cli.main(["inspect", str(run / "objective")]) == 0
    short = capsys.readouterr().out
    assert "More: --scores: its scores on 1 suite; --lives" in short
    assert "grid-tiny" not in short
    assert "What it does to entropy" not in short
    assert len(short.splitlines()) < 80
    assert cli.main(["inspect", str(run / "objective"), "--scores", "--lives"]) == 0
    shown = capsys.readouterr().out
    assert "More:" not in shown
    assert "What it does to entropy" in shown
    for word in (
        "LPG(",
        "log_lifetime",
        "smoke",
        "meta-parameters",
        "grid-tiny",
        "Schedule over the lifetime",
        "N = 64",
    ):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "…" not in shown


@pytest.mark.slow
def test_inspect_checks_a_drift_and_draws_it(tmp_path, capsys):
    folder, pictures = tmp_path / "dpo", tmp_path / "pictures"
    metadisco.save(metadisco.Discovered(metadisco.MirrorLearning(DPODrift()), ()), folder)
    arguments = ["inspect", str(folder), "--out", str(pictures)]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.count("holds") == 3
    assert "D(r, A) >= 0" in shown
    names = ["drift.png", "entropy.png", "gradient.png", "sensitivity.png"]
    assert sorted(path.name for path in pictures.iterdir()) == names
    assert "None: its outputs are the same at every update" in shown
    assert cli.main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite"]) == 0


def test_report_can_be_written_again(run):
    (run / "report.html").unlink()
    assert cli.main(["report", str(run)]) == 0
    assert (run / "report.html").exists()


@pytest.mark.parametrize("kind", ["presets", "suites", "objectives", "checkpoints"])
def test_lists_name_what_there_is(kind, capsys):
    assert cli.main(["list", kind]) == 0
    expected = {
        "presets": registry.PRESETS,
        "suites": suites.SUITES,
        "objectives": ("A2C", "LPG"),
        "checkpoints": metadisco.checkpoints.checkpoint.zoo_names(),
    }[kind]
    shown = capsys.readouterr().out
    assert all(name in shown for name in expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["discover", "quikstart"], ["unknown preset", "Did you mean 'quickstart'?", "ta-lpg-grid"]),
        (["discover", "smoke", "--meta_optimizer.sgma", "1"], ["meta_optimizer.sgma", "meta_optimizer.sigma"]),
        (["discover", "smoke", "--num_tasks"], ["--num_tasks needs a value"]),
        (["discover", "smoke", "extra"], ["unexpected argument 'extra'"]),
        (["discover", "smoke", "--meta_optimizer.sigma.start", "-1"], ["Decay.start must be positive", "-1"]),
        (["discover", "smoke", "--num_tasks", "many"], ["num_tasks", "many"]),
        (["discover", "smoke", "--num_tasks", "0"], ["num_tasks must be at least 1"]),
        (["discover", "smoke", "--curriculum.tasks.lifetimes.shortest", "0"], ["shortest", "0"]),
        (["discover", "smoke", "--meta_optimizer.strategy", "OpenES"], ["OpenES", "Open_ES"]),
        (["discover", "smoke", "--inner.num_workers", "100000000"], ["GiB", "inner.num_workers"]),
        (["discover", "smoke", "--inner.torso", "metadisco.agents.networks:MPL"], ["MPL", "MLP"]),
        (["evaluate", "no-such-checkpoint"], ["no-such-checkpoint"]),
        (["inspect", "no-such-checkpoint"], ["no-such-checkpoint"]),
        (["report", "no-such-folder"], ["no-such-folder"]),
        (["discover", "smoke", "--out", ""], ["--out is empty"]),
        (["discover", ""], ["the preset is empty"]),
        (["discover", "smoke", "--from", ""], ["--from is empty"]),
        (["evaluate", ""], ["the checkpoint is empty"]),
        (["tune", ""], ["the environment is empty"]),
        (["evaluate", "quickstart", "--suite", ""], ["--suite is empty"]),
        (["evaluate", "quickstart", "--json", ""], ["--json is empty"]),
        (["inspect", ""], ["the checkpoint is empty"]),
        (["report", ""], ["the folder is empty"]),
        (["evaluate", "quickstart", "--seeds", "999999999"], ["255,999,999,744 agents", "Lower --seeds or --levels"]),
        (["evaluate", "quickstart", "--levels", "999999999"], ["1,999,999,998 agents", "GiB"]),
        (["evaluate", "quickstart", "--suite", "grid-unseen@99999999999"], ["at most 2,147,483,647"]),
        (["evaluate", "quickstart", "--suite", "grid-unseen@x1e999999999"], ["positive number such as 4"]),
        (["discover", "smoke", "--num_steps", "99999999999"], ["num_steps must be at most 2,147,483,647"]),
        (["discover", "smoke", "--allow", "no module"], ["not the name of a module"]),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("metadisco: error: ")
    assert "Traceback" not in message
    for word in words:
        assert word in message, message
    assert not list(tmp_path.iterdir())  # nothing was begun


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--suite", "grid-unsen"], ["grid-unsen", "grid-unseen"]),
        (["--suite", "grid-tiny@0"], ["positive integer"]),
        (["--suite", "grid-tiny@soon"], ["positive integer"]),
        (["--seeds", "0"], ["--seeds must be at least 1"]),
        (["--against", "a3c"], ["a3c", "a2c"]),
    ],
)
def test_a_mistake_in_an_evaluation_is_answered_in_a_sentence(run, options, words, capsys):
    assert cli.main(["evaluate", str(run / "objective"), *options]) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message, message


def test_a_folder_with_another_run_is_refused(run, capsys):
    assert cli.main(["discover", "smoke", "--out", str(run), "--seed", "3", *FAST]) == 2
    assert "--resume" in capsys.readouterr().err


def test_resuming_with_other_settings_names_them(run, capsys):
    changed = [*FAST[:-1], "3"]
    assert cli.main(["discover", "smoke", "--out", str(run), "--seed", "3", "--resume", *changed]) == 2
    assert "inner.num_test_workers" in capsys.readouterr().err


def test_a_finished_run_is_not_trained_on_or_tested_again_and_says_how_to_go_on(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file() and path.name != ".lock"}
    assert cli.main(["discover", "smoke", "--out", str(copy), "--seed", "3", "--resume", *FAST]) == 0
    said = capsys.readouterr().out
    assert f"{copy} is finished and tested" in said
    assert f"--from {copy}" in said
    assert "Compiling" not in said
    assert before == {path: path.stat().st_mtime_ns for path in before}
    (copy / "report.html").unlink()
    assert cli.main(["discover", "smoke", "--out", str(copy), "--seed", "3", "--resume", *FAST]) == 0
    assert (copy / "report.html").exists()


def test_a_run_that_was_not_tested_is_finished_only_for_who_wants_no_test(run, tmp_path):
    folder, preset = tmp_path / "untested", registry.preset("smoke")
    shutil.copytree(run, folder)
    discovered = checkpoint.load(folder / "objective")
    checkpoint.save(replace(discovered, evaluation={}), folder / "objective", overwrite=True)
    (folder / "evaluation.json").write_text("{}")
    step = discovered.provenance["meta_steps"]
    assert discovery._is_finished(replace(preset, suites=()), folder, step)
    assert not discovery._is_finished(preset, folder, step)


def test_a_warning_is_told_in_a_sentence_without_the_line_of_code_that_raised_it():
    with cli._warnings_as_sentences():
        said = warnings.formatwarning("Skipping checkpoint 2.", UserWarning, "train_state.py", 136, "warnings.warn(")
    assert said == "metadisco: warning: Skipping checkpoint 2.\n"
    assert "train_state.py" in warnings.formatwarning("Skipping.", UserWarning, "train_state.py", 136)


def test_a_run_without_its_checkpoints_is_refused(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints")
    assert cli.main(["discover", "smoke", "--out", str(copy), "--seed", "3", "--resume", *FAST]) == 2
    assert "lost its checkpoints" in capsys.readouterr().err
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 2


def test_help_and_usage_errors_need_no_traceback():
    """In a process of its own, as a shell would: exit codes and what reaches the terminal."""
    command = [sys.executable, "-m", "metadisco.cli"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0
    assert "discover" in helped.stdout
    mistaken = subprocess.run([*command, "list", "nothing"], capture_output=True, text=True, check=False)
    assert mistaken.returncode == 2
    assert "presets" in mistaken.stderr
    assert "Traceback" not in mistaken.stderr


def test_memory_grows_with_what_a_run_keeps():
    base = memory_estimate.estimate(small.trainer())
    assert memory_estimate.estimate(small.trainer(num_tasks=40)) > 2 * base
    table = small.LEVELS.env.spec.observation.num * (5 + 3) * 4
    assert base > 8 * table  # eight lives wait in the population


@pytest.mark.parametrize("name", list(registry.PRESETS))
def test_every_preset_can_be_built_and_begins(name):
    preset = registry.preset(name)
    memory_estimate.check(preset.trainer)
    import jax

    state = jax.eval_shape(preset.trainer.init, jax.eval_shape(jax.random.key, 0))
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(preset.trainer.meta_params(state))]
    assert sum(sizes) > 100
    (objective, *_) = [inner.objective for inner in inner_loops(preset.trainer)]
    initial = jax.tree.leaves(small.population(objective, 1))
    assert all(np.all(np.isfinite(leaf)) for leaf in initial)
    for suite in preset.suites:
        assert suite.partition("@")[0] in suites.SUITES


def test_checkpoints_are_listed_with_whom_they_were_compared_with(capsys):
    assert cli.main(["list", "checkpoints"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"ta-lpg-quick [^:]* grid-unseen: IQM 0.88 \(a2c 0.86\)", listed)
    assert re.search(r"ta-lpo-quick [^:]* Acrobot-v1: IQM 1.00 \(ppo 1.00, dpo 1.0\d\) Pendulum-v1: IQM", listed)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of a user with an objective in a module, which is the current one."""
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom metadisco import PPODrift\n\n\n"
        "@dataclass(frozen=True)\nclass Own(PPODrift):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(config, "_trusted", set())
    yield tmp_path
    sys.modules.pop("mine", None)


def test_a_checkpoint_of_an_objective_of_ones_own_is_read_where_it_is_allowed(own, capsys):
    sys.path.insert(0, str(own))
    rule = config.resolve("mine:Own")()
    metadisco.save(metadisco.Discovered(metadisco.MirrorLearning(rule), ()), own / "checkpoint")
    del sys.modules["mine"]  # as in a new process
    assert cli.main(["inspect", "checkpoint"]) == 2
    assert "--allow mine on the command line" in capsys.readouterr().err
    assert cli.main(["inspect", "checkpoint", "--allow", "mine"]) == 0
    assert "drift=Own(" in capsys.readouterr().out


def test_a_component_of_a_script_is_refused_before_training(own, monkeypatch, capsys):
    sys.path.insert(0, str(own))
    cls = config.resolve("mine:Own")
    monkeypatch.setattr(cls, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)  # a worker of xdist has none
    preset = registry.preset("lpo-quick")
    objective = metadisco.MirrorLearning(cls())
    trainer = replace(
        preset.trainer,
        domains=tuple(replace(each, inner=replace(each.inner, objective=objective)) for each in preset.trainer.domains),
    )
    with pytest.raises(config.ConfigError, match="move its class into a module"):
        metadisco.discover(replace(preset, trainer=trainer), own / "run")
    assert not (own / "run").exists()
