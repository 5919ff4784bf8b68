"""Benchmarks: what they make of their measurements. The measuring itself is not a test."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import cost_model, groove, meta_step, ppo, scaling
from tests.support import small

ROOT = Path(__file__).parents[2]

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


def groove_line(**measured):
    """What is said of a row on a machine of 930 GFLOP/s, and what is added to it."""
    row = {"row": "a row", "peak_memory_mib": 900.0, "estimated_memory_mib": 80.0} | measured
    return groove.describe(row, rate=930.0), row


def test_groove_row_without_a_ratio_is_compared_with_the_peer():
    line, row = groove_line(seconds_per_meta_step=0.44)
    assert row["times_peer"] == pytest.approx(10.0)  # 4.4 / 0.44
    assert row["times_peer_scaled"] == pytest.approx(5.0)  # 465 / 930 of that
    assert "10.0 times" in line


def test_groove_row_with_a_ratio_says_both_times():
    line, row = groove_line(seconds=[0.12, 0.1], ratio=1.2)
    assert "120.0 ms against    100.0 ms: 1.200" in line
    assert "times_peer" not in row


def test_first_turn_does_not_count():
    class Clockwork:
        def __init__(self, seconds):
            self.seconds = iter(seconds)

        def turn(self, num_steps):
            return next(self.seconds)

    turns = groove.take_turns([Clockwork([9.0, 1.0, 2.0]), Clockwork([8.0, 3.0, 4.0])], turns=2, num_steps=1)
    assert turns == [[1.0, 2.0], [3.0, 4.0]]


def test_rows_of_groove_differ_in_what_they_are_about_only():
    for row in ("gradient", "evolution"):
        plain, chosen = groove.pair(row)
        (domain,) = plain.domains
        assert domain.curriculum.tasks == chosen.domains[0].curriculum.tasks
        assert small.altered(chosen, curriculum=domain.curriculum, score=domain.score) == plain
    assert groove.reference("reference").domain.inner.objective.width == 256


def test_groove_file_has_rows_and_origin(monkeypatch, tmp_path):
    row = {"row": "reference", "seconds_per_meta_step": 0.5, "peak_memory_mib": 900.0, "estimated_memory_mib": 80.0}
    monkeypatch.setattr(groove, "run_row", lambda name, *_: dict(row))
    monkeypatch.setattr(groove, "matmul_rate", lambda: 930.0)
    path = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["groove.py", "--rows", "reference", "--json", str(path)])
    groove.main()
    content = json.loads(path.read_text())
    assert content["rows"][0]["times_peer"] == pytest.approx(8.8)
    assert content["provenance"]["versions"]["jax"]


def test_ppo_is_compared_with_rejax_and_many_agents_with_one():
    def rates(ours, theirs):
        both = {"metadisco": ours, "rejax": theirs}
        return {name: {"env_steps_per_second": rate, "compile_seconds": 3.0} for name, rate in both.items()}

    row = {"row": "CartPole-v1", "1": rates(300.0, 200.0), "16": rates(1200.0, 800.0)}
    text = ppo.describe(row)
    assert row["1"]["ratio"] == row["16"]["ratio"] == 1.5
    assert row["speedup_of_many"] == 4.0
    assert "1.50 times" in text
    assert "4.0 times the throughput of one" in text


def test_page_of_scaling_has_the_numbers_of_its_file():
    page, content = ROOT / "docs/scaling.md", json.loads((ROOT / "docs/results/scaling.json").read_text())
    for name in scaling.tables(content):
        assert f"<!-- table {name} -->" in page.read_text()
    assert scaling.with_tables(page.read_text(), content) == page.read_text()


def test_predictions_of_scaling_are_those_of_the_present_model():
    content = json.loads((ROOT / "docs/results/scaling.json").read_text())
    for found, expected in zip(content["predictions"], scaling.predictions(), strict=True):
        assert found == pytest.approx(expected)


@pytest.mark.slow
def test_products_of_an_update_are_those_of_the_model():
    for kind in ("evolution", "low rank", "gradient"):
        row = scaling.flops_row(kind, 8, 2, 3)
        assert row["traced"] == row["predicted"], kind


def test_products_in_a_scan_count_as_often_as_it_runs():
    def run(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=7)[0]

    jaxpr = jax.make_jaxpr(run)(jnp.ones((3, 3))).jaxpr
    assert scaling.traced_product_flops(jaxpr) == 7 * 2 * 3**3


def test_collectives_of_a_program_are_added_up_by_kind():
    program = """
      %a = f32[8,16]{1,0} all-gather(f32[4,16]{1,0} %x), dimensions={0}
      ROOT %b = (f32[3]{0}, s32[]) all-reduce(f32[3]{0} %y, s32[] %z), to_apply=%add
      %c = f32[100]{0} add(f32[100]{0} %a, f32[100]{0} %b)
    """
    assert scaling.communicated(program) == {"all-gather": 4 * 8 * 16, "all-reduce": 4 * 3 + 4}


def test_meta_step_takes_as_long_as_the_longest_life_however_many_devices_there_are():
    work = cost_model.Workload(num_tasks=512, longest=250)
    few, many = (cost_model.predict(work, scaling.H100, devices, 0.0) for devices in (8, 512))
    assert few.compute / 64 < many.compute < few.compute / 32  # one slot idles when its life is over
    assert many.latency == pytest.approx(few.latency)  # 250 updates one after the other
    assert few.seconds / many.seconds < 64


def test_parameters_of_the_model_are_those_of_the_net():
    from metadisco.objectives.lpg import LPG

    shapes = jax.eval_shape(LPG(width=24, lifetime_features=True).init, jax.random.key(0))
    assert cost_model.Net(width=24).num_params == sum(leaf.size for leaf in jax.tree.leaves(shapes))
