"""Meta-test on tiny levels: what is reported is what happened, whoever else lives and on however many devices."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import SGD
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.evaluation import results
from metadisco.evaluation.agents_under_test import AgentUnderTest, tuned_a2c, tuned_ppo
from metadisco.evaluation.evaluation import Frozen, compare, evaluate
from metadisco.evaluation.test_sets import Generated, GridSuite
from metadisco.lives.learner import Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.mirror_learning import MirrorLearning
from tests.support import small

SUITE = GridSuite("tiny", "for tests", (Generated(small.LEVELS),), num_levels=5, lifetime=3, seed=1)
INNER = small.inner_loop(A2C(), learner=Learner(SGD(8.0), SGD(4.0)), num_workers=8)
SLOTS = 4


def evaluate_a2c(levels, **options):
    """Every call in this file has 15 lives, so that they share their compilations."""
    settings = {"num_seeds": 3, "num_points": 2, "slots": SLOTS, "devices": jax.devices()[:1]}
    return evaluate(INNER, (), levels, **(settings | options))


@pytest.fixture(scope="module")
def levels():
    return SUITE.build()


@pytest.fixture(scope="module")
def a2c(levels):
    return evaluate_a2c(levels)


def test_shapes_are_points_tasks_and_seeds(a2c, levels):
    assert a2c.returns.shape == a2c.scores.shape == (3, 5, 3)
    assert a2c.fractions.tolist() == [0.0, 0.5, 1.0]
    assert set(a2c.metrics) == {"reward", "loss", "entropy", "value_loss"}
    assert all(metric.shape == (2, 5, 3) for metric in a2c.metrics.values())
    assert a2c.agent_params["logits"].shape == (5, levels.env.spec.observation.num, 5)
    assert (a2c.suite, a2c.lifetime, a2c.names) == ("tiny", 3, levels.names)
    assert a2c.env_steps == 3 * 8 * 5  # updates x workers x steps


def test_scores_are_normalized_returns(a2c, levels):
    expected = (a2c.returns[2, 4, 1] - levels.random_return[4]) / (levels.upper_return[4] - levels.random_return[4])
    np.testing.assert_allclose(a2c.scores[2, 4, 1], expected, rtol=1e-5)


def test_agents_kept_are_those_that_learned(a2c):
    assert np.all(np.any(a2c.agent_params["logits"] != 0.0, axis=(1, 2)))


def test_a2c_learns(levels):
    longer = evaluate_a2c(SUITE.build(lifetime=100))
    row = results.summarize(longer)
    assert (longer.suite, row["lifetime"]) == ("tiny@100", 100)
    assert row["iqm"] > 0.5
    assert row["iqm_low"] > results.summarize(evaluate_a2c(levels))["iqm_high"]


def test_a_life_is_the_same_whoever_else_lives(a2c):
    others = evaluate_a2c(SUITE.build(num_levels=15), num_seeds=1)
    np.testing.assert_allclose(others.returns[:, :5], a2c.returns[:, :, :1], rtol=1e-5)
    again = evaluate_a2c(SUITE.build(num_levels=5), num_points=1)
    np.testing.assert_allclose(again.returns, a2c.returns[[0, 2]], rtol=1e-5)


def test_seeds_change_the_lives(a2c, levels):
    assert len({a2c.metrics["loss"][..., seed].tobytes() for seed in range(3)}) == 3
    others = evaluate_a2c(levels, seed=1)
    for seed in range(3):
        assert not np.array_equal(others.metrics["loss"][..., seed], a2c.metrics["loss"][..., seed])


def test_progress_is_reported(levels):
    fractions = []
    evaluate_a2c(levels, num_points=3, on_progress=fractions.append)
    np.testing.assert_allclose(fractions, [0.0, 1 / 3, 2 / 3, 1.0])


def test_two_devices_give_the_same_numbers_as_one(a2c, levels):
    """15 lives on two devices: one share is filled up."""
    assert jax.device_count() == 2
    spread = evaluate_a2c(levels, devices=jax.devices())
    np.testing.assert_allclose(spread.returns, a2c.returns, rtol=1e-5)
    np.testing.assert_allclose(spread.agent_params["logits"], a2c.agent_params["logits"], rtol=1e-4, atol=1e-5)
    for name, metric in a2c.metrics.items():
        np.testing.assert_allclose(spread.metrics[name], metric, rtol=1e-4, atol=1e-6)


class Echo:
    """An objective that says what it was asked."""

    def init_state(self, *arguments):
        return arguments

    def targets(self, *arguments):
        return arguments

    def loss(self, *arguments):
        return arguments


def test_a_frozen_objective_is_asked_with_its_meta_params():
    frozen = Frozen(Echo(), "learned")
    assert frozen.init(None) == ()
    assert frozen.init_state("key", "agent", "agent_params", 4) == ("key", "agent", "agent_params", 4)
    assert frozen.targets((), "state", "predictions", "trajectory", "progress") == (
        "learned",
        "state",
        "predictions",
        "trajectory",
        "progress",
    )
    assert frozen.loss((), "targets", "outputs", "trajectory", "progress") == (
        "learned",
        "targets",
        "outputs",
        "trajectory",
        "progress",
    )


@pytest.fixture(scope="module")
def compared(levels):
    return {"tiny": compare([AgentUnderTest("a2c", INNER)], levels, num_seeds=3, num_points=2, slots=SLOTS)}


def test_random_scores_zero_and_optimal_one_exactly(compared, levels):
    table = results.table(compared)["tiny"]
    assert list(table) == ["random", "a2c", "optimal"]
    for agent, score in (("random", 0.0), ("optimal", 1.0)):
        row = table[agent]
        assert (row["iqm"], row["iqm_low"], row["iqm_high"], row["mean_score"]) == (score,) * 4
        assert row["is_exact"]
    np.testing.assert_allclose(table["optimal"]["mean_return"], levels.upper_return.mean(), rtol=1e-6)


def test_the_table_is_the_end_of_the_curves(compared, a2c):
    row = results.table(compared)["tiny"]["a2c"]
    np.testing.assert_allclose(row["mean_return"], a2c.returns[-1].mean(), rtol=1e-5)
    np.testing.assert_allclose(row["mean_score"], a2c.scores[-1].mean(), rtol=1e-5)
    assert row["iqm_low"] <= row["iqm"] <= row["iqm_high"]
    assert (row["num_tasks"], row["num_seeds"], row["lifetime"]) == (5, 3, 3)
    assert not row["is_exact"]


def test_files_give_back_what_was_written(compared, tmp_path):
    results.save_curves(tmp_path / "curves.npz", compared)
    restored = results.load_curves(tmp_path / "curves.npz")
    assert list(restored["tiny"]) == list(compared["tiny"])
    for agent, before in compared["tiny"].items():
        after = restored["tiny"][agent]
        for field in dataclasses.fields(results.Evaluation):
            np.testing.assert_equal(getattr(after, field.name), getattr(before, field.name))
    results.write_json(tmp_path / "evaluation.json", results.table(restored))
    assert json.loads((tmp_path / "evaluation.json").read_text()) == results.table(compared)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.npz", "evaluation.json"]


def test_arrays_of_curves_are_named_and_those_of_earlier_files_were_numbered(compared, tmp_path):
    path = tmp_path / "curves.npz"
    results.save_curves(path, compared)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    suite, agents = next(iter(compared.items()))
    for agent, evaluation in agents.items():
        np.testing.assert_array_equal(arrays[f"{suite}/{agent}/scores"], evaluation.scores)
        for metric, values in evaluation.metrics.items():
            np.testing.assert_array_equal(arrays[f"{suite}/{agent}/metrics/{metric}"], values)
    index = arrays.pop("index").item()
    numbered = {str(number): value for number, value in enumerate(arrays.values())}
    for number, name in enumerate(arrays):
        index = index.replace(json.dumps({"array": name}), json.dumps({"array": number}))
    np.savez(tmp_path / "earlier.npz", index=np.array(index), **numbered)
    earlier = results.load_curves(tmp_path / "earlier.npz")
    np.testing.assert_array_equal(earlier[suite]["a2c"].scores, compared[suite]["a2c"].scores)


def test_damaged_curves_are_said_to_be(compared, tmp_path):
    path = tmp_path / "curves.npz"
    results.save_curves(path, compared)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"{}", whole.replace(b"index.npy", b"other.npy")):
        path.write_bytes(content)
        with pytest.raises((ValueError, OSError)):
            results.load_curves(path)


@pytest.mark.parametrize("content", ["[]", "3", '{"a":'])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011 - one of the two is from json
        results.read_table(tmp_path / "evaluation.json")


@pytest.mark.parametrize(("tune", "kind"), [(tuned_a2c, A2C), (tuned_ppo, MirrorLearning)])
def test_tuned_baselines_change_the_learning_rule_only(tune, kind):
    inner = small.inner_loop()
    tuned = tune(inner)
    assert isinstance(tuned.objective, kind)
    assert dataclasses.replace(tuned, objective=inner.objective, learner=inner.learner) == inner
    with pytest.raises(ValueError, match="Table"):
        tune(dataclasses.replace(inner, torso=MLP()))


def test_tuned_ppo_needs_rollouts_that_can_be_split():
    with pytest.raises(ValueError, match="num_minibatches must divide"):
        tuned_ppo(small.inner_loop(num_workers=3))


@pytest.mark.parametrize("options", [{"num_seeds": 0}, {"num_points": 0}, {"num_points": 4}])
def test_bad_numbers_fail_before_compiling(levels, options):
    with pytest.raises(ValueError, match="num_points in 1"):
        evaluate_a2c(levels, **options)


@pytest.mark.parametrize("names", [["a2c", "a2c"], ["random"], ["optimal"]])
def test_names_in_a_comparison_differ(levels, names):
    with pytest.raises(ValueError, match="must differ and none be one of"):
        compare([AgentUnderTest(name, INNER) for name in names], levels)


def test_agents_that_do_not_fit_the_observations_are_refused(levels):
    blind = dataclasses.replace(levels, env=Gymnax("CartPole-v1"))
    with pytest.raises(ValueError, match="Table needs observations"):
        evaluate_a2c(blind)
