"""Curves go where they were asked to go, and nowhere else."""

import sys
import types

import pytest

from metadisco import cli
from metadisco.runs import trackers
from tests.support.toy import Toy, run


class FakeRun:
    def __init__(self, settings):
        self.settings, self.rows, self.is_finished = settings, [], False

    def log(self, scalars, step):
        self.rows.append((step, scalars))

    def finish(self):
        self.is_finished = True


@pytest.fixture
def runs(monkeypatch):
    """What was begun with a Weights & Biases that only takes notes."""
    begun = []

    def init(**settings):
        begun.append(FakeRun(settings))
        return begun[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return begun


def test_wandb_gets_the_scalars_of_each_chunk_and_the_settings(tmp_path, runs):
    run(Toy(num_steps=6), tmp_path / "run", chunk=2, track=[trackers.Wandb])
    (only,) = runs
    assert [step for step, _ in only.rows] == [2, 4, 6]
    assert set(only.rows[0][1]) == {"fitness", "agent_updates", "env_steps", "finite_fraction"}
    assert only.settings["config"]["trainer"]["num_steps"] == 6
    assert only.settings["dir"] == str(tmp_path / "run")
    assert only.is_finished


def test_wandb_stays_on_this_machine_unless_asked(tmp_path, runs):
    run(Toy(), tmp_path / "run", track=[trackers.Wandb])
    assert runs[0].settings["mode"] == "offline"
    run(Toy(), tmp_path / "other", track=[lambda *where: trackers.Wandb(*where, mode="online")])
    assert runs[1].settings["mode"] == "online"


def test_a_resumed_run_is_the_same_run_of_wandb(tmp_path, runs):
    run(Toy(), tmp_path / "run", steps=3, track=[trackers.Wandb])
    run(Toy(), tmp_path / "run", resume=True, track=[trackers.Wandb])
    run(Toy(), tmp_path / "other", track=[trackers.Wandb], provenance={"preset": "other"})
    first, resumed, other = (each.settings["id"] for each in runs)
    assert first == resumed != other


def test_wandb_that_is_not_installed_is_said_before_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert cli.main(["discover", "smoke", "--out", str(tmp_path / "run"), "--wandb", "offline"]) == 2
    assert "pip install 'metadisco[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tensorboard_that_is_not_installed_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert run(Toy(), tmp_path / "run").status == "finished"
    assert not (tmp_path / "run" / "tensorboard").exists()
