"""Several objectives on the same lives: their names, what is said of them, and the folder that is left."""

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from experiments import tune
from metadisco import cli
from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.evaluation import agents_under_test, meta_test, results, suites
from metadisco.evaluation.agents_under_test import TrainedObjective
from metadisco.lives import tuned
from metadisco.lives.learner import Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.presets import registry
from metadisco.reports import comparison
from tests.support import small

TUNING = Path(__file__).parents[2] / "docs" / "results"
SUITE = ["--suite", "grid-tiny@2", "--levels", "2"]
COMMAND = ["evaluate", "ta-lpg-quick", "ta-lpg-grid", *SUITE, "--against", "a2c"]
AGENTS = ["a2c", "ta-lpg-quick", "ta-lpg-grid"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What `metadisco evaluate A B --out FOLDER` leaves."""
    folder = tmp_path_factory.mktemp("comparison") / "out"
    assert cli.main([*COMMAND, "--out", str(folder), "--json", str(folder.parent / "scores.json")]) == 0
    return folder


@pytest.fixture(scope="module")
def document(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_every_agent_is_in_the_table_by_its_name(document):
    rows = document["scores"]["grid-tiny@2"]
    assert list(rows) == ["random", *AGENTS, "optimal"]
    for row in rows.values():
        for name in ("iqm", "optimality_gap", "cvar", "mean_score"):
            assert row[f"{name}_low"] <= row[f"{name}_high"]
    assert (rows["optimal"]["optimality_gap"], rows["random"]["optimality_gap"]) == (0.0, 1.0)


def test_every_agent_is_compared_with_every_other(document):
    pairs = document["improvement"]["grid-tiny@2"]
    assert list(pairs) == AGENTS
    for first, second in itertools.permutations(AGENTS, 2):
        here, there = pairs[first][second], pairs[second][first]
        assert here["probability"] + there["probability"] == pytest.approx(1.0)
        assert here["low"] <= here["probability"] <= here["high"]


def test_what_makes_the_objectives_unequal_is_said_everywhere(folder, document):
    (sentence,) = document["differences"]
    assert sentence == "trained lifetimes differ: ta-lpg-quick 16 to 96 updates, ta-lpg-grid 10 to 250 updates"
    assert sentence in (folder / "table.md").read_text()
    assert document["checkpoints"]["ta-lpg-grid"]["trained_lifetimes"] == "10 to 250"


def test_the_result_says_how_baselines_were_tuned(folder, document):
    record = document["baselines"]["grid-tiny@2"]["a2c"]
    assert 0.4 in record["grid"]["policy_rate"]
    assert record["levels_are_separate"]
    assert not comparison.tuning("grid-validation@8", "a2c")["levels_are_separate"]
    assert "chosen with PPO" in comparison.tuning("CartPole-v1", "ppo")["note"]
    assert "Tuning of a2c" in (folder / "table.md").read_text()


def test_settings_are_those_of_all_agents_on_all_suites():
    objectives = agents_under_test.trained_objectives({"lpo-quick": checkpoint.load("lpo-quick")})
    tests = meta_test.plan(objectives, ["CartPole-v1", "grid-tiny"], baselines=["ppo"])
    settings = {"inner.num_workers": "16", "inner.learner.policy.learning_rate": 0.25}
    changed = agents_under_test.with_settings(tests, settings)
    for before, after in zip(tests, changed, strict=True):
        for old, new in zip(before.agents, after.agents, strict=True):
            assert (new.inner.num_workers, new.inner.learner.policy.learning_rate) == (16, 0.25)
            assert (new.name, new.inner.torso, new.inner.objective) == (old.name, old.inner.torso, old.inner.objective)
    own = changed[0].build().inner  # who else would be refused there
    assert (own.num_workers, own.torso) == (16, changed[0].agents[0].inner.torso)
    same = agents_under_test.with_settings(tests, {})
    inners = [[agent.inner for agent in test.agents] for test in (*same, *tests)]
    assert inners[: len(tests)] == inners[len(tests) :]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--num_workers", "those of agents begin with inner: --inner.num_workers"),
        ("--inner.num_worker", "the agents of ppo: Unknown field 'num_worker'. Did you mean 'num_workers'?"),
        ("--inner.objective.width", "inner.objective.width cannot be set"),
    ],
)
def test_settings_that_agents_do_not_have_are_refused(argument, words, capsys):
    assert cli.main(["evaluate", "lpo-quick", "--suite", "CartPole-v1", "--against", "ppo", argument, "3"]) == 2
    assert words in capsys.readouterr().err


def test_figures_are_pictures_and_on_the_page(folder):
    names = [f"{kind}-grid-tiny@2.png" for kind in ("aggregates", "learning", "profiles")]
    assert sorted(path.name for path in folder.glob("*.png")) == names
    page = (folder / "table.md").read_text()
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in page


def test_json_alone_has_the_same_numbers(folder, document):
    alone = json.loads((folder.parent / "scores.json").read_text())
    assert alone == document


def test_lives_do_not_depend_on_who_else_is_compared(document, tmp_path):
    path = tmp_path / "alone.json"
    arguments = ["evaluate", "ta-lpg-grid", *SUITE, "--against", "--json", str(path)]
    assert cli.main(arguments) == 0
    alone = json.loads(path.read_text())
    assert list(alone["scores"]["grid-tiny@2"]) == ["random", "discovered", "optimal"]
    theirs = document["scores"]["grid-tiny@2"]["ta-lpg-grid"]
    assert alone["scores"]["grid-tiny@2"]["discovered"] == theirs
    assert alone["differences"] == []


def test_a_folder_with_results_is_kept_unless_told_otherwise(folder, document, capsys, monkeypatch):
    monkeypatch.setattr(meta_test, "run", lambda *arguments, **options: pytest.fail("began"))
    assert cli.main([*COMMAND, "--out", str(folder)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*COMMAND, "--out", str(folder.parent), "--overwrite"]) == 2  # it has files of another kind
    assert "name another folder" in capsys.readouterr().err
    comparison.check_folder(folder, overwrite=True)


def test_comparisons_are_written_over_older_ones_and_into_empty_folders(document, tmp_path):
    comparison.write(tmp_path, document, {})
    (tmp_path / "old.png").write_bytes(b"")
    comparison.write(tmp_path, document, {}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "table.md"]


def saved(folder: Path) -> str:
    checkpoint.save(Discovered(A2C(), ()), folder)
    return str(folder)


def test_checkpoints_are_called_by_their_folder_and_one_alone_is_discovered(tmp_path):
    run, other = saved(tmp_path / "mine" / "objective"), saved(tmp_path / "other")
    assert list(meta_test.load_all([run])) == ["discovered"]
    assert list(meta_test.load_all([run, other, "ta-lpg-quick"])) == ["mine", "other", "ta-lpg-quick"]
    assert list(meta_test.load_all([f"x={run}"])) == ["x"]
    twin = saved(tmp_path / "twin" / "other")
    with pytest.raises(config.ConfigError, match="two checkpoints are called 'other'"):
        meta_test.load_all([other, twin])
    assert list(meta_test.load_all([other, f"twin={twin}"])) == ["other", "twin"]
    with pytest.raises(config.ConfigError, match="cannot be called 'a2c'"):
        meta_test.load_all([other, f"a2c={twin}"])


def planned(one, two=None, baselines=("a2c",)):
    """The plan for mazes, for agents of one or two objectives."""
    inner_loops = {"one": one} | ({} if two is None else {"two": two})
    objectives = [TrainedObjective(name, (inner,), ()) for name, inner in inner_loops.items()]
    return meta_test.plan(objectives, ["mazes"], baselines=baselines)


def test_other_budgets_and_agents_are_said():
    one = small.inner_loop()
    (test,) = planned(one, replace(one, num_workers=8))
    assert [agent.name for agent in test.agents] == ["a2c", "one", "two"]
    (sentence,) = agents_under_test.differences([test])
    assert sentence == (
        "budgets differ on mazes: one 4 workers x 5 steps an update, two 8 workers x 5 steps an update; a2c as one"
    )
    learner = replace(one.learner, num_epochs=2)
    (sentence,) = agents_under_test.differences(planned(one, replace(one, learner=learner), baselines=()))
    assert sentence.startswith("learners of agents differ on mazes: one Learner(")
    assert agents_under_test.differences(planned(one)) == []


@pytest.mark.parametrize("path", sorted(TUNING.glob("*-grid*.json")) + sorted(TUNING.glob("*quick*.json")), ids=str)
def test_rows_of_results_that_were_published_have_an_upper_anchor(path):
    for suite, agents in results.read_table(path).items():
        exact = [agent for agent, row in agents.items() if row["is_exact"]]
        assert exact == ["random", results.upper_anchor(agents)], suite


@pytest.mark.parametrize("name", checkpoint.zoo_names())
def test_rows_of_shipped_objectives_have_the_upper_anchor_of_their_suite(name):
    for suite, agents in checkpoint.load(name).evaluation.items():
        (found,) = suites.find(suite)
        anchor = found.build().upper_anchor if found.suite.inner is not None else "optimal"
        assert results.upper_anchor(agents) == anchor


def test_a_checkpoint_that_a_suite_cannot_test_is_named_before_anything_runs(capsys, monkeypatch):
    monkeypatch.setattr(meta_test, "run_tests", lambda *arguments, **options: pytest.fail("began"))
    assert cli.main(["evaluate", "lpo-quick", "ta-lpg-quick", "--suite", "Pendulum-v1"]) == 2
    assert "ta-lpg-quick cannot be tested on Pendulum-v1: " in capsys.readouterr().err


def test_tables_fit_a_hundred_columns(document):
    rows = document["scores"]["grid-tiny@2"]
    rows = {f"{'a-long-name-of-a-run'}{i}": row | {"mean_return": -1234.567} for i, row in enumerate(rows.values())}
    shown = io.StringIO()
    meta_test.show({"grid-tiny@2": rows}, Console(width=100, file=shown))
    lines = [line for line in shown.getvalue().splitlines() if "a-long-name" in line]
    assert len(lines) == len(rows)
    assert all("-1234.567" in line for line in lines)
    assert "worst 10%" in shown.getvalue()


def test_rows_of_an_older_version_are_shown_without_what_they_lack():
    shown = io.StringIO()
    meta_test.show(checkpoint.load("ta-lpg-quick").evaluation, Console(width=100, file=shown))
    assert "discovered" in shown.getvalue()


@pytest.mark.parametrize("name", ["a2c", "a2c-count", "ppo"])
def test_the_record_of_tuning_is_what_was_measured(name):
    measured = json.loads((TUNING / f"tune_{name.replace('-', '_')}.json").read_text())
    record = tuned.TUNED_FOR_TABLES[name]
    assert {key: tuple(ladder) for key, ladder in measured["ladders"].items()} == record.grid
    best = max(measured["tried"], key=lambda row: row["mean"])
    assert best["values"] == record.chosen
    tried = [row["values"] for row in measured["tried"]]
    assert len(tried) == record.num_tried
    assert all(each in tried for each in tune.neighbors(record.chosen, record.grid))  # so the optimum is an inner one
    assert (tuple(measured["suite"].split()), measured["num_levels"]) == (record.suites, record.num_levels)
    assert {int(each.rpartition("@")[2]) for each in best["iqm"]} == set(record.lifetimes)
    assert measured["provenance"]["workers"] == record.num_workers


@pytest.mark.parametrize(
    ("name", "objective", "learner"),
    [
        ("a2c", tuned.TABLE_A2C, tuned.TABLE_A2C_LEARNER),
        ("a2c-count", tuned.TABLE_A2C_COUNT, tuned.TABLE_A2C_COUNT_LEARNER),
        ("ppo", tuned.TABLE_PPO, tuned.TABLE_PPO_LEARNER),
    ],
)
def test_baselines_have_the_settings_that_were_chosen(name, objective, learner):
    measured = json.loads((TUNING / f"tune_{name.replace('-', '_')}.json").read_text())
    chosen = tuned.TUNED_FOR_TABLES[name].chosen
    inside = getattr(objective, "objective", objective)
    for setting in ("gamma", "gae_lambda", "entropy_weight"):
        assert getattr(inside, setting) == chosen[setting]
    for setting in set(tune.OF_BONUS) & set(chosen):
        assert getattr(objective, setting) == chosen[setting]
    optimizer = tune.OPTIMIZERS[measured["optimizer"]]
    anneal = bool(chosen["anneal"])
    assert learner == Learner(
        optimizer(chosen["policy_rate"], anneal=anneal),
        optimizer(chosen["prediction_rate"], anneal=anneal),
        measured["epochs"],
        measured["minibatches"],
    )


def test_the_lifetimes_of_a_mixture_are_those_of_its_parts():
    trainer = registry.preset("self-evolving-quick").trainer
    mixed = Discovered(trainer.domains[0].inner.objective, (), {"trainer": config.to_data(trainer)})
    assert meta_test.trained_lifetimes(mixed) == "16 to 64 and 65 to 256"
