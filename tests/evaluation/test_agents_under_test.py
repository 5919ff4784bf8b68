"""Suites by name, and agents that suit each of their test sets."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import suite_table
from metadisco.agents.networks import MLP, Table
from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.commands import discovery
from metadisco.core import config
from metadisco.curricula.randomization import DomainRandomization
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.evaluation import environments, evaluation, meta_test, results, suites
from metadisco.evaluation.agents_under_test import TrainedObjective, inner_loops, trained_with
from metadisco.evaluation.meta_test import plan
from metadisco.lives.life import InnerLoop
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.presets.base import Preset
from metadisco.presets.registry import preset
from tests.support import small

LPO = MirrorLearning(LPODrift(width=4))
CARTPOLE = environments.environment("CartPole-v1").inner


def agents(inner_loops, suite, baselines=None, meta_params=()):
    """Who is tested on a suite beside an objective called `mine`, by name."""
    (test,) = plan([TrainedObjective("mine", tuple(inner_loops), meta_params)], [suite], baselines=baselines)
    return {agent.name: agent for agent in test.agents}


@pytest.mark.parametrize("name", [name for name in environments.NAMES if name not in environments.HOSTED])
def test_every_environment_fits_its_reference_agent_and_has_a_scale(name):
    chosen = environments.environment(name)  # an InnerLoop traces its agent when it is made
    assert chosen.upper_return > chosen.random_return
    assert chosen.upper_anchor == environments.upper_anchor(name)
    assert isinstance(chosen.inner.objective.drift, PPODrift)
    level = chosen.levels.sample(jax.random.key(3))
    small.assert_trees_close(level, chosen.inner.env.default_level)  # the published one, whatever the key
    noise = jax.eval_shape(lambda key: chosen.inner.env.noise(key, ()), jax.random.key(0))
    obs, _ = jax.eval_shape(chosen.inner.env.reset, noise, level)
    assert obs.shape == chosen.inner.env.spec.observation.shape


def test_the_reference_agent_is_given_a_drift_and_keeps_its_own_settings():
    inner = environments.with_objective(MirrorLearning(LPODrift(), gamma=0.1), CARTPOLE)
    assert inner == replace(CARTPOLE, objective=replace(CARTPOLE.objective, drift=LPODrift()))
    assert inner.objective.gamma == CARTPOLE.objective.gamma != 0.1


def test_another_objective_replaces_that_of_the_reference_agent():
    assert environments.with_objective(LPG(width=4), CARTPOLE).objective == LPG(width=4)


@pytest.mark.parametrize("objective", [LPG(width=4), A2C(), ScheduledA2C()])
def test_an_objective_without_an_importance_ratio_takes_one_step_and_sees_rewards_as_they_are(objective):
    inner = environments.with_objective(objective, CARTPOLE)
    assert inner.learner.num_gradient_steps == 1
    assert inner.normalizer == replace(CARTPOLE.normalizer, rewards=False)
    breakout = environments.environment("Breakout-MinAtar").inner
    assert environments.with_objective(objective, breakout).normalizer is None


@pytest.mark.parametrize("objective", [MirrorLearning(LPODrift()), ScheduledMirrorLearning()])
def test_an_objective_with_one_keeps_the_learner_of_the_environment(objective):
    inner = environments.with_objective(objective, CARTPOLE)
    assert (inner.learner, inner.normalizer) == (CARTPOLE.learner, CARTPOLE.normalizer)


def test_an_objective_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="discrete"):
        environments.with_objective(LPG(width=4), environments.environment("Pendulum-v1").inner)


def test_a_table_on_images_is_refused():
    with pytest.raises(ValueError, match="a Table needs"):
        replace(environments.environment("Breakout-MinAtar").inner, torso=Table())


def test_a_group_is_several_suites():
    found = suites.build("classic@3")
    assert [each.name for each in found] == [f"{name}@3" for name in suites.GROUPS["classic"]]
    assert all(each.lifetime == 3 and each.inner is not None and each.upper_anchor == "reference" for each in found)
    np.testing.assert_array_equal(found[0].tasks.lifetime, [3])


def test_the_page_of_suites_is_what_the_code_says():
    page = suite_table.PAGE.read_text()
    assert page == suite_table.written(page), "run python experiments/suite_table.py"


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("grid-tiny", [None]),
        ("grid-tiny@5", [5]),
        ("grid-tiny@x4", [32]),
        ("grid-tiny@x1/8", [1]),
        ("grid-tiny@x0.3", [2]),  # rounded
        ("grid-tiny@x1", [None]),
        ("horizons:grid-tiny", [2, None, 32, 128]),
        ("horizons:grid-tiny@100", [25, 100, 400, 1600]),
        ("horizons:grid-tiny@x2", [4, 16, 64, 256]),
        ("horizons:classic", [32, None, 512, 2048, 32, None, 512, 2048, 64, None, 1024, 4096]),
    ],
)
def test_a_name_says_for_how_long(name, times):
    assert [each.lifetime for each in suites.find(name)] == times


def test_a_suite_of_a_game_is_scored_between_the_random_policy_and_a_human():
    pong = environments.environment("atari-pong")
    assert (pong.random_return, pong.upper_return, pong.upper_anchor) == (-20.7, 14.6, "human")
    assert suites.suite("atari-pong").description.endswith("1 is the published score of a human")


def test_exact_scales_are_those_of_play_by_the_book():
    """The optimum of each bsuite environment, played by hand."""
    best = {
        "DeepSea-bsuite": lambda env, state: state.action_mapping[state.row, state.column],
        "DiscountingChain-bsuite": lambda env, state: jnp.int32(3),
        "UmbrellaChain-bsuite": lambda env, state: state.need_umbrella,
        "Catch-bsuite": lambda env, state: 1 + jnp.sign(state.ball_x - state.paddle_x),
    }
    assert best.keys() == set(suites.GROUPS["bsuite"])
    for name, choose in best.items():
        chosen = environments.environment(name)
        env, level = chosen.inner.env, chosen.levels.sample(jax.random.key(0))
        returns = _episode_returns(env, level, choose)
        tolerance = 4.0 * jnp.std(returns) / returns.size**0.5 + 1e-5
        assert abs(returns.mean() - chosen.upper_return) <= tolerance, name


def _episode_returns(env, level, choose):
    """Of 2048 episodes."""

    @jax.jit
    @jax.vmap
    def play(key):
        reset_key, key = jax.random.split(key)
        _, state = env.reset(env.noise(reset_key, ()), level)

        def step(carry, key):
            state, total, is_over = carry
            _, state, out = env.step(env.noise(key, ()), state, choose(env, state), level)
            total += jnp.where(is_over, 0.0, out.reward)
            return (state, total, is_over | out.terminated | out.truncated), None

        keys = jax.random.split(key, 101)
        (_, total, is_over), _ = jax.lax.scan(step, (state, 0.0, False), keys)
        return jnp.where(is_over, total, jnp.nan)

    return play(jax.random.split(jax.random.key(1), 2048))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clasic", "classic"),
        ("CartPole-v1@0", "positive integer"),
        ("CartPole-v1@", "no lifetime after @"),
        ("CartPole-v1@x0", "positive number such as 4, 1/4"),
        ("CartPole-v1@x1/0", "positive number"),
        ("CartPole-v1@xfour", "positive number"),
        ("grid-tiny@x1/16", "grid-tiny would live for 0.5 agent updates.*at least 1"),
        ("horizons:grid-tiny@2", "0.5 agent updates"),
        ("horizons:", "unknown suite ''"),
    ],
)
def test_a_name_that_is_wrong_is_explained(name, hint):
    with pytest.raises(config.ConfigError, match=hint):
        suites.build(name)


def test_networks_compete_with_ppo_and_dpo_in_equal_settings():
    found = agents([small.inner_loop(LPO)], "CartPole-v1", meta_params="meta")
    drifts = {name: agent.inner.objective.drift for name, agent in found.items()}
    assert drifts == {"ppo": PPODrift(), "dpo": DPODrift(), "mine": LPODrift(width=4)}
    assert {replace(agent.inner, objective=CARTPOLE.objective) for agent in found.values()} == {CARTPOLE}
    assert [agent.meta_params for agent in found.values()] == [(), (), "meta"]
    assert [agent.is_hand_written for agent in found.values()] == [True, True, False]


def test_tables_compete_with_all_that_is_tuned_for_them_in_their_own_loop():
    home = replace(small.inner_loop(LPO), num_workers=8)  # 8 x 5 samples are four minibatches
    found = agents([CARTPOLE, home], "mazes")
    assert list(found) == ["a2c", "a2c-count", "ppo", "dpo", "mine"]
    assert found["mine"].inner == home
    assert agents([home], "mazes", ("dpo",))["dpo"].inner.objective.drift == DPODrift()


def test_a_baseline_whose_minibatches_do_not_fit_is_left_out():
    home = replace(small.inner_loop(LPG(width=2)), num_workers=3, num_steps=5)
    assert list(agents([home], "mazes")) == ["a2c", "a2c-count", "mine"]


@pytest.mark.parametrize(
    ("candidates", "suite", "baselines", "message"),
    [
        ([small.inner_loop(LPO)], "CartPole-v1", ("a2c",), "use ppo or dpo"),
        ([small.inner_loop(LPO)], "mazes", ("a3c",), "unknown baseline"),
        ([CARTPOLE], "mazes", None, "mazes is for agents of grid worlds"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidates, suite, baselines, message):
    with pytest.raises(config.ConfigError, match=message):
        agents(candidates, suite, baselines)


def test_a_plan_names_each_test_set_as_it_will_be_called():
    names = ["grid-tiny", "grid-tiny@3", "CartPole-v1@x1/64"]
    tests = plan([TrainedObjective("mine", (replace(small.inner_loop(LPO), num_workers=8),), ())], names, 2)
    assert [test.name for test in tests] == [test.suite.build().name for test in tests]
    assert [len(test.suite.build().names) for test in tests] == [2, 2, 1]


def test_networks_in_grid_worlds_are_tested_without_a_baseline():
    network = replace(small.inner_loop(LPO), num_workers=8, torso=MLP((4,)))
    assert list(agents([CARTPOLE, network], "mazes")) == ["mine"]


def test_agents_that_a_suite_brings_along_cannot_be_exchanged():
    (test_set,) = suites.build("CartPole-v1@1")
    with pytest.raises(ValueError, match="with_objective"):
        evaluation.evaluate(replace(CARTPOLE, num_steps=3), (), test_set, num_points=1)


def test_a_learned_drift_is_tested_on_an_environment_with_its_own_agents():
    objective = small.inner_loop(LPO).objective
    trainer = config.to_data(preset("lpo-quick").trainer)
    found = Discovered(objective, objective.init(jax.random.key(0)), {"trainer": trainer})
    row = results.table(meta_test.meta_test(found, ["CartPole-v1@1"], baselines=()))["CartPole-v1@1"]
    assert list(row) == ["random", "discovered", "reference"]
    assert row["reference"]["mean_return"] == 500.0
    assert 8.0 < row["discovered"]["mean_return"] < 100.0  # after a single update


def test_a_suite_is_tested_once():
    with pytest.raises(config.ConfigError, match="once"):
        plan([TrainedObjective("mine", (CARTPOLE,), ())], ["CartPole-v1", "classic"])


def test_drift_presets_train_one_objective_in_all_domains():
    for name, features in (("lpo-quick", 8), ("ta-lpo-quick", 16)):
        trainer = preset(name).trainer
        assert len(trainer.domains) == 3
        for inner in inner_loops(trainer):
            assert len(inner.objective.features) == features


@pytest.mark.slow
def test_a_run_on_several_environments_is_tested_and_saved(tmp_path):
    grid = replace(small.inner_loop(LPO), num_workers=8)
    domain = Domain(grid, DomainRandomization(small.TASKS), 2, slots=2, name="grid")
    trainer = EvolutionTrainer((domain, replace(domain, name="twin")), Evolution(), num_steps=1)
    tiny = Preset("tiny", "two domains", trainer, suites=("grid-tiny@4",), num_seeds=1, validate_every=0)
    outcome = discovery.discover(tiny, tmp_path / "run", console=Console(quiet=True))
    loaded = checkpoint.load(tmp_path / "run" / "objective")
    assert loaded.objective == LPO
    assert loaded.provenance["minutes"] > 0.0  # what was saved before the test is replaced
    assert set(loaded.evaluation["grid-tiny@4"]) == {
        *("random", "a2c", "a2c-count", "ppo", "dpo", "discovered", "optimal")
    }
    assert trained_with(loaded) == (grid, grid)
    page = (outcome.folder / "report.html").read_text()
    assert "The drift" in page
    assert "could not be made" not in page
    assert "Levels that the curriculum kept" not in page


def test_a_run_that_no_suite_can_test_is_refused_before_it_begins(tmp_path):
    image = InnerLoop(GridWorld(planes=True), MLP((4,)), LPO)
    domain = Domain(image, DomainRandomization(small.TASKS), 2)
    trainer = EvolutionTrainer((domain,), Evolution(), num_steps=1)
    tiny = Preset("tiny", "images", trainer, suites=("CartPole-v1",), validate_every=1)  # validation is on grids
    with pytest.raises(config.ConfigError, match="planes=False"):
        discovery.discover(tiny, tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()
