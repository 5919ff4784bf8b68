"""Mirror learning by a schedule: what it wraps where the net says nothing, and the effect of every coefficient."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from metadisco.agents.optimizers import Adam
from metadisco.core.types import Progress
from metadisco.evaluation import environments
from metadisco.lives.learner import Learner
from metadisco.objectives.drift import DPODrift, LPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.objectives.scheduled_mirror_learning import INPUTS, OUTPUTS, ScheduledMirrorLearning, inputs, observe
from metadisco.presets.registry import preset
from tests.support import probes, small
from tests.support.rollouts import experience, random_net

PROGRESS = Progress(jnp.int32(3), jnp.int32(20))
BASE = PPO(gamma=0.9, value_weight=0.7, entropy_weight=0.02)
OBJECTIVE = ScheduledMirrorLearning(BASE, width=5)


begin = jax.jit(lambda agent_params: OBJECTIVE.init_state(jax.random.key(0), None, agent_params, 3))
targets_of = jax.jit(OBJECTIVE.targets)


def rollout(scale=1.0):
    """A rollout by a policy that is not the present one, so that ratios are not 1."""
    trajectory, predictions = experience(scale=scale)
    log_prob = jnp.log(jnp.asarray(np.random.default_rng(2).uniform(0.1, 0.6, trajectory.reward.shape), jnp.float32))
    return replace(trajectory, log_prob=log_prob), predictions


def told(objective, meta_params, scale=1.0):
    """Targets, loss and slopes of one update."""
    return _told(objective, meta_params, *rollout(scale))


@partial(jax.jit, static_argnums=0)
def _told(objective, meta_params, trajectory, predictions):
    state = objective.init_state(jax.random.key(0), None, predictions.agent_params, 3)
    targets, _ = objective.targets(meta_params, state, predictions, trajectory, PROGRESS)

    def loss(outputs):
        return objective.loss(meta_params, targets, outputs, trajectory, PROGRESS)[0]

    return targets, jax.value_and_grad(loss)(predictions.now)


@pytest.mark.parametrize("base", [BASE, MirrorLearning(DPODrift()), MirrorLearning(LPODrift(width=4))], ids=repr)
def test_a_net_that_says_nothing_is_what_it_wraps(base):
    objective = ScheduledMirrorLearning(base)
    meta_params = jax.jit(objective.init)(jax.random.key(0))
    targets, ours = told(objective, meta_params)
    estimated, theirs = told(base, meta_params["drift"])
    small.assert_trees_close(targets.estimated, estimated, rtol=1e-4, atol=1e-5)
    small.assert_trees_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert objective.step_factors(targets) == {"policy": 1.0, "prediction": 1.0}


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_sets_its_own_coefficient(output):
    meta_params = jax.device_get(jax.jit(OBJECTIVE.init)(jax.random.key(0)))
    net = meta_params["schedule"]
    bias = np.where(np.arange(len(OUTPUTS)) == OUTPUTS.index(output), np.float32(0.5), net["out_bias"])
    changed = meta_params | {"schedule": net | {"out_bias": bias}}
    (before, loss), (after, other) = told(OBJECTIVE, meta_params), told(OBJECTIVE, changed)
    moved = {
        name
        for name in OUTPUTS
        if np.asarray(getattr(before.coefficients, name))[0, 0] != np.asarray(getattr(after.coefficients, name))[0, 0]
    }
    assert moved == {output}
    if not output.endswith("_step"):  # steps are the learner's
        assert abs(float(loss[0]) - float(other[0])) > 1e-5


def test_coefficients_are_the_equations():
    net = random_net(OBJECTIVE)
    inputs = np.linspace(-1.0, 1.0, 6, dtype=np.float32)
    said = jax.jit(OBJECTIVE.coefficients)(net, inputs)
    weights = jax.tree.map(np.asarray, net["schedule"])
    o = np.tanh(inputs @ weights["hidden"] + weights["hidden_bias"]) @ weights["out"] + weights["out_bias"]
    o = dict(zip(OUTPUTS, o, strict=True))

    def factor(name, largest):
        return largest ** np.tanh(2 * o[name] / np.log(largest))

    odds = {name: usual / (1 - usual) * factor(name, 4) for name, usual in (("gamma", 0.9), ("gae_lambda", 0.95))}
    wanted = {
        "policy_step": factor("policy_step", 10),
        "prediction_step": factor("prediction_step", 10),
        "entropy_weight": 0.02 * factor("entropy_weight", 10),
        "value_weight": 0.7 * factor("value_weight", 10),
        "drift_weight": factor("drift_weight", 10),
        **{name: each / (1 + each) for name, each in odds.items()},
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(said, name), value, rtol=1e-4, err_msg=name)


def rewarded(scale=1.0, offset=0.0, seeds=(0, 1, 2)):
    """What a random net says after some rollouts, whose rewards and values are on another scale."""
    net, state = random_net(OBJECTIVE), None
    for seed in seeds:
        trajectory, predictions = experience(seed)
        trajectory = replace(
            trajectory,
            reward=np.float32(scale) * (np.asarray(trajectory.reward) + np.float32(offset)),
            terminated=np.zeros(trajectory.terminated.shape, bool),  # where a value ends, a constant reward matters
        )
        values = [
            each | {"value": np.float32(scale) * (np.asarray(each["value"]) + np.float32(offset / (1 - BASE.gamma)))}
            for each in (predictions.now, predictions.next)
        ]
        predictions = replace(predictions, now=values[0], next=values[1])
        state = state or begin(predictions.agent_params)
        targets, state = targets_of(net, state, predictions, trajectory, PROGRESS)
    return targets.coefficients


@pytest.mark.parametrize(
    "changed", [{"scale": 2.0**7}, {"scale": 2.0**-9}, {"offset": -1.0}, {"offset": 4.0}], ids=repr
)
def test_coefficients_do_not_depend_on_the_scale_and_the_offset_of_rewards_and_values(changed):
    small.assert_trees_close(rewarded(), rewarded(**changed), rtol=2e-3, atol=1e-4)


def test_inputs_are_the_equations():
    """Two rollouts in NumPy."""
    state, (first, _), (second, predictions) = None, experience(0), experience(1)
    state = begin(experience(0)[1].agent_params)

    @jax.jit
    def after_both(state):
        state = observe(observe(state, first.reward), second.reward)
        return state, inputs(state, predictions, second, PROGRESS, gamma=0.9)

    state, found = jax.device_get(after_both(state))
    found = dict(zip(INPUTS, found, strict=True))

    means = [float(np.mean(each.reward)) for each in (first, second)]
    fast, slow = (means[0] + rate * (means[1] - means[0]) for rate in (0.5, 0.125))
    spread = 0.125 * abs(means[1] - means[0])
    before, now = (
        special.log_softmax(np.asarray(each["logits"]), axis=-1) for each in (state.agent_params, predictions.now)
    )
    change = np.mean(np.sum(np.exp(now) * (now - before), -1))
    value, after = (np.asarray(each["value"][..., 0]) for each in (predictions.now, predictions.next))
    error = np.asarray(second.reward) + 0.9 * np.where(second.terminated, 0.0, after) - value
    wanted = {
        "fraction_of_lifetime": 2 * 3 / 20 - 1,
        "log_lifetime": np.log(20) - 3.7,
        "entropy": 2 * np.mean(-np.sum(np.exp(now) * now, -1)) / np.log(4) - 1,
        "policy_change": np.log(1e-5 + change) / 3 + 2,
        "value_error": 0.25 * np.log(np.var(error) / (np.var(value) + np.var(second.reward))),
        "reward_trend": np.tanh((fast - slow) / spread),
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_it_compares_with_the_policy_before_the_last_update():
    state = begin(experience(0)[1].agent_params)
    trajectory, predictions = experience(1)
    _, state = targets_of(random_net(OBJECTIVE), state, predictions, trajectory, PROGRESS)
    small.assert_trees_close(state.agent_params, predictions.agent_params)
    with pytest.raises(ValueError, match=r"Predictions\.agent"):
        OBJECTIVE.targets(random_net(OBJECTIVE), state, replace(predictions, agent=None), trajectory, PROGRESS)


def test_rewards_of_nothing_are_no_accident():
    state = begin(experience(0)[1].agent_params)
    trajectory, predictions = experience(0)
    silent = [jax.tree.map(np.zeros_like, each) for each in (predictions.now, predictions.next)]
    predictions = replace(predictions, now=silent[0], next=silent[1], agent_params=silent[0])
    trajectory = replace(trajectory, reward=np.zeros_like(trajectory.reward))
    for _ in range(2):
        targets, state = targets_of(random_net(OBJECTIVE), state, predictions, trajectory, PROGRESS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(targets.coefficients))


def test_it_begins_at_what_suits_the_environment():
    pendulum = environments.environment("Pendulum-v1").inner
    objective = environments.with_objective(OBJECTIVE, pendulum).objective
    assert objective == replace(OBJECTIVE, base=pendulum.objective)


def test_domains_of_other_settings_learn_one_schedule():
    trainer = preset("scheduled-ppo-quick").trainer
    bases = {domain.inner.objective.base for domain in trainer.domains}
    assert len(bases) > 1
    first, *rest = trainer.domains
    other = replace(first.inner, objective=replace(first.inner.objective, width=3))
    with pytest.raises(ValueError, match="must learn the same"):
        replace(trainer, domains=(replace(first, inner=other), *rest))


def test_it_learns_from_the_start_in_minibatches():
    learner = Learner(Adam(0.1), Adam(0.1), num_epochs=2, num_minibatches=2)
    inner = probes.inner_loop(probes.RewardByAction(), ScheduledMirrorLearning(), learner)
    life, _ = probes.learn(inner, meta_params=inner.objective.init(jax.random.key(0)))
    assert jnp.all(jax.nn.softmax(probes.outputs(inner, life)["logits"])[:, 1] > 0.9)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"base.gamma must be in \(0, 1\)"):
        ScheduledMirrorLearning(PPO(gamma=1.0))
    with pytest.raises(ValueError, match="width"):
        ScheduledMirrorLearning(width=0)
