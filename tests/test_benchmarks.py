"""Benchmarks: what they make of their measurements. The measuring itself is not a test."""

import json
import subprocess
import sys

import pytest

from benchmarks import meta_step

ROW = {
    "devices": 1,
    "slots": 32,
    "seconds_per_meta_step": 25.3,
    "agent_updates_per_second": 160.0,
    "env_steps_per_second": 2e5,
    "network_gflops": 93.0,
    "compile_seconds": 9.0,
    "peak_memory_mib": 900.0,
}


def written(monkeypatch, path, *arguments):
    """The file of a run in which every row is measured in no time, on a machine of 930 GFLOP/s."""
    monkeypatch.setattr(meta_step, "run_row", lambda name, *_: {"row": name, "gflops": 930.0} | ROW)
    monkeypatch.setattr(sys, "argv", ["meta_step.py", "--devices", "1", "--json", str(path), *arguments])
    meta_step.main()
    return json.loads(path.read_text())


def test_comparison_is_scaled_by_matrix_products_and_has_its_origin(monkeypatch, tmp_path):
    content = written(monkeypatch, tmp_path / "out.json", "--rows", "reference", "quickstart")
    reference, quickstart = content["rows"]
    assert reference["times_peer"] == pytest.approx(10.0)  # 253 / 25.3
    assert reference["times_peer_scaled"] == pytest.approx(5.0)  # 465 / 930 of that
    assert "times_peer" not in quickstart
    assert content["provenance"]["versions"]["jax"]


def test_peer_measured_here_is_not_scaled(monkeypatch, tmp_path):
    content = written(monkeypatch, tmp_path / "out.json", "--rows", "reference", "--peer", "50.6")
    assert content["rows"][0]["times_peer"] == content["rows"][0]["times_peer_scaled"] == pytest.approx(2.0)


def test_row_that_fails_says_why(capfd):
    with pytest.raises(subprocess.CalledProcessError):
        meta_step.run_row("reference", "--devices", "none")
    assert "invalid int value" in capfd.readouterr().err
