"""Settings before a run: listed with values and meanings, read from a file, shown by a dry run that starts nothing."""

import re

import pytest

from metadisco import cli
from metadisco.commands import settings
from metadisco.core import config
from metadisco.presets import registry
from tests.support import small

NAMES = ("smoke", "lpo-quick", "groove-grid", "scheduled-a2c")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_listed_with_a_value_that_can_be_given_and_with_its_meaning(name):
    trainer = registry.preset(name).trainer
    listed = settings.settings(trainer)
    assert all(each.meaning for each in listed)
    assert len({each.path for each in listed}) == len(listed)
    for path, value, _ in listed:
        if ":" not in value:  # a class alone is a component with its defaults
            assert config.replace_field(trainer, path, value) == trainer, path


def test_settings_of_a_preset_are_printed(capsys):
    assert cli.main(["list", "settings", "smoke"]) == 0
    shown = capsys.readouterr().out
    assert "meta_optimizer.sigma.start = 0.1\n    value at meta-step 0." in shown
    assert cli.main(["list", "settings"]) == 2
    assert "list settings quickstart" in capsys.readouterr().err
    assert cli.main(["list", "settings", "smok"]) == 2
    assert "Did you mean 'smoke'" in capsys.readouterr().err
    assert cli.main(["list", "suites", "smoke"]) == 2


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "mine.toml").write_text(text)
        return ["--settings", "mine.toml"]

    return write


def test_a_dry_run_says_what_would_run_and_starts_nothing(file, tmp_path, capsys):
    given = file("num_steps = 7\nmeta_optimizer.sigma.start = 0.2\n[curriculum.tasks.levels]\nmax_steps = [10, 30]\n")
    assert cli.main(["discover", "smoke", *given, "--num_steps", "9", "--minutes", "2", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "runs/smoke, new; seed 0",
        "num_steps: 30 -> 9",  # the command line is on top
        "meta_optimizer.sigma.start: 0.1 -> 0.2",
        "ends after: 9 meta-steps, or 2 minutes",
        "16 tasks x 2 = 32 lives",
        "MiB of",
        "1 min on 2 CPU cores",
        "curriculum.tasks.levels.max_steps = 10,30",
        "Nothing was started",
    ):
        assert words in shown, words
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_dry_run_without_a_test_says_so(capsys):
    assert cli.main(["discover", "smoke", "--no-test", "--dry-run"]) == 0
    assert re.search(r"tests: +none", capsys.readouterr().out)


def test_a_dry_run_of_a_sweep_counts_its_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["discover", "smoke", "--seeds", "3", "--sweep", "num_tasks=4,8", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "2 settings x 3 seeds, 6 of 6 left" in shown
    assert "num_tasks=4; num_tasks=8" in shown
    assert not list(tmp_path.iterdir())


def test_the_command_line_changes_a_part_of_what_a_file_names(file, capsys):
    given = file('inner.objective = "metadisco.objectives.lpg:LPG"\n')
    assert cli.main(["discover", "smoke", *given, "--inner.objective.width", "4", "--dry-run"]) == 0
    assert "inner.objective.width = 4\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_steps = ", "is not TOML"),
        ("num_stepz = 3", "Did you mean 'num_steps'"),
        ("[meta_optimizer.sigmma]\nstart = 1.0", "meta_optimizer.sigma.start"),
        ("num_steps = 2020-01-01", "a setting is a number, a text"),
        ("num_steps = 'soon'", "num_steps = 'soon' is a str"),
        ("num_steps = 0", "num_steps must be at least 1"),
        ("name = [1, {a = 2}]", "a setting is a number, a text"),
    ],
)
def test_a_mistake_in_a_file_is_answered_in_a_sentence(file, text, words, tmp_path, capsys):
    assert cli.main(["discover", "smoke", *file(text)]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture").write_bytes(b"\xff\xd8\xff")
    for name in ("missing.toml", "picture", "."):
        assert cli.main(["discover", "smoke", "--settings", name]) == 2
        assert "cannot be read" in capsys.readouterr().err


def test_an_unknown_field_is_answered_with_the_paths_near_it():
    with pytest.raises(config.ConfigError, match="Unknown field 'learning_rate'") as caught:
        config.replace_fields(small.trainer(), {"learning_rate": "1"})
    for path in ("inner.learner.policy.learning_rate", "meta_optimizer.learning_rate.start"):
        assert path in str(caught.value)


def test_a_number_of_objects_whose_subsets_nobody_can_count_is_refused_at_once(capsys):
    assert cli.main(["discover", "smoke", "--inner.env.num_objects", "2147483647", "--dry-run"]) == 2
    assert "too many for a table" in capsys.readouterr().err
