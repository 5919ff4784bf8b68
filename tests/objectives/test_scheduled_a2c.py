"""A2C by a schedule: against a slow reference, as A2C where the net says nothing, and on any scale of rewards."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.optimizers import SGD
from metadisco.core.types import Progress
from metadisco.envs.base import Box, EnvSpec
from metadisco.lives.learner import Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.scheduled_a2c import ALL_INPUTS, INPUTS, OUTPUTS, ScheduledA2C, observe
from tests.support import probes, small
from tests.support.reference import scheduled_a2c as reference
from tests.support.rollouts import NUM_STEPS as T
from tests.support.rollouts import NUM_WORKERS as B
from tests.support.rollouts import experience, random_net

OBJECTIVE = ScheduledA2C(width=5, entropy_weight=0.01, loss_scale=3.0, inputs=ALL_INPUTS)
PROGRESS = Progress(jnp.int32(3), jnp.int32(20))


first_state = jax.jit(lambda: OBJECTIVE.init_state(jax.random.key(0), None, (), B))
targets_of, loss_of, coefficients_of = map(jax.jit, (OBJECTIVE.targets, OBJECTIVE.loss, OBJECTIVE.coefficients))
observed = jax.jit(observe)


def test_targets_equal_the_numpy_reference_over_two_updates():
    net, state, history = random_net(OBJECTIVE), first_state(), None
    for n, seed in ((0, 0), (1, 5)):
        trajectory, predictions = experience(seed)
        found, state = targets_of(net, state, predictions, trajectory, Progress(jnp.int32(n), jnp.int32(20)))
        reward = np.asarray(trajectory.reward)
        mean, largest = reward.mean(), np.abs(reward).max()
        finished = np.asarray(trajectory.finished)
        if history is None:
            history = {"largest": largest, "fast": mean, "slow": mean, "best": mean, "finished": finished}
        else:
            history = {
                "largest": max(history["largest"], largest),
                "fast": history["fast"] + (mean - history["fast"]) / 2,
                "slow": history["slow"] + (mean - history["slow"]) / 8,
                "best": max(history["best"], mean),
                "finished": np.concatenate([history["finished"], finished]),
            }
        rollout = {
            "reward": reward,
            "terminated": np.asarray(trajectory.terminated),
            "truncated": np.asarray(trajectory.truncated),
            "logits": np.asarray(predictions.now["logits"]),
            "value": np.asarray(predictions.now["value"])[..., 0],
            "next_value": np.asarray(predictions.next["value"])[..., 0],
        }
        as_numpy = jax.tree.map(np.asarray, net)
        wanted = reference.targets(as_numpy, history, rollout, n, 20, OBJECTIVE)
        np.testing.assert_allclose(found.advantage, wanted[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.value, wanted[1], rtol=1e-4, atol=1e-5)
        for name, value in zip(OUTPUTS, wanted[2], strict=True):
            there = getattr(found.coefficients, name)
            np.testing.assert_allclose(there, np.full((T, B), value), rtol=1e-4, atol=1e-6, err_msg=name)
        steps = OBJECTIVE.step_factors(found)
        np.testing.assert_allclose([steps["policy"], steps["prediction"]], wanted[2][:2], rtol=1e-4)
    assert state.num_updates == 2


def test_a_net_sees_what_it_is_given_in_the_order_given():
    few = replace(OBJECTIVE, inputs=("longest_episode", "entropy"))
    trajectory, predictions = experience()

    @jax.jit
    def see():
        state = observe(first_state(), trajectory)
        return [objective.see(state, predictions, trajectory, PROGRESS) for objective in (OBJECTIVE, few)]

    everything, seen = see()
    all_of_them = dict(zip(ALL_INPUTS, np.asarray(everything), strict=True))
    np.testing.assert_array_equal(seen, [all_of_them["longest_episode"], all_of_them["entropy"]])
    assert jax.eval_shape(few.init, jax.random.key(0))["hidden"].shape == (2, 5)
    assert ScheduledA2C().features == INPUTS


def test_a_net_that_says_nothing_is_a2c_on_rewards_whose_largest_is_1():
    objective = replace(OBJECTIVE, loss_scale=1.0)
    meta_params, (trajectory, predictions) = jax.jit(objective.init)(jax.random.key(0)), experience()
    reward = np.asarray(trajectory.reward)
    trajectory = replace(trajectory, reward=reward / np.max(np.abs(reward)))
    a2c = A2C(objective.gamma, objective.gae_lambda, entropy_weight=objective.entropy_weight)
    theirs, _ = jax.jit(a2c.targets)((), (), predictions, trajectory, PROGRESS)
    ours, _ = jax.jit(objective.targets)(meta_params, first_state(), predictions, trajectory, PROGRESS)
    assert objective.step_factors(ours) == {"policy": 1.0, "prediction": 1.0}
    np.testing.assert_allclose(ours.advantage, theirs.advantage, rtol=1e-4, atol=1e-5)

    @partial(jax.jit, static_argnums=0)
    def slopes(rule, params, told):
        def loss(outputs):
            return rule.loss(params, told, outputs, trajectory, PROGRESS)[0]

        return jax.value_and_grad(loss)(predictions.now)

    losses = slopes(objective, meta_params, ours), slopes(a2c, (), theirs)
    small.assert_trees_close(*losses, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_rewards_of_any_scale_give_the_same_targets(scale):
    net, (trajectory, predictions) = random_net(OBJECTIVE), experience()
    scaled, _ = experience(scale=scale)
    plain, _ = targets_of(net, first_state(), predictions, trajectory, PROGRESS)
    other, _ = targets_of(net, first_state(), predictions, scaled, PROGRESS)
    small.assert_trees_close(plain, other, rtol=1e-4, atol=1e-5)


def test_rewards_of_zero_are_left_as_they_are():
    trajectory, predictions = experience(scale=0.0)
    found, state = targets_of(random_net(OBJECTIVE), first_state(), predictions, trajectory, PROGRESS)
    assert state.largest == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_the_largest_reward_is_remembered_over_updates():
    trajectory, _ = experience()
    state = first_state()
    for reward in (-4.0, 0.5):
        state = observed(state, replace(trajectory, reward=np.full((T, B), reward, np.float32)))
    assert (state.largest, state.best, state.num_updates) == (4.0, 0.5, 2)
    assert (state.fast, state.slow) == (-4.0 + 0.5 * 4.5, -4.0 + 0.125 * 4.5)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_changes_what_is_learned(output):
    meta_params, (trajectory, predictions) = jax.jit(OBJECTIVE.init)(jax.random.key(0)), experience()
    is_changed = np.arange(len(OUTPUTS)) == OUTPUTS.index(output)
    changed = meta_params | {"out_bias": np.where(is_changed, np.float32(0.5), meta_params["out_bias"])}
    found = []
    for each in (meta_params, changed):
        targets, _ = targets_of(each, first_state(), predictions, trajectory, PROGRESS)
        loss, _ = loss_of(each, targets, predictions.now, trajectory, PROGRESS)
        found.append([float(loss), *map(float, OBJECTIVE.step_factors(targets).values())])
    assert np.max(np.abs(np.subtract(*found))) > 1e-5


@pytest.mark.parametrize("column", range(len(ALL_INPUTS)), ids=ALL_INPUTS)
def test_every_input_reaches_the_coefficients(column):
    net, inputs = random_net(OBJECTIVE), np.zeros(len(ALL_INPUTS), np.float32)
    changed = np.eye(len(ALL_INPUTS), dtype=np.float32)[column]
    before, after = (coefficients_of(net, each) for each in (inputs, changed))
    assert before.policy_step != after.policy_step
    assert before.gamma != after.gamma


def test_it_learns_from_the_start():
    inner = probes.inner_loop(probes.RewardByAction(), ScheduledA2C(), Learner(SGD(5.0), SGD(1.0)))
    life, _ = probes.learn(inner, meta_params=inner.objective.init(jax.random.key(0)))
    assert jnp.all(jax.nn.softmax(probes.outputs(inner, life)["logits"])[:, 1] > 0.9)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="width must be at least 1"):
        ScheduledA2C(width=0)
    with pytest.raises(ValueError, match=r"gamma must be in \(0, 1\)"):
        ScheduledA2C(gamma=1.0)
    with pytest.raises(ValueError, match="entropy_weight must not be negative"):
        ScheduledA2C(entropy_weight=-0.1)
    with pytest.raises(ValueError, match="loss_scale must be"):
        ScheduledA2C(loss_scale=0.0)
    with pytest.raises(ValueError, match="inputs must be different names among fraction_of_lifetime"):
        ScheduledA2C(inputs=("entropy", "entropy"))
    with pytest.raises(ValueError, match="inputs must be different names"):
        ScheduledA2C(inputs=("temperature",))
    with pytest.raises(ValueError, match="use A2C or"):
        ScheduledA2C().heads(EnvSpec(Box((4,)), Box((2,), -1.0, 1.0)))
