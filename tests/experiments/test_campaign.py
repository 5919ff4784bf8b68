"""A queue of runs: read, worked off, killed, taken up again, and summed up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import campaign
from metadisco.core.config import ConfigError

ROOT = Path(__file__).parents[2]
TINY = """
[[run]]
name = "tiny"
preset = "smoke"
seeds = [0, 1]
settings = { num_steps = 2, num_tasks = 2, "inner.num_workers" = 2 }

[[run]]
name = "broken"
preset = "smoke"
settings = { num_tsks = 2 }
"""


def file(folder, text):
    path = folder / "queue.toml"
    path.write_text(text)
    return path


def test_jobs_come_seed_by_seed_and_say_what_is_run(tmp_path):
    jobs = campaign.read(file(tmp_path, TINY), tmp_path)
    assert [(job.name, job.seed) for job in jobs] == [("tiny", 0), ("broken", 0), ("tiny", 1)]
    command = " ".join(jobs[0].command())
    assert "discover smoke" in command
    assert "--seed 0 --num_steps 2 --num_tasks 2 --inner.num_workers 2" in command
    assert "--resume" not in command


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[run]]\npreset = 'smok'", "names the preset 'smok'"),
        ("[[run]]\npreset = 'smoke'\nseed = 3", "has 'seed'"),
        ("[[run]]\npreset = 'smoke'\nseeds = [1.5]", "write a list of integers"),
        ("[[run]]\npreset = 'smoke'\nminutes = 0", "above 0"),
        ("[[run]]\npreset = 'smoke'\ntest = 0", "true or false"),
        ("[[run]]\npreset = 'smoke'\n[[run]]\npreset = 'smoke'", "has two runs for"),
        ("runs = 1", "has no"),
        ("[[run", "cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_said(tmp_path, text, words, capsys):
    with pytest.raises(ConfigError, match=words):
        campaign.read(file(tmp_path, text), tmp_path)
    assert campaign.main([str(file(tmp_path, text))]) == 2
    assert words in capsys.readouterr().err


def test_a_job_that_was_killed_goes_on_within_its_minutes(tmp_path):
    job = campaign.read(file(tmp_path, "[[run]]\npreset = 'smoke'\nminutes = 2"), tmp_path)[0]
    job.folder.mkdir(parents=True)
    (job.folder / "config.json").write_text("{}")
    command = " ".join(job.command())
    assert "--resume --minutes 2" in command


def test_a_job_may_end_with_its_objective(tmp_path):
    job = campaign.read(file(tmp_path, "[[run]]\npreset = 'smoke'\ntest = false"), tmp_path)[0]
    assert "--no-test" in job.command()


def test_rows_are_means_over_seeds_with_an_interval_over_runs(tmp_path):
    jobs = campaign.read(file(tmp_path, "[[run]]\npreset = 'smoke'\nseeds = [0, 1, 2]"), tmp_path)
    for job, iqm in zip(jobs, (0.5, 0.6, 0.7), strict=True):
        job.folder.mkdir(parents=True)
        (job.folder / "report.html").touch()
        row = {"iqm": iqm, "cvar": 0.1}
        (job.folder / "evaluation.json").write_text(json.dumps({"grid-tiny": {"discovered": row}}))
    (row,) = campaign.rows(jobs)
    assert row["seeds"] == [0, 1, 2]
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with two degrees of freedom
    np.testing.assert_allclose([row["iqm"], row["iqm_low"], row["iqm_high"]], [0.6, 0.6 - half, 0.6 + half], rtol=1e-5)
    assert "| smoke | grid-tiny | discovered | 3 | 0.600 |" in campaign.table([row])


@pytest.mark.slow
def test_a_campaign_that_is_stopped_goes_on_and_leaves_a_failed_run_alone(tmp_path):
    path = file(tmp_path, TINY)
    command = [sys.executable, "-m", "experiments.campaign", str(path), "--out", str(tmp_path / "runs"), "--cores", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=ROOT, env=environment)
    deadline = time.monotonic() + 200
    while not (tmp_path / "runs/tiny/seed0/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 1  # the broken one
    states = {(job.name, job.seed): campaign.state(job) for job in campaign.read(path, tmp_path / "runs")}
    assert states == {("tiny", 0): "done", ("tiny", 1): "done", ("broken", 0): "failed"}
    assert "Unknown field 'num_tsks'" in (tmp_path / "runs/broken/seed0/failed.txt").read_text()
