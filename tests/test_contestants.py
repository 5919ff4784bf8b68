"""Suites by name, and agents that suit each of their batteries."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from rich.console import Console

from metadisco import checkpoint, config, discovery, evaluation, results, settings, suites
from metadisco.agents.networks import MLP, Table
from metadisco.arena import Arena
from metadisco.checkpoint import Discovered
from metadisco.contestants import batteries, contestants, inner_loops
from metadisco.curricula.randomization import DomainRandomization
from metadisco.envs.gridworld import GridWorld
from metadisco.life import InnerLoop
from metadisco.meta.evolution import Evolution
from metadisco.mixed_trainer import MixedTrainer
from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.presets import Preset, preset
from tests import small

LPO = MirrorLearning(LPODrift(width=4))
CARTPOLE = settings.setting("CartPole-v1").inner


@pytest.mark.parametrize("name", settings.NAMES)
def test_every_setting_fits_together_and_has_a_scale(name):
    chosen = settings.setting(name)  # an InnerLoop traces its agent when it is made
    assert chosen.reference_return > chosen.random_return
    assert isinstance(chosen.inner.objective.drift, PPODrift)
    level = chosen.levels.sample(jax.random.key(3))
    small.assert_trees_close(level, chosen.inner.env.default_level)  # the published one, whatever the key
    noise = jax.eval_shape(lambda key: chosen.inner.env.noise(key, ()), jax.random.key(0))
    obs, _ = jax.eval_shape(chosen.inner.env.reset, noise, level)
    assert obs.shape == chosen.inner.env.spec.observation.shape


def test_a_drift_is_plugged_into_the_settings_of_the_environment():
    inner = settings.plug(MirrorLearning(LPODrift(), gamma=0.1), CARTPOLE)
    assert inner == replace(CARTPOLE, objective=replace(CARTPOLE.objective, drift=LPODrift()))
    assert inner.objective.gamma == CARTPOLE.objective.gamma != 0.1


def test_another_objective_is_plugged_in_whole():
    assert settings.plug(LPG(width=4), CARTPOLE).objective == LPG(width=4)


def test_an_objective_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="discrete"):
        settings.plug(LPG(width=4), settings.setting("Pendulum-v1").inner)


def test_a_table_on_images_is_refused():
    with pytest.raises(ValueError, match="a Table needs"):
        replace(settings.setting("Breakout-MinAtar").inner, torso=Table())


def test_a_group_is_several_suites():
    found = batteries("classic@3")
    assert [each.name for each in found] == [f"{name}@3" for name in suites.GROUPS["classic"]]
    assert all(each.lifetime == 3 and each.inner is not None and each.top == "reference" for each in found)
    np.testing.assert_array_equal(found[0].tasks.lifetime, [3])


@pytest.mark.parametrize(("name", "hint"), [("clasic", "classic"), ("CartPole-v1@0", "positive integer")])
def test_a_name_that_is_wrong_is_explained(name, hint):
    with pytest.raises(config.ConfigError, match=hint):
        batteries(name)


def test_networks_compete_with_ppo_and_dpo_in_equal_settings():
    roster = contestants([small.inner_loop(LPO)], "meta", CARTPOLE)
    drifts = {name: inner.objective.drift for name, (inner, _) in roster.items()}
    assert drifts == {"ppo": PPODrift(), "dpo": DPODrift(), "discovered": LPODrift(width=4)}
    assert {replace(inner, objective=CARTPOLE.objective) for inner, _ in roster.values()} == {CARTPOLE}
    assert roster["discovered"][1] == "meta"


def test_tables_compete_with_a2c_in_their_own_loop():
    home = replace(small.inner_loop(LPO), num_workers=8)  # 8 x 5 samples are four minibatches
    roster = contestants([CARTPOLE, home], (), None)
    assert list(roster) == ["a2c", "discovered"]
    assert roster["discovered"][0] == home
    assert contestants([home], (), None, ("dpo",))["dpo"][0].objective.drift == DPODrift()


@pytest.mark.parametrize(
    ("candidates", "home", "baselines", "message"),
    [
        ([small.inner_loop(LPO)], CARTPOLE, ("a2c",), "use ppo or dpo"),
        ([small.inner_loop(LPO)], None, ("a3c",), "unknown baseline"),
        ([CARTPOLE], None, None, "for agents of grid worlds"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidates, home, baselines, message):
    with pytest.raises(config.ConfigError, match=message):
        contestants(candidates, (), home, baselines)


def test_networks_in_grid_worlds_are_tested_without_a_baseline():
    network = replace(small.inner_loop(LPO), num_workers=8, torso=MLP((4,)))
    assert list(contestants([CARTPOLE, network], (), None)) == ["discovered"]


def test_agents_that_a_suite_brings_along_cannot_be_exchanged():
    (battery,) = batteries("CartPole-v1@1")
    with pytest.raises(ValueError, match=r"settings\.plug"):
        evaluation.evaluate(replace(CARTPOLE, num_steps=3), (), battery, num_points=1)


def test_a_learned_drift_is_tested_on_an_environment_with_its_own_agents():
    objective = small.inner_loop(LPO).objective
    trainer = config.to_data(preset("lpo-quick").trainer)
    found = Discovered(objective, objective.init(jax.random.key(0)), {"trainer": trainer})
    row = results.table(discovery.meta_test(found, ["CartPole-v1@1"], baselines=()))["CartPole-v1@1"]
    assert list(row) == ["random", "discovered", "reference"]
    assert row["reference"]["mean_return"] == 500.0
    assert 8.0 < row["discovered"]["mean_return"] < 100.0  # after a single update


def test_a_suite_is_tested_once():
    with pytest.raises(config.ConfigError, match="once"):
        discovery.compare(
            {"mine": ([CARTPOLE], ())}, [*batteries("CartPole-v1"), *batteries("CartPole-v1")], num_seeds=1, seed=0
        )


def test_drift_presets_train_one_objective_in_all_arenas():
    for name, features in (("lpo-quick", 8), ("ta-lpo-quick", 16)):
        trainer = preset(name).trainer
        assert len(trainer.arenas) == 3
        for inner in inner_loops(trainer):
            assert len(inner.objective.features) == features


def test_a_run_on_several_environments_is_tested_and_saved(tmp_path):
    grid = replace(small.inner_loop(LPO), num_workers=8)
    arena = Arena(grid, DomainRandomization(small.TASKS), 2, slots=2, name="grid")
    trainer = MixedTrainer((arena, replace(arena, name="twin")), Evolution(), num_steps=1)
    tiny = Preset("tiny", "two arenas", trainer, suites=("grid-tiny@4",), num_seeds=1, validate_every=0)
    outcome = discovery.discover(tiny, tmp_path / "run", console=Console(quiet=True))
    loaded = checkpoint.load(tmp_path / "run" / "objective")
    assert loaded.objective == LPO
    assert loaded.provenance["minutes"] > 0.0  # what was saved before the test is replaced
    assert set(loaded.evaluation["grid-tiny@4"]) == {"random", "a2c", "discovered", "optimal"}
    assert discovery.trained_with(loaded) == (grid, grid)
    assert "The drift" in (outcome.folder / "report.html").read_text()


def test_a_run_that_no_suite_can_test_is_refused_before_it_begins(tmp_path):
    image = InnerLoop(GridWorld(planes=True), MLP((4,)), LPO)
    arena = Arena(image, DomainRandomization(small.TASKS), 2)
    trainer = MixedTrainer((arena,), Evolution(), num_steps=1)
    tiny = Preset("tiny", "images", trainer, suites=("CartPole-v1",), validate_every=1)  # validation is on grids
    with pytest.raises(config.ConfigError, match="planes=False"):
        discovery.discover(tiny, tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()
