"""`metadisco watch`: the page says what run folders say, also while runs go on, and works in a real browser."""

import json
import shutil
import socket
import subprocess
import threading
import time

import pytest
from werkzeug.serving import make_server

from metadisco import cli
from metadisco.commands import watching
from metadisco.core import config
from tests.support import small
from tests.support.toy import quiet

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def begin(folder, *, seed=0, rows=3, status="running", age=0.0, warning=None):
    """A run folder as the loop leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = config.to_data(small.trainer())
    origin = {"preset": "smoke", "command": "metadisco discover smoke", "date": "2026-11-28T00:00:00Z"}
    document = {"format_version": 1, "seed": seed, "trainer": trainer, "provenance": origin}
    (folder / "config.json").write_text(json.dumps(document))
    log = [{"step": step, "fitness": 0.1 * step + seed, "seconds": float(step)} for step in range(1, rows + 1)]
    if rows:
        log[-1]["validation/iqm"] = 0.5 + 0.1 * seed
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    beat = {"status": status, "unix_time": time.time() - age, "seconds_left": 90.0, "meta_steps_per_second": 2.5}
    (folder / "heartbeat.json").write_text(json.dumps(beat | {"warning": warning}))


@pytest.fixture
def runs(tmp_path):
    begin(tmp_path / "one/seed0")
    begin(tmp_path / "one/seed1", seed=1, status="finished")
    begin(tmp_path / "two", seed=2, age=1e4, warning="every score is the same")
    return tmp_path


@pytest.fixture
def client(runs):
    return watching.app(runs).test_client()


def test_the_table_says_how_far_each_run_is(client):
    page = client.get("/runs").text
    assert [page.count(f'value="{name}"') for name in ("one/seed0", "one/seed1", "two")] == [1, 1, 1]
    for words in ('class="running">running', 'class="finished">finished', "3 of ", "0:01:30", "2.5", "0.600"):
        assert words in page, words
    assert 'class="lost">lost' in page  # it says that it runs, and has not been heard of for hours
    assert "every score is the same" in page


def test_chosen_runs_are_lines_of_one_chart(client):
    chart = client.get("/curves?metric=fitness&run=one/seed0&run=one/seed1&run=two").text
    assert "one/seed0 0.300, one/seed1 1.300, two 2.300" in chart  # read aloud
    assert chart.count("<svg") == 1
    together = client.get("/curves?metric=validation/iqm&run=one/seed0&run=one/seed1").text
    assert ">seed0<" in together  # names without the folder that both are in
    assert ">seed1<" in together


def test_the_page_follows_a_run_that_goes_on(runs, client):
    before = client.get("/curves?metric=fitness&run=one/seed0").text
    begin(runs / "one/seed0", rows=5)
    assert "5 of " in client.get("/runs").text
    after = client.get("/curves?metric=fitness&run=one/seed0").text
    assert "0.300" in before
    assert "0.500" in after
    begin(runs / "three")
    assert "three" in client.get("/runs").text


def test_a_report_is_made_where_it_is_missing_or_old(runs, client):
    assert "metadisco · two" in client.get("/report/two").text
    page = runs / "two/report.html"
    first = page.stat().st_mtime_ns
    client.get("/report/two")
    assert page.stat().st_mtime_ns == first
    begin(runs / "two", rows=4)
    client.get("/report/two")
    assert page.stat().st_mtime_ns > first


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/report/nothing", 404, "there is no run nothing"),
        ("/report/one/../../two", 404, ""),
        ("/curves?metric=fitness&run=/etc", 404, "there is no run /etc"),
        ("/curves?metric=loss", 400, "metric is one of validation/iqm, fitness"),
    ],
)
def test_what_is_no_run_is_refused(client, path, code, words):
    answer = client.get(path)
    assert answer.status_code == code
    assert words in answer.text


def test_names_are_text_and_not_markup(tmp_path):
    begin(tmp_path / "<b>bold</b>")
    page = watching.app(tmp_path).test_client().get("/").text
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page


def test_a_folder_that_cannot_be_read_is_left_out(runs, client):
    (runs / "two/config.json").write_text("{")
    assert 'value="two"' not in client.get("/runs").text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no run in"),
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--host", "300.1.2.3"], "Choose another --port or --host"),
    ],
)
def test_wrong_arguments_are_answered_in_a_sentence(runs, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(runs)
    folder = [] if arguments[0] == "nowhere" else ["one"]
    assert cli.main(["watch", *folder, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(runs):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="cannot be used"):
        watching.watch(runs, host="127.0.0.1", port=taken.getsockname()[1], console=quiet())


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to look at the page with")
def test_a_browser_shows_runs_and_their_curves(runs):
    server = make_server("127.0.0.1", 0, watching.app(runs, seconds=0.5))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
        shown = subprocess.run([CHROMIUM, *flags, address], capture_output=True, text=True, timeout=120, check=True)
    finally:
        server.shutdown()
    assert "Last looked at" in shown.stdout  # the script has asked again
    assert '<svg role="img"' in shown.stdout
    assert "one/seed0 0.500" in shown.stdout  # of the run that goes on, which is chosen at first
