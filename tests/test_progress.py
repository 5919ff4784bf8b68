"""What a run shows of itself."""

import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn

from metadisco.progress import Bars
from tests.toy import Toy, quiet, run

COLUMNS = (BarColumn(), TextColumn("{task.description}"))


def test_plain_display_reports_fitness_and_rate(tmp_path):
    console = quiet()
    run(Toy(), tmp_path / "run", console=console)
    last = console.file.getvalue().splitlines()[-1]
    assert last.startswith("meta-step 40/40 · fitness ")
    assert all(part in last for part in ("agent updates/s", "elapsed 0:00:", "left 0:00:00"))


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
