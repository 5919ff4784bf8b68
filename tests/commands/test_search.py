"""`discover --trials`: what is asked is in its range, unpromising runs end early, and a search goes on as it was."""

import json
import sys
from dataclasses import replace

import pytest

from metadisco import cli
from metadisco.commands import discovery, search
from metadisco.core import config
from metadisco.presets import registry
from metadisco.runs import loop
from metadisco.runs.run_folder import RunError
from tests.support.toy import quiet

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")
SIGMA = "meta_optimizer.sigma.start"
PRESET = registry.preset("smoke")
SPACE = {SIGMA: search.Range(0.01, 1.0), "num_tasks": search.Choice(("16", "32"))}


class Runs:
    """In place of meta-training: a run whose score is best at sigma = 0.1, and is known from its first meta-step on."""

    def __init__(self, stop_at=None, fail_at=None):
        self.asked, self.tested, self.stop_at, self.fail_at = [], [], stop_at, fail_at

    def discover(self, preset, out, *, seed, resume, start=None, hooks=(), console=None):
        assert resume
        if preset.suites:  # of the best, at the end
            self.tested.append(out.name)
            return discovery.Discovery(None, out, 0)
        sigma = preset.trainer.meta_optimizer.sigma.start
        self.asked.append((out.name, sigma, preset.trainer.domains[0].num_tasks))
        out.mkdir(parents=True, exist_ok=True)
        if self.stop_at == len(self.asked):
            return discovery.Discovery(None, out, 143)
        if self.fail_at == len(self.asked):
            raise loop.TrainingError("no candidate is finite")
        score = 1.0 - abs(sigma - 0.1)
        (hook,) = hooks
        for step in range(hook.every, preset.trainer.num_steps + 1, hook.every):
            with (out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "seconds": 1.0, "validation/iqm": score}) + "\n")
            hook.function(out, type("State", (), {"step": step}))
        return discovery.Discovery(None, out, 0)


def run(folder, runs, monkeypatch, *, trials=12, resume=False, **changes):
    monkeypatch.setattr(search.discovery, "discover", runs.discover)
    return search.run(PRESET, SPACE | changes, trials, folder, seed=3, resume=resume, console=quiet())


def test_trials_stay_in_their_ranges_and_find_what_is_best(tmp_path, monkeypatch):
    runs = Runs()
    assert run(tmp_path, runs, monkeypatch, trials=25) == 0
    sigmas = [sigma for _, sigma, _ in runs.asked]
    assert len(sigmas) == 25
    assert all(0.01 <= sigma <= 1.0 for sigma in sigmas)
    assert {tasks for *_, tasks in runs.asked} == {16, 32}
    below = sum(sigma < 0.1 for sigma in sigmas[:10])
    assert 2 <= below <= 8  # by orders of magnitude: half of the range is below its geometric middle
    best = min(runs.asked, key=lambda each: abs(each[1] - 0.1))
    assert runs.tested == [best[0]]
    assert abs(best[1] - 0.1) < 0.03
    lines = (tmp_path / "trials.md").read_text().splitlines()
    assert lines[0] == f"| run | ended | validation IQM | {SIGMA} | num_tasks |"
    assert lines[2].startswith(f"| {best[0]} | complete |")
    assert len(lines) == 2 + 25


def test_what_is_behind_ends_early(tmp_path, monkeypatch):
    runs = Runs()
    run(tmp_path, runs, monkeypatch)
    pruned = [
        line.split(" | ")[0][2:] for line in (tmp_path / "trials.md").read_text().splitlines() if "pruned" in line
    ]
    assert pruned
    assert not {"trial0", "trial1", "trial2", "trial3"} & {*pruned}  # there was nothing to compare them with
    for name in pruned:
        log = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        assert len(log) < search.LOOKS
        assert json.loads((tmp_path / name / "heartbeat.json").read_text())["status"] == "pruned"


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole, first, second = Runs(), Runs(stop_at=4), Runs()
    run(tmp_path / "whole", whole, monkeypatch, trials=9)
    assert run(tmp_path / "cut", first, monkeypatch, trials=9) == 143
    assert run(tmp_path / "cut", second, monkeypatch, trials=9, resume=True) == 0
    assert first.asked[-1] == second.asked[0]  # the run that was interrupted goes on
    assert first.asked[:-1] + second.asked == whole.asked
    more = Runs()
    assert run(tmp_path / "cut", more, monkeypatch, trials=11, resume=True) == 0
    assert [name for name, *_ in more.asked] == ["trial9", "trial10"]


