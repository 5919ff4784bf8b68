"""A2C that explores by a schedule: what it is made of, on any scale of rewards, and that everything in it matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.optimizers import RMSProp
from metadisco.core.types import Progress
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.lives.learner import Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.count_bonus import WithCountBonus
from metadisco.objectives.exploring_a2c import OUTPUTS, ExploringA2C
from metadisco.objectives.scheduled_a2c import ALL_INPUTS, ScheduledA2C
from metadisco.reports.inspection import text
from tests.support import probes, small
from tests.support.reference import scheduled_a2c as reference
from tests.support.rollouts import random_net, tabular, visiting

OBJECTIVE = ExploringA2C(ScheduledA2C(width=5, entropy_weight=0.01, inputs=ALL_INPUTS), width=3, bonus=0.3, power=0.5)
INPUTS = OBJECTIVE.features
PROGRESS = Progress(jnp.int32(3), jnp.int32(20))
AGENT = tabular(num_obs=5)


def first_state(objective=OBJECTIVE):
    return objective.init_state(jax.random.key(0), AGENT, (), 3)


def test_nets_that_say_nothing_are_a2c_with_a_bonus_by_hand():
    a2c = A2C(OBJECTIVE.a2c.gamma, OBJECTIVE.a2c.gae_lambda, entropy_weight=OBJECTIVE.a2c.entropy_weight)
    by_hand = WithCountBonus(a2c, OBJECTIVE.bonus, OBJECTIVE.power)
    ours, theirs = first_state(), first_state(by_hand)
    for seed in (0, 1):
        trajectory, predictions = visiting(5, seed)
        meta_params = OBJECTIVE.init(jax.random.key(0))
        found, ours = OBJECTIVE.targets(meta_params, ours, predictions, trajectory, PROGRESS)
        wanted, theirs = by_hand.targets((), theirs, predictions, trajectory, PROGRESS)
        np.testing.assert_allclose(found.advantage, wanted.advantage, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.value, wanted.value, rtol=1e-4, atol=1e-5)


def test_bonus_and_power_equal_the_numpy_reference():
    net, (trajectory, predictions) = random_net(OBJECTIVE), visiting(5)
    met = np.bincount(np.asarray(trajectory.obs).ravel(), minlength=5)[np.asarray(trajectory.obs)]
    reward = np.asarray(trajectory.reward)
    history = {"largest": np.abs(reward).max(), "fast": reward.mean(), "slow": reward.mean(), "best": reward.mean()}
    history["finished"] = np.asarray(trajectory.finished)
    rollout = {name: np.asarray(getattr(trajectory, name)) for name in ("reward", "terminated", "truncated")}
    rollout |= {"logits": np.asarray(predictions.now["logits"])}
    rollout |= {"value": np.asarray(predictions.now["value"])[..., 0]}
    rollout |= {"next_value": np.asarray(predictions.next["value"])[..., 0]}
    told = reference.inputs(history, rollout, 3, 20, OBJECTIVE.a2c.gamma)
    told = np.array([*(told[name] for name in ALL_INPUTS), 2 * np.mean(met**-0.5) - 1])
    weights = jax.tree.map(np.asarray, net["bonus"])
    hidden = np.tanh(told @ weights["hidden"] + weights["hidden_bias"])
    said = hidden @ weights["out"] + weights["out_bias"]
    bonus, power = 0.3 * np.exp(np.clip(2 * said[0], -5, 5)), 0.5 * np.exp(np.clip(2 * said[1], -5, 5))
    a2c = reference.coefficients(
        jax.tree.map(np.asarray, net["a2c"]), dict(zip(ALL_INPUTS, told, strict=False)), OBJECTIVE.a2c
    )
    by_hand = WithCountBonus(A2C(gamma=float(a2c[4]), gae_lambda=float(a2c[3])), float(bonus), float(power))
    wanted, _ = by_hand.targets((), first_state(by_hand), predictions, trajectory, PROGRESS)
    found, state = OBJECTIVE.targets(net, first_state(), predictions, trajectory, PROGRESS)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-4, atol=1e-4)
    _, metrics = OBJECTIVE.loss(net, found, predictions.now, trajectory, PROGRESS)
    np.testing.assert_allclose([metrics[name] for name in OUTPUTS], [bonus, power], rtol=1e-5)
    np.testing.assert_array_equal(state.visits, np.bincount(np.asarray(trajectory.obs).ravel(), minlength=5))


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_rewards_of_any_scale_give_the_same_targets(scale):
    net = random_net(OBJECTIVE)
    plain, other = (
        OBJECTIVE.targets(net, first_state(), predictions, trajectory, PROGRESS)[0]
        for trajectory, predictions in (visiting(5), visiting(5, scale=scale))
    )
    small.assert_trees_close(plain, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_changes_what_is_learned(output):
    meta_params, (trajectory, predictions) = OBJECTIVE.init(jax.random.key(0)), visiting(5)
    bias = meta_params["bonus"]["out_bias"].at[OUTPUTS.index(output)].set(0.5)
    changed = meta_params | {"bonus": meta_params["bonus"] | {"out_bias": bias}}
    found = [
        OBJECTIVE.targets(each, first_state(), predictions, trajectory, PROGRESS)[0].advantage
        for each in (meta_params, changed)
    ]
    assert np.max(np.abs(np.subtract(*found))) > 1e-4


@pytest.mark.parametrize("column", range(len(INPUTS)), ids=INPUTS)
def test_every_input_reaches_bonus_and_power(column):
    net, inputs = random_net(OBJECTIVE), jnp.zeros(len(INPUTS))
    before, after = (OBJECTIVE.bonus_of(net, each) for each in (inputs, inputs.at[column].set(1.0)))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_it_explores_from_the_start():
    inner = probes.inner_loop(probes.LongWalk(), OBJECTIVE, Learner(RMSProp(0.1), RMSProp(0.1)), num_steps=8)
    life, _ = probes.learn(inner, 300, OBJECTIVE.init(jax.random.key(0)))
    assert jnp.mean(jax.nn.softmax(probes.outputs(inner, life, range(15))["logits"])[:, 1]) > 0.9


def test_every_input_is_said_in_words():
    assert set(INPUTS) <= set(text.WORDS)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"ExploringA2C.width must be at least 1"):
        ExploringA2C(width=0)
    with pytest.raises(ValueError, match="bonus must be"):
        ExploringA2C(bonus=0.0)
    with pytest.raises(ValueError, match="power must be"):
        ExploringA2C(power=0.0)
    with pytest.raises(ValueError, match="needs observations that are an index"):
        ExploringA2C().heads(EnvSpec(Box((4,)), Discrete(2)))
    with pytest.raises(ValueError, match="use A2C or"):
        ExploringA2C().heads(EnvSpec(Discrete(4), Box((2,), -1.0, 1.0)))
