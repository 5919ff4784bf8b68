"""What a run shows of itself."""

import io
import json
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn

from metadisco.runs import progress
from metadisco.runs.progress import Bars, Display, Heartbeat, Ticker
from tests.support.toy import Toy, quiet, run, validation

COLUMNS = (BarColumn(), TextColumn("{task.description}"))


def test_plain_display_reports_fitness_rates_memory_and_time(tmp_path):
    console = quiet()
    run(Toy(), tmp_path / "run", console=console)
    last = console.file.getvalue().splitlines()[-1]
    assert last.startswith("meta-step 40/40 · left 0:00:00 · fitness ")
    rates = ("meta-steps/s", "agent updates/s", "env steps/s")
    assert all(part in last for part in (*rates, "memory ", " GiB", "elapsed 0:00:"))


def test_heartbeat_says_how_the_run_stands(tmp_path):
    run(Toy(), tmp_path / "run", steps=17)
    heartbeat = json.loads((tmp_path / "run" / "heartbeat.json").read_text())
    assert (heartbeat["status"], heartbeat["meta_step"], heartbeat["num_meta_steps"]) == ("paused", 17, 40)
    assert abs(heartbeat["unix_time"] - time.time()) < 60
    assert heartbeat["memory_bytes"] > 1e7
    assert heartbeat["stop_seconds"] >= 0.0
    assert heartbeat["meta_steps_per_second"] > 0
    assert heartbeat["agent_updates_per_second"] == pytest.approx(10 * heartbeat["meta_steps_per_second"])


def test_heartbeat_is_there_while_the_run_goes_on(tmp_path):
    seen = []

    def look(_):
        seen.append(json.loads((tmp_path / "run" / "heartbeat.json").read_text()))
        return {}

    run(Toy(), tmp_path / "run", [validation(look, 20)], chunk=10)
    assert [(each["status"], each["meta_step"]) for each in seen] == [("running", 10)] * 2


def test_rates_are_those_of_the_chunk(tmp_path):
    heartbeat = Heartbeat(tmp_path, 10)
    heartbeat.beat([{"step": 1, "env_steps": 6.0}, {"step": 2, "env_steps": 10.0}], seconds=4.0, seconds_left=9.0)
    assert heartbeat.rates == {"meta-steps": 0.5, "env steps": 4.0}


def test_time_to_stop_is_the_longest_so_far(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    heartbeat = Heartbeat(tmp_path, 10)
    for moment in (101.0, 105.0, 106.0):
        now[0] = moment
        heartbeat.look()
    assert heartbeat.stop_seconds == 4.0


@pytest.fixture
def shown(monkeypatch):
    """What a notebook displays: for each output what it showed, one after the other."""
    outputs = []

    def text(thing):
        return thing._repr_mimebundle_((), ())["text/plain"]

    def display(thing, display_id):
        assert display_id is True
        outputs.append([text(thing)])
        return SimpleNamespace(update=lambda thing: outputs[-1].append(text(thing)))

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return outputs


def test_bars_in_a_notebook_are_one_output_that_is_replaced(shown, monkeypatch):
    monkeypatch.setattr(Bars, "notebook_seconds", 0.0)
    with Bars(Console(force_jupyter=True), *COLUMNS, is_shown=True) as bars:
        bar = bars.add("nothing yet", 2)
        for n in (1, 2):
            bars.update(bar, n, f"part {n}")
    (texts,) = shown
    assert [f"part {n}" in text for n, text in zip((1, 2, 2), texts, strict=True)] == [True] * 3


def test_bars_in_a_notebook_are_not_drawn_more_often_than_they_can_be_seen(shown):
    with Bars(Console(force_jupyter=True), *COLUMNS, is_shown=True) as bars:
        bar = bars.add("", 100)
        for n in range(100):
            bars.update(bar, n, f"part {n}")
    (texts,) = shown
    assert len(texts) < 20
    assert "part 99" in texts[-1]


def test_bars_that_are_not_wanted_show_nothing(shown):
    with Bars(None, *COLUMNS, is_shown=False) as bars:
        bars.update(bars.add("", 1), 1)
    assert not shown


@pytest.mark.parametrize("kind", [{"force_terminal": True}, {"force_jupyter": True}])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_what_matters_is_not_cut_off_in_a_narrow_line(kind, width, tmp_path, shown, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    console = Console(file=io.StringIO(), width=width, **kind)
    display = Display(console, 850, 850)
    heartbeat = SimpleNamespace(rates={"meta-steps": 1.5, "env steps": 4e6}, memory_bytes=2**31, seconds_left=36_000.0)
    with display:
        display.update([{"step": 849, "fitness": -0.0001}], heartbeat)
    text = shown[-1][-1] if "force_jupyter" in kind else console.file.getvalue()
    for part in ("meta-step 849/850", *(["left 10:00:00", "fitness 0.000"] if width > 40 else [])):
        assert part in text
    if "force_jupyter" not in kind:  # drawn by rich's own console, of a width of its own
        assert ("memory 2.0 GiB" in text) == (width == 200)
    assert "…" not in text


def test_work_without_a_bar_says_where_it_is_every_so_often(monkeypatch):
    monkeypatch.setattr(Ticker, "seconds", 0.05)
    said = []
    with Ticker(lambda: said.append(1), is_on=True):
        time.sleep(0.5)
    assert 2 <= len(said) <= 10
    with Ticker(lambda: said.append(1), is_on=False):
        time.sleep(0.2)
    assert len(said) <= 10
