"""Any environment by name: what it becomes, what it is tested with, and what is said where there is none."""

import json
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.convolutions import StridedCNN
from metadisco.agents.networks import CNN, MLP, Separate, Table
from metadisco.core.config import ConfigError
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.envs.brax_adapter import Brax
from metadisco.envs.gymnasium_adapter import Gymnasium
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.envs.host import Hosted
from metadisco.evaluation import any_environment, environments, evaluation, results, scales, suites
from metadisco.evaluation.agents_under_test import AgentUnderTest
from metadisco.evaluation.scales import Scale
from tests.support import probes

pytestmark = pytest.mark.usefixtures("empty_home")

HERE = "tests.evaluation.test_any_environment"
MEASURED = Scale(random_return=-1.0, upper_return=3.0, lifetime=7, rate_factor=3.0, num_seeds=2)


@dataclass(frozen=True)
class Spaces:
    """An environment that has spaces and nothing else."""

    spec: EnvSpec


@dataclass(frozen=True)
class NeverSame(probes.RewardByAction):
    """Breaks the contract: what it observes is of another type than its spec says."""

    def reset(self, noise, level):
        return noise.astype(jnp.float32), noise


def make():
    return probes.RewardByAction()


def with_levels():
    return Gymnax("CartPole-v1"), Levels()


class Levels:
    def sample(self, key):
        return replace(Gymnax("CartPole-v1").default_level, length=jnp.float32(0.7))


def broken():
    return NeverSame()


def a_number():
    return 3


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("gymnax:CartPole-v1", "CartPole-v1"),
        ("brax:reacher", "brax-reacher"),
        ("gymnax:DeepSea-bsuite", "DeepSea-bsuite"),
    ],
)
def test_known_environments_are_the_same_under_the_name_of_their_library(name, known):
    assert any_environment.environment(name) == environments.environment(known)


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("gymnax:FourRooms-misc", Gymnax("FourRooms-misc")),
        ("brax:ant", Brax("ant")),
        ("gymnasium:MountainCar-v0", Hosted(Gymnasium("MountainCar-v0"))),
        (f"{HERE}:make", probes.RewardByAction()),
    ],
)
def test_others_have_the_usual_agent_for_their_spaces_and_no_scale(name, env):
    found = any_environment.environment(name)
    assert found.inner == any_environment.default_agent(env)
    assert (found.upper_anchor, found.lifetime) == ("unscaled", any_environment.LIFETIME)
    assert not suites.suite(name).build(lifetime=2).is_scaled


@pytest.mark.parametrize(
    ("observation", "action", "torso"),
    [
        (Discrete(9), Discrete(2), Table()),
        (Box((4,)), Discrete(2), Separate),
        (Box((4, 3)), Box((2,)), Separate),
        (Box((10, 10, 4)), Discrete(3), CNN((16,), (64,))),
        (Box((84, 84, 4)), Discrete(3), StridedCNN()),
    ],
)
def test_the_network_suits_the_observation(observation, action, torso):
    inner = any_environment.default_agent(Spaces(EnvSpec(observation, action)))
    assert inner.torso == torso if torso is not Separate else isinstance(inner.torso.policy, MLP)
    assert inner.objective.entropy_weight > 0 or isinstance(action, Box)
    assert (inner.num_workers * inner.num_steps) % inner.learner.num_minibatches == 0


def test_an_index_that_is_too_large_for_a_table_is_refused():
    with pytest.raises(ValueError, match="tables are for at most 100,000"):
        any_environment.default_agent(Spaces(EnvSpec(Discrete(200_000), Discrete(2))))


def test_ones_own_environment_may_bring_its_levels():
    found = any_environment.environment(f"{HERE}:with_levels")
    assert found.inner.env == Gymnax("CartPole-v1")
    test_set = suites.suite(f"{HERE}:with_levels").build(lifetime=2)
    assert test_set.tasks.level.length == np.float32(0.7)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("gymnax:FourRoms-misc", "Near it: gymnax:FourRooms-misc"),
        ("brax:ants", "Did you mean 'ant'"),
        ("gymnasium:CartPole-v9", "gymnasium:CartPole-v1"),
        ("no_such_library:x", "neither a library of environments"),
        (f"{HERE}:nothing", "has no nothing"),
        (f"{HERE}:a_number", "makes 3, which is no environment: it needs spec, noise, reset and step"),
        (f"{HERE}:broken", "breaks the contract of environments: .*observation"),
        ("my-module:make", "write LIBRARY:NAME"),
    ],
)
def test_what_is_none_is_refused_in_words(name, match):
    with pytest.raises(ConfigError, match=match):
        suites.find(name)


def test_a_plain_name_of_a_library_is_found_near():
    with pytest.raises(ConfigError, match="In a library there is gymnax:FourRooms-misc"):
        suites.find("FourRooms")


def test_a_scale_that_was_measured_is_used_and_its_rate():
    name = f"{HERE}:make"
    scales.keep("another", replace(MEASURED, lifetime=9))
    scales.keep(name, MEASURED)
    found, usual = any_environment.environment(name), any_environment.default_agent(probes.RewardByAction())
    assert (found.random_return, found.upper_return, found.lifetime) == (-1.0, 3.0, 7)
    assert found.upper_anchor == "reference"
    assert found.inner.learner.policy.learning_rate == 3.0 * usual.learner.policy.learning_rate
    assert replace(found.inner, learner=usual.learner) == usual
    assert scales.read()["another"].lifetime == 9


def test_a_damaged_file_of_scales_is_named():
    scales.keep("x", MEASURED)
    scales.path().write_text(json.dumps({"x": {"random_return": 1.0}}))
    with pytest.raises(ConfigError, match=r"scales\.json is damaged .*: remove it"):
        scales.read()


def test_ppo_that_is_not_above_random_makes_no_scale():
    with pytest.raises(ValueError, match="is not above that of a policy that has not learned"):
        Scale(1.0, 1.0, lifetime=3, rate_factor=1.0, num_seeds=2)


def test_scores_without_a_scale_are_returns_with_no_anchors():
    test_set = suites.suite(f"{HERE}:make").build(lifetime=4)
    found = evaluation.compare([AgentUnderTest("ppo", test_set.inner)], test_set, num_seeds=2, num_points=2)
    assert list(found) == ["ppo"]
    np.testing.assert_array_equal(found["ppo"].scores, found["ppo"].returns)
    row = results.summarize(found["ppo"])
    assert row["is_scaled"] is False
    assert "optimality_gap" not in row
    assert not results.are_scaled({"ppo": row})
    assert results.remarks({test_set.name: {"ppo": row | {"iqm": 7.0, "iqm_low": 6.0, "iqm_high": 8.0}}}) == []
