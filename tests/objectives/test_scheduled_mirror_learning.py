"""Mirror learning by a schedule: what it wraps where the net says nothing, and the effect of every coefficient."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.optimizers import Adam
from metadisco.core.types import Progress
from metadisco.evaluation import environments
from metadisco.lives.learner import Learner
from metadisco.objectives.drift import DPODrift, LPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.objectives.scheduled_mirror_learning import OUTPUTS, ScheduledMirrorLearning
from metadisco.presets.registry import preset
from tests.support import probes, small
from tests.support.rollouts import experience, random_net

PROGRESS = Progress(jnp.int32(3), jnp.int32(20))
BASE = PPO(gamma=0.9, value_weight=0.7, entropy_weight=0.02)
OBJECTIVE = ScheduledMirrorLearning(BASE, width=5)


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
    state = objective.init_state(jax.random.key(0), None, (), 3)
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
    meta_params = OBJECTIVE.init(jax.random.key(0))
    net = meta_params["schedule"]
    changed = meta_params | {
        "schedule": net | {"out_bias": net["out_bias"].at[OUTPUTS.index(output)].set(0.5)},
    }
    (before, loss), (after, other) = told(OBJECTIVE, meta_params), told(OBJECTIVE, changed)
    moved = {
        name for name in OUTPUTS if getattr(before.coefficients, name)[0, 0] != getattr(after.coefficients, name)[0, 0]
    }
    assert moved == {output}
    if not output.endswith("_step"):  # steps are the learner's
        assert abs(float(loss[0] - other[0])) > 1e-5


def test_coefficients_are_the_equations():
    net = jax.tree.map(lambda leaf: leaf / 2.0, random_net(OBJECTIVE))  # within the limits of factors
    inputs = jnp.linspace(-1.0, 1.0, 9)
    said = OBJECTIVE.coefficients(net, inputs)
    weights = jax.tree.map(np.asarray, net["schedule"])
    o = np.tanh(np.asarray(inputs) @ weights["hidden"] + weights["hidden_bias"]) @ weights["out"] + weights["out_bias"]
    o = dict(zip(OUTPUTS, o, strict=True))
    odds = {name: usual / (1 - usual) * np.exp(2 * o[name]) for name, usual in (("gamma", 0.9), ("gae_lambda", 0.95))}
    wanted = {
        "policy_step": np.exp(2 * o["policy_step"]),
        "prediction_step": np.exp(2 * o["prediction_step"]),
        "entropy_weight": 0.02 + o["entropy_weight"] / 50,
        "value_weight": 0.7 * np.exp(2 * o["value_weight"]),
        "drift_weight": np.exp(2 * o["drift_weight"]),
        **{name: each / (1 + each) for name, each in odds.items()},
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(said, name), value, rtol=1e-4, err_msg=name)


def test_coefficients_do_not_depend_on_the_scale_of_rewards_and_values():
    net, found = random_net(OBJECTIVE), []
    for scale in (1.0, 2.0**7):
        trajectory, predictions = rollout(scale)
        values = [each | {"value": scale * each["value"]} for each in (predictions.now, predictions.next)]
        predictions = replace(predictions, now=values[0], next=values[1])
        state = OBJECTIVE.init_state(jax.random.key(0), None, (), 3)
        found.append(OBJECTIVE.targets(net, state, predictions, trajectory, PROGRESS)[0].coefficients)
    small.assert_trees_close(*found, rtol=1e-5, atol=1e-6)


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
