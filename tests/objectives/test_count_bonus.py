"""A bonus of counts: against a slow reference, what it leaves alone, and that it finds what A2C does not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.learned_optimizer import ResidualOPEN
from metadisco.agents.optimizers import RMSProp
from metadisco.core.types import Progress
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.lives.learner import Learner
from metadisco.objectives import count_bonus
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import is_surrogate
from metadisco.objectives.count_bonus import WithCountBonus
from metadisco.objectives.mirror_learning import PPO
from metadisco.objectives.with_optimizer import WithOptimizer
from tests.support import probes, small
from tests.support.rollouts import tabular, visiting

PROGRESS = Progress(jnp.int32(3), jnp.int32(20))
AGENT = tabular(num_obs=5)


def first_state(objective):
    return objective.init_state(jax.random.key(0), AGENT, (), 3)


def test_targets_are_those_of_a2c_on_rewards_with_the_bonus():
    objective = WithCountBonus(A2C(), bonus=0.3, power=0.7)
    state, met, largest = first_state(objective), np.zeros(5), 0.0
    for seed in (0, 1):
        trajectory, predictions = visiting(5, seed)
        found, state = objective.targets((), state, predictions, trajectory, PROGRESS)
        obs, reward = np.asarray(trajectory.obs), np.asarray(trajectory.reward)
        for each in obs.ravel():
            met[each] += 1
        largest = max(largest, np.abs(reward).max())
        told = reward / largest + 0.3 * np.array([[met[o] ** -0.7 for o in row] for row in obs])
        wanted, _ = A2C().targets((), (), predictions, replace(trajectory, reward=jnp.asarray(told)), PROGRESS)
        small.assert_trees_close(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.visits, met)
    np.testing.assert_allclose(state.largest, largest)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_rewards_of_any_scale_give_the_same_targets(scale):
    objective = WithCountBonus(A2C(), bonus=0.3)
    plain, other = (
        objective.targets((), first_state(objective), predictions, trajectory, PROGRESS)[0]
        for trajectory, predictions in (visiting(5), visiting(5, 0, scale))
    )
    small.assert_trees_close(plain, other, rtol=1e-4, atol=1e-5)


def test_no_bonus_is_the_objective_on_rewards_whose_largest_is_1():
    trajectory, predictions = visiting(5)
    trajectory = replace(trajectory, reward=trajectory.reward / jnp.max(jnp.abs(trajectory.reward)))
    objective = WithCountBonus(PPO(), bonus=0.0)
    found, _ = objective.targets((), first_state(objective), predictions, trajectory, PROGRESS)
    wanted, _ = PPO().targets((), (), predictions, trajectory, PROGRESS)
    small.assert_trees_close(found, wanted)


def test_an_observation_counts_as_often_as_it_was_met():
    visits, met = count_bonus.count(jnp.array([2.0, 0.0, 0.0]), jnp.array([[0, 1], [1, 1]]))
    assert visits.tolist() == [3.0, 3.0, 0.0]
    assert met.tolist() == [[3.0, 3.0], [3.0, 3.0]]


@pytest.mark.parametrize(("bonus", "arrives"), [(0.0, False), (0.3, True)])
def test_it_learns_a_walk_that_a2c_does_not_find(bonus, arrives):
    objective = WithCountBonus(A2C(entropy_weight=0.0), bonus=bonus)
    inner = probes.inner_loop(probes.LongWalk(), objective, Learner(RMSProp(0.1), RMSProp(0.1)), num_steps=8)
    life, _ = probes.learn(inner, 300)
    assert bool(life.objective_state.largest > 0.0) == arrives
    assert bool(jnp.mean(jax.nn.softmax(probes.outputs(inner, life, range(15))["logits"])[:, 1]) > 0.9) == arrives


def test_it_says_what_its_objective_says():
    assert is_surrogate(WithCountBonus(PPO()))
    assert not is_surrogate(WithCountBonus(A2C()))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="bonus must not be negative"):
        WithCountBonus(bonus=-1.0)
    with pytest.raises(ValueError, match="bonus must not be negative and must be finite"):
        WithCountBonus(bonus=float("nan"))
    with pytest.raises(ValueError, match="power must be"):
        WithCountBonus(power=0.0)
    with pytest.raises(ValueError, match="put the bonus inside"):
        WithCountBonus(WithOptimizer(A2C(), ResidualOPEN()))
    with pytest.raises(ValueError, match="needs observations that are an index"):
        WithCountBonus().heads(EnvSpec(Box((4,)), Discrete(2)))
