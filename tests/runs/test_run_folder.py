"""A run folder belongs to one run and one process, and says what the run was."""

import json
import os
from dataclasses import replace

import jax
import pytest

from metadisco.core import config
from metadisco.runs import run_folder
from metadisco.runs.run_folder import RunError, cut_metrics, read_config
from tests.support.toy import Toy, run, validation


def test_half_written_and_surplus_lines_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "seconds": step / 2}) + "\n" for step in (1, 2, 3)]
    path.write_text("".join(lines) + '{"step": 4, "sec')
    assert cut_metrics(path, 2) == 1.0
    assert path.read_text() == "".join(lines[:2])
    path.write_text(lines[0] + '{"step": 2, "sec')
    assert cut_metrics(path, 9) == 0.5
    assert path.read_text() == lines[0]


def test_folder_with_another_run_is_refused_without_resume(tmp_path):
    run(Toy(), tmp_path / "run", steps=1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match="--resume"):
        run(Toy(), tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(RunError, match="not a run"):
        run(Toy(), tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_with_other_settings_is_refused_naming_them(tmp_path):
    run(Toy(), tmp_path / "run", steps=1)
    with pytest.raises(RunError, match=r"rate: 0.1 -> 0.2\n  seed: 3 -> 4"):
        run(replace(Toy(), rate=0.2), tmp_path / "run", seed=4, resume=True)


@pytest.mark.parametrize("origin", [{}, {"versions": None}, []])
def test_resume_without_the_versions_that_began_a_run_warns(tmp_path, origin):
    run(Toy(), tmp_path / "run", steps=1)
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"provenance": origin}))
    with pytest.warns(UserWarning, match="begun with jax of an unknown version"):
        assert run(Toy(), tmp_path / "run", resume=True).status == "finished"


def test_resume_by_other_code_is_refused_unless_asked(tmp_path, monkeypatch):
    run(Toy(), tmp_path / "run", steps=1)
    monkeypatch.setattr(run_folder, "code_digest", lambda modules: "other")
    with pytest.raises(RunError, match=r"by other code \(digest \w{16}, now other\).*--other-code"):
        run(Toy(), tmp_path / "run", resume=True)
    with pytest.warns(UserWarning, match="by other code"):
        assert run(Toy(), tmp_path / "run", resume=True, other_code=True).status == "finished"


def test_folder_in_use_is_refused_naming_the_process(tmp_path):
    def fail(_):
        with pytest.raises(RunError, match=f"process {os.getpid()}"):
            run(Toy(), tmp_path / "run", resume=True)
        return {}

    run(Toy(num_steps=40), tmp_path / "run", [validation(fail, 40)])


def test_lock_of_a_dead_process_is_taken_over(tmp_path):
    (tmp_path / ".lock").write_text("999999\n")
    assert run(Toy(), tmp_path).status == "finished"


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        run(Toy(), tmp_path / "file")
    with pytest.raises(RunError, match="Cannot write in"):
        run(Toy(), tmp_path / "file" / "run")


def test_config_holds_the_trainer_and_its_origin(tmp_path):
    run(Toy(rate=0.3), tmp_path / "run", steps=1, provenance={"preset": "toy"})
    document = read_config(tmp_path / "run")
    assert config.from_data(document["trainer"]) == Toy(rate=0.3)
    assert document["seed"] == document["provenance"]["seed"] == 3
    assert document["provenance"]["preset"] == "toy"
    assert document["provenance"]["versions"]["jax"] == jax.__version__


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    run(Toy(), tmp_path / "run")
    assert any(path.stat().st_size > 100 for path in (tmp_path / "run" / "tensorboard").iterdir())


def test_a_config_whose_trainer_is_none_is_said_to_be_damaged(tmp_path):
    document = {"format_version": run_folder.FORMAT_VERSION, "trainer": 1.5, "seed": 0, "provenance": {}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"damaged: trainer is 1.5"):
        read_config(tmp_path)


@pytest.mark.parametrize("trainer", [{}, {"domains": 3}, {"domains": [None]}, {"domains": [{"inner": [1]}]}])
def test_a_trainer_without_an_objective_has_none(trainer):
    assert run_folder.objective_of(trainer) == {}
