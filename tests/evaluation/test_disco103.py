"""Disco103 in a meta-test: with agents of its own, on grid worlds as planes, by its name on the command line."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

from metadisco.checkpoints import disco103
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.core.files import CheckpointError
from metadisco.evaluation import environments, evaluation, meta_test, suites
from metadisco.evaluation.agents_under_test import TrainedObjective, plan, trained_with
from metadisco.objectives.disco103 import Disco103
from tests.golden import disco103_inputs as inputs
from tests.support import small

SMALL = Disco103(5, 7, 3.0, width=4, memory_width=3)
CARTPOLE = environments.environment("CartPole-v1").inner


@functools.cache
def discovered():
    return Discovered(SMALL, jax.jit(SMALL.init)(jax.random.key(0)))


def test_it_brings_its_network_and_optimizer_to_an_environment_and_keeps_the_rest():
    inner = environments.with_objective(SMALL, CARTPOLE)
    assert inner.torso == environments.DISCO_TORSO
    assert inner.learner == environments.DISCO_LEARNER
    assert replace(inner, torso=CARTPOLE.torso, learner=CARTPOLE.learner, objective=CARTPOLE.objective) == CARTPOLE


def test_continuous_actions_are_refused_with_what_to_use():
    with pytest.raises(ValueError, match="use A2C or MirrorLearning"):
        environments.with_objective(SMALL, environments.environment("Pendulum-v1").inner)


def test_an_agent_other_than_its_own_is_refused_on_a_suite():
    test_set = suites.build("CartPole-v1@1")[0]
    other = replace(CARTPOLE, objective=SMALL)
    with pytest.raises(ValueError, match="has an agent of its own"):
        evaluation.evaluate(other, discovered().meta_params, test_set, num_points=1)


def test_grid_worlds_are_seen_as_planes():
    (inner,) = trained_with(discovered())
    assert inner.env.planes
    (test,) = plan([TrainedObjective("mine", (inner,), discovered().meta_params)], suites.find("grid-tiny"))
    assert [agent.name for agent in test.agents] == ["mine"]  # no baseline is tuned for such agents
    env = environments.as_seen_by(test.agents[0].inner, test.suite.suite.env)
    assert env == replace(test.suite.suite.env, planes=True)
    assert environments.as_seen_by(small.inner_loop(), test.suite.suite.env) == test.suite.suite.env


@pytest.mark.slow
def test_its_agents_live_on_grid_worlds():
    (test_set,) = suites.build("grid-tiny@1", 2)
    found = evaluation.evaluate(trained_with(discovered())[0], discovered().meta_params, test_set, num_points=1)
    assert found.returns.shape == (2, 2, 1)
    assert np.isfinite(found.returns).all()
    assert {"policy_loss", "y_loss", "z_loss", "aux_loss", "value_loss"} <= found.metrics.keys()


def test_published_weights_have_a_name_on_the_command_line(tmp_path):
    arrays = inputs.weights(disco103.names_and_shapes(Disco103()))
    np.savez(tmp_path / disco103.FILE, **arrays)
    reference = f"disco103:{tmp_path}"
    assert list(meta_test.load_all([reference])) == ["discovered"]
    named = meta_test.load_all([reference, f"mine={reference}/{disco103.FILE}", "ta-lpg-grid"])
    assert list(named) == ["disco103", "mine", "ta-lpg-grid"]
    assert named["disco103"].objective == named["mine"].objective == Disco103()
    assert meta_test.trained_lifetimes(named["disco103"]) == "unknown"
    with pytest.raises(CheckpointError, match="get it again from"):
        meta_test.load_all([f"{reference}/nothing"])


def test_trained_lifetimes_that_are_unknown_are_said_to_be():
    named = {"mine": discovered(), "ta-lpg-grid": meta_test.load_all(["ta-lpg-grid"])["discovered"]}
    (sentence,) = meta_test._lifetimes_differ(named)
    assert sentence == "trained lifetimes differ: mine unknown, ta-lpg-grid 10 to 250 updates"


def test_a_lifetime_without_a_single_update_is_refused():
    with pytest.raises(config.ConfigError, match="lifetime"):
        suites.find("CartPole-v1@0")