def test_a_run_that_fails_is_no_end(tmp_path, monkeypatch):
    assert run(tmp_path, Runs(fail_at=2), monkeypatch, trials=3) == 0
    assert "| trial1 | fail | – |" in (tmp_path / "trials.md").read_text()


def test_another_search_is_not_gone_on_with(tmp_path, monkeypatch):
    run(tmp_path, Runs(), monkeypatch, trials=1)
    with pytest.raises(RunError, match="go on with --resume"):
        run(tmp_path, Runs(), monkeypatch, trials=1)
    with pytest.raises(RunError, match="a search with another space: name another --out"):
        run(tmp_path, Runs(), monkeypatch, trials=2, resume=True, num_tasks=search.Choice(("16", "64")))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    with pytest.raises(RunError, match="something else than a search"):
        run(tmp_path / "other", Runs(), monkeypatch)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.01..0.3", search.Range(0.01, 0.3)),
        ("1..5", search.Range(1, 5)),
        ("1e-3..1", search.Range(1e-3, 1.0)),
        ("a..b", None),
        ("0.1", None),
    ],
)
def test_ranges_are_read(text, found):
    assert search.Range.read(text) == found


def test_whole_numbers_stay_whole():
    trial = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0)).ask()
    assert search.Range(1, 5).suggest(trial, "a") in {"1", "2", "3", "4", "5"}
    assert search.Range(1, 50).is_logarithmic
    assert not search.Range(-1.0, 50.0).is_logarithmic


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trials", "3"], "needs what to search"),
        (["--trials", "3", "--sweep", f"{SIGMA}=0.3..0.1"], "from a lower number to a higher"),
        (["--trials", "3", "--sweep", f"{SIGMA}=0.3"], "one value leaves nothing to search"),
        (["--trials", "3", "--sweep", "meta_optimizer.sigm=1..2"], "Did you mean"),
        (["--trials", "3", "--sweep", "num_tasks=16.5..32"], "num_tasks"),
        (["--trials", "0", "--sweep", f"{SIGMA}=0.1..0.3"], "--trials must be at least 1"),
        (["--trials", "3", "--seeds", "2", "--sweep", f"{SIGMA}=0.1..0.3"], "trials share one seed"),
        (["--sweep", f"{SIGMA}=0.1..0.3"], "--trials"),
    ],
)
def test_wrong_arguments_are_answered_in_a_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["discover", "smoke", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_would_be_searched(capsys):
    asked = ["--sweep", f"{SIGMA}=0.01..0.3", "--sweep", "num_steps=10..20", "--sweep", "num_tasks=16,32"]
    assert cli.main(["discover", "smoke", "--trials", "7", *asked, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for words in ("0.01 to 0.3, by orders of magnitude", "10 to 20 whole numbers", "16 or 32"):
        assert words in said


def test_without_optuna_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(config.ConfigError, match=r"metadisco\[optuna\]"):
        search.check_optuna()


@pytest.mark.slow
def test_runs_are_meta_trained_and_the_best_is_tested(tmp_path):
    changes = {"num_tasks": 4, "inner.num_workers": 2, "num_steps": 4, "inner.objective.width": 4}
    preset = replace(PRESET, trainer=config.replace_fields(PRESET.trainer, changes))
    assert search.run(preset, {SIGMA: search.Range(0.05, 0.4)}, 2, tmp_path, console=quiet()) == 0
    assert (tmp_path / "trials.md").exists()
    assert [path.parent.name for path in tmp_path.glob("*/evaluation.json") if json.loads(path.read_text())]
