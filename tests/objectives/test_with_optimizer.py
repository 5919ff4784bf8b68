"""An objective beside a learned optimizer: what the learner does with it, what is kept of it, and what is refused."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metadisco
from metadisco.agents.learned_optimizer import OPEN, ResidualOPEN
from metadisco.agents.networks import MLP, Separate, Table, Tanh
from metadisco.agents.optimizers import SGD, Adam
from metadisco.checkpoints.checkpoint import Discovered, load, save
from metadisco.evaluation.environments import environment, with_objective
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.drift import LPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.with_optimizer import WithOptimizer
from metadisco.presets import registry
from tests.support import small, two_states

NET = ResidualOPEN(width=2, hidden=3)
MINIBATCHES = Learner(Adam(0.05, anneal=True), SGD(2.0), num_epochs=2, num_minibatches=2)


@partial(jax.jit, static_argnums=0)
def _lived(inner, meta_params, key):
    life = inner.begin(key, two_states.task())
    return jax.lax.fori_loop(0, 3, lambda _, life: inner.update(meta_params, life)[0], life)


@pytest.mark.parametrize("objective", [PPO(), small.OBJECTIVE], ids=lambda each: type(each).__name__)
def test_at_outputs_of_zero_a_life_is_that_of_the_learners_own_adam_and_sgd_bit_for_bit(objective):
    rule = WithOptimizer(objective, NET)
    meta_params = rule.init(jax.random.key(1))
    without, beside = (
        _lived(two_states.inner_loop(each, MINIBATCHES, critic=None), given, jax.random.key(0))
        for each, given in ((objective, meta_params["objective"]), (rule, meta_params))
    )
    jax.tree.map(np.testing.assert_array_equal, without.agent_params, beside.agent_params)
    for group in ("policy", "prediction"):
        jax.tree.map(np.testing.assert_array_equal, without.opt_state[group], beside.opt_state[group])


def _moved(meta_params, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), meta_params)


def test_away_from_zero_agents_learn_something_else_and_a_life_is_reproduced_by_its_key():
    rule = WithOptimizer(PPO(), NET)
    inner = two_states.inner_loop(rule, MINIBATCHES, critic=None)
    begun = rule.init(jax.random.key(1))
    usual, one, again = (
        _lived(inner, each, jax.random.key(0)).agent_params for each in (begun, _moved(begun), _moved(begun))
    )
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert all(np.any(usual[name] != one[name]) for name in usual)


def test_both_are_meta_trained_together_by_evolution():
    rule = WithOptimizer(small.OBJECTIVE, NET)
    trainer = small.altered(small.trainer(), **{"inner.objective": rule})
    state = small.begun(trainer)
    after, metrics = jax.jit(trainer.step)(jax.random.key(1), state)
    before, after = trainer.meta_params(state), trainer.meta_params(after)
    assert sorted(after) == ["objective", "optimizer"]
    for part in after:
        assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(before[part]), jax.tree.leaves(after[part])))
    assert np.isfinite(metrics["fitness"])


def test_a_checkpoint_keeps_both(tmp_path):
    rule = WithOptimizer(MirrorLearning(LPODrift(width=2)), OPEN(2, 3))
    meta_params = _moved(rule.init(jax.random.key(0)))
    loaded = load(save(Discovered(rule, meta_params), tmp_path / "both"))
    assert loaded.objective == rule
    jax.tree.map(np.testing.assert_array_equal, loaded.meta_params, meta_params)


def test_one_optimizer_moves_networks_of_other_widths_in_a_held_out_environment():
    rule = WithOptimizer(MirrorLearning(), NET)
    usual = environment("Acrobot-v1")
    meta_params = _moved(rule.init(jax.random.key(0)), scale=0.3)
    moved = []
    for width in (3, 5):
        torso = Separate(MLP((width,), Tanh()), MLP((width,), Tanh()))
        inner = replace(
            with_objective(rule, usual.inner),
            torso=torso, num_workers=2, num_steps=4, learner=replace(MINIBATCHES, num_epochs=1),
        )  # fmt: skip
        assert inner.objective == WithOptimizer(usual.inner.objective, NET)  # with the environment's own settings

        @jax.jit
        def updated(meta_params, key, inner=inner):
            life = inner.begin(key, metadisco.Task(usual.levels.sample(key), jnp.int32(4)))
            return life.agent_params, inner.update(meta_params, life)[0].agent_params

        before, after = updated(meta_params, jax.random.key(0))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(after))
        assert np.any(before["torso"][0]["kernel"] != after["torso"][0]["kernel"])
        moved.append(after["torso"][0]["kernel"].shape[1])
    assert moved == [3, 5]


def test_with_an_optimizer_from_scratch_an_agent_learns():
    rule = WithOptimizer(A2C(entropy_weight=0.0), OPEN(2, 3, step=1.0, exponent=0.1, noise=1e-6))
    meta_params = jax.tree.map(jnp.zeros_like, rule.init(jax.random.key(0)))
    net = meta_params["optimizer"]  # which is made to follow the sign of the gradient: hidden 0, a tanh of it, m
    sign = rule.optimizer.features.index("sign_of_gradient")
    net["gru"]["input"] = net["gru"]["input"].at[sign, 4].set(3.0)
    net["gru"]["input_bias"] = net["gru"]["input_bias"].at[2:4].set(-9.0)  # forgets at once
    net["first"]["kernel"] = net["first"]["kernel"].at[0].set(jnp.array([2.0, -1.0, -1.0]))
    net["second"]["kernel"] = jnp.array([[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, 2.0, -1.0]])
    for name in ("first", "second"):
        net[name]["scale"] = jnp.ones(3)
    net["out"] = net["out"].at[0, 0].set(0.2).at[1, 0].set(-0.2)
    inner = two_states.inner_loop(rule, critic=None)
    life = jax.jit(
        lambda key: jax.lax.fori_loop(
            0, 20, lambda _, life: inner.update(meta_params, life)[0], inner.begin(key, two_states.task())
        )
    )(jax.random.key(0))
    probs = jax.nn.softmax(life.agent_params["logits"])
    assert np.all(probs[:, 1] > 0.9)  # the second state pays five times the first


def test_factors_of_a_schedule_apply_to_what_the_optimizer_decides():
    schedule = ScheduledA2C(width=2)
    rule = WithOptimizer(schedule, NET)
    targets = two_states.inner_loop(schedule, critic=None)
    assert rule.heads(targets.env.spec) == schedule.heads(targets.env.spec)
    meta_params = rule.init(jax.random.key(0))
    frozen = jax.tree.map(lambda leaf: leaf, meta_params)
    frozen["objective"]["out_bias"] = frozen["objective"]["out_bias"].at[:2].set(-100.0)
    inner = two_states.inner_loop(rule, critic=None)
    moved, still = (_lived(inner, each, jax.random.key(0)).agent_params for each in (_away(meta_params), _away(frozen)))
    for name in moved:  # by e^-5
        assert np.max(np.abs(still[name])) < 0.05 * np.max(np.abs(moved[name]))


def _away(meta_params):
    return meta_params | {"optimizer": _moved(meta_params["optimizer"], scale=0.3)}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WithOptimizer(Disco103(), NET), "Disco103 does not take a learned optimizer.*use A2C"),
        (lambda: WithOptimizer(WithOptimizer(), NET), "has a learned optimizer already"),
        (lambda: WithOptimizer(PPO(), Adam()), "must be a learned optimizer such as OPEN.*has no features.*Learner"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@dataclass(frozen=True)
class Forgetful:
    """An optimizer whose state is of another type after a step, or which returns no update for the value."""

    keeps_state: bool
    features = ("gradient",)

    def init(self, key):
        return {"rate": jnp.zeros(())}

    def init_state(self, agent_params):
        return jnp.zeros(3)

    def update(self, key, meta_params, state, agent_params, step):
        if self.keeps_state:
            return {"logits": step.gradients["logits"]}, state
        return step.gradients, state[:2]


@pytest.mark.parametrize(
    ("keeps_state", "words"), [(True, "must return what is added"), (False, "before and .* after a step")]
)
def test_an_optimizer_of_ones_own_is_checked_when_an_inner_loop_is_made(keeps_state, words):
    with pytest.raises(ValueError, match=words):
        InnerLoop(two_states.TwoStates(), Table(), WithOptimizer(A2C(), Forgetful(keeps_state)))


@pytest.mark.parametrize("name", ["open-quick", "open-grid"])
def test_a_preset_begins_at_the_tuned_optimizer(name):
    for domain in registry.preset(name).trainer.domains:
        assert isinstance(domain.inner.objective, WithOptimizer)
        assert domain.inner.objective.optimizer.residual
