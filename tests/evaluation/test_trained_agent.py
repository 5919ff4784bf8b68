"""One agent in one call, and what a session in Python shows and takes: names, tables, refusals before any work."""

import sys

import numpy as np
import pytest

import metadisco
from metadisco.commands import discovery
from metadisco.envs.gymnax_levels import GymnaxLevels
from metadisco.evaluation import environments, results, trained_agent

SUITE = "grid-tiny"


@pytest.fixture(scope="module")
def agent():
    return metadisco.train_agent("ta-lpg-quick", SUITE, 4, num_points=2, seed=3)


def test_an_agent_is_trained_in_one_call_and_its_returns_are_told(agent):
    assert agent.updates.tolist() == [0, 2, 4]
    assert agent.returns.shape == (3,)
    assert np.isfinite(agent.returns).all()
    assert int(agent.life.num_updates) == 4
    assert {name: each.shape for name, each in agent.metrics.items()}["entropy"] == (2,)
    assert repr(agent).count("\n") == 1
    assert f"{agent.returns[-1]:.3f} after" in repr(agent)


def test_on_levels_of_a_known_environment_a_drift_teaches_its_reference_agent(monkeypatch):
    """As by the environment's name: discount, advantages and entropy bonus are those of the environment."""
    monkeypatch.setattr(trained_agent, "_train", lambda *_: (None, np.zeros(2), {}))  # who it is does not depend on it
    pendulum = environments.environment("Pendulum-v1")
    agent = metadisco.train_agent("lpo-quick", GymnaxLevels(pendulum.inner.env), 1, num_points=1)
    learned = metadisco.load("lpo-quick").objective
    assert agent.inner == environments.with_objective(learned, pendulum.inner)
    assert agent.inner.objective.gamma == pendulum.inner.objective.gamma != learned.gamma


def test_an_agent_learns_on_a_level_that_is_drawn_by_the_seed():
    levels = metadisco.GridLevels(max_side=4, num_walls=1)
    first, again, other = (
        metadisco.train_agent("ta-lpg-quick", levels, 1, num_points=1, seed=seed) for seed in (0, 0, 1)
    )
    assert first.returns.tolist() == again.returns.tolist()
    assert first.returns.tolist() != other.returns.tolist()


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("ta-lpg-quick", SUITE, 1.5), {}, "updates must be a whole number"),
        (("ta-lpg-quick", SUITE, 4), {"seed": 1.5}, "seed must be a whole number"),
        (("ta-lpg-quick", SUITE, 4), {"seed": True}, "seed must be a whole number"),
        (("ta-lpg-quick", "grid-tinny", 4), {}, "Did you mean 'grid-tiny'"),
        (("ta-lpg-quick", "grid-tiny@4"), {}, "leave out the lifetime after @"),
        (("ta-lpg-quick", "classic"), {}, "name one of CartPole-v1"),
        (("ta-lpg-quick", 5), {}, "got int"),
        (("ta-lpg-quick", metadisco.GridLevels()), {}, "say how many agent updates"),
        (("ta-lpg-quik", SUITE), {}, "Did you mean 'ta-lpg-quick'"),
        ((7, SUITE), {}, "got int"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_begins(arguments, options, words, monkeypatch):
    monkeypatch.setattr(metadisco.InnerLoop, "begin", None)
    with pytest.raises(ValueError, match=words):
        metadisco.train_agent(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"minutes": "3"}, "minutes must be a number above 0"),
        ({"minutes": float("nan")}, "minutes must be a number above 0"),
        ({"overrides": {"num_stps": 3}}, "num_steps"),
        ({"overrides": {"num_steps": "many"}}, "num_steps"),
    ],
)
def test_discover_refuses_a_wrong_argument_before_it_makes_a_folder(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        metadisco.discover("smoke", **options)
    assert not list(tmp_path.iterdir())


def test_discover_takes_a_name_settings_and_limits(tmp_path, monkeypatch):
    seen = {}

    def stop(trainer, folder, options, *_, **__):
        seen.update(trainer=trainer, folder=folder, options=options)
        raise KeyboardInterrupt

    monkeypatch.setattr(discovery.loop, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        metadisco.discover("smoke", overrides={"num_steps": 2, "meta_optimizer.sigma.start": 0.2}, minutes=0.5, seed=4)
    assert seen["trainer"].num_steps == 2
    assert seen["trainer"].meta_optimizer.sigma.start == 0.2
    assert (str(seen["folder"]), seen["options"].minutes, seen["options"].seed) == ("runs/smoke", 0.5, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("ta-lpg-quick", SUITE), {"seed": 1.5}, "seed must be"),
        (("ta-lpg-quick", SUITE), {"num_seeds": 0}, "num_seeds must be"),
        (("ta-lpg-quick", SUITE), {"num_levels": 2.5}, "num_levels must be"),
        ((3, SUITE), {}, "got int"),
        (("ta-lpg-quick", "grid-tinny"), {}, "Did you mean 'grid-tiny'"),
    ],
)
def test_a_meta_test_refuses_a_wrong_argument(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        metadisco.meta_test(*arguments, **options)


@pytest.fixture(scope="module")
def found():
    return metadisco.meta_test("ta-lpg-quick", f"{SUITE}@1", num_levels=2, num_seeds=2, baselines="a2c")


def test_results_show_themselves_as_a_table_and_are_rows(found):
    assert list(found[f"{SUITE}@1"]) == ["random", "a2c", "discovered", "optimal"]
    assert len(repr(found).splitlines()) == 6  # suite, head, four agents
    assert "discovered" in repr(found)
    assert found._repr_html_().count("<tr>") == 5
    rows = found.records()
    assert [(row["suite"], row["agent"]) for row in rows] == [(f"{SUITE}@1", agent) for agent in found[f"{SUITE}@1"]]
    assert rows[2]["iqm"] == results.summarize(found[f"{SUITE}@1"]["discovered"])["iqm"]


def test_results_are_a_frame_where_pandas_is_installed(found):
    pandas = pytest.importorskip("pandas")
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["agent"].tolist() == [row["agent"] for row in found.records()]


def test_without_pandas_a_frame_is_refused_in_words(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install pandas, or take Results\.records"):
        found.to_frame()


@pytest.mark.parametrize("name", metadisco.zoo_names())
def test_a_checkpoint_shows_itself_in_a_few_lines(name):
    discovered = metadisco.load(name)
    lines = repr(discovered).splitlines()
    assert 3 <= len(lines) <= 7
    assert max(map(len, lines)) < 100
    assert "IQM" in lines[2]
    assert lines[0] in discovered._repr_html_()


def test_what_html_would_read_as_marks_is_written_out():
    discovered = metadisco.Discovered(metadisco.A2C(), (), {"preset": "<script>", "seed": 0})
    assert "&lt;script&gt;" in discovered._repr_html_()
    assert "<script>" not in discovered._repr_html_()


def test_an_inner_loop_is_found_by_name():
    assert metadisco.inner_loop("ta-lpg-quick") == metadisco.inner_loop(metadisco.load("ta-lpg-quick"))
