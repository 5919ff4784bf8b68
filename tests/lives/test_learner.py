"""Clipping, annealing, and updates of one gradient step or of several on minibatches."""

import functools
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from metadisco.agents.optimizers import SGD, Adam, RMSProp, clip_by_global_norm
from metadisco.core.types import Progress
from metadisco.lives.critic import Critic
from metadisco.lives.learner import Learner, permutation, shuffle
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import Predictions
from metadisco.objectives.drift import PPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from tests.support import probes, small, two_states

KEY = jax.random.key(5)
PLAIN = Learner(SGD(2.0, 100.0), SGD(1.0, 100.0))


_clipped, _clipped_by_optax = (
    jax.jit(lambda tree, clip=clip: clip(0.5).update(tree, optax.EmptyState())[0])
    for clip in (clip_by_global_norm, optax.clip_by_global_norm)
)


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 100.0])
def test_clipping_is_that_of_optax(scale):
    tree = {"a": np.float32(scale) * np.array([0.3, -0.4], np.float32), "b": np.full((2, 2), scale, np.float32)}
    ours, theirs = (clipped(tree) for clipped in (_clipped, _clipped_by_optax))
    for name in tree:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_the_derivative_at_a_zero_gradient_is_that_of_the_identity():
    jacobian = jax.jit(jax.jacobian(_clipped))(jnp.zeros(2))
    np.testing.assert_array_equal(jacobian, np.eye(2))


@functools.cache
def _update_batch(objective, learner=PLAIN):
    """An inner loop, a life that is some updates old, and the next rollout."""
    inner = two_states.inner_loop(objective, learner, critic=None)
    meta_params = jax.jit(objective.init)(jax.random.key(0))

    @jax.jit
    def live(meta_params):
        life = inner.begin(jax.random.key(0), two_states.task())
        life = jax.lax.fori_loop(0, 3, lambda _, life: inner.update(meta_params, life)[0], life)
        return life, inner.act(life)[0]

    return inner, *live(meta_params), meta_params


@partial(jax.jit, static_argnames=("inner", "learner"))
def _update(inner, life, trajectory, meta_params, learner, key=KEY):
    return learner.update(
        key,
        inner.agent,
        inner.objective,
        meta_params,
        life.agent_params,
        life.opt_state,
        life.objective_state,
        trajectory,
        life.progress,
    )


@pytest.mark.parametrize("objective", [small.OBJECTIVE, A2C(), PPO()])
@pytest.mark.parametrize("optimizers", [(SGD(), SGD(4.0)), (Adam(), RMSProp(0.1))])
def test_one_epoch_of_one_minibatch_is_one_gradient_step_bit_for_bit(objective, optimizers):
    learner = Learner(*optimizers)
    inner, life, trajectory, meta_params = _update_batch(objective, learner)

    def by_hand(life, trajectory, meta_params):
        agent, params = inner.agent, life.agent_params
        predictions = Predictions(agent.apply(params, trajectory.obs), agent.apply(params, trajectory.next_obs))
        targets, _ = objective.targets(meta_params, (), predictions, trajectory, life.progress)

        def loss(params):
            return objective.loss(meta_params, targets, agent.apply(params, trajectory.obs), trajectory, life.progress)

        gradients = jax.grad(loss, has_aux=True)(params)[0]
        moved = {}
        for group, optimizer in (("policy", learner.policy), ("prediction", learner.prediction)):
            some = {name: leaf for name, leaf in params.items() if (name == "logits") == (group == "policy")}
            slope = {name: gradients[name] for name in some}
            updates, _ = optimizer.transformation().update(slope, life.opt_state[group], some)
            moved |= optax.apply_updates(some, updates)
        return moved

    def by_learner(life, trajectory, meta_params, key):
        return _update(inner, life, trajectory, meta_params, learner, key)[0]

    expected = jax.jit(by_hand)(life, trajectory, meta_params)
    for key in (KEY, jax.random.key(6)):  # which does not matter
        params = jax.jit(by_learner)(life, trajectory, meta_params, key)
        for name in expected:
            np.testing.assert_array_equal(params[name], expected[name])


def test_every_sample_is_in_exactly_one_minibatch_and_keeps_its_company():
    step, worker = np.meshgrid(np.arange(4), np.arange(6), indexing="ij")
    tree = {"number": 6 * step + worker, "pair": np.stack([step, worker], axis=-1)}
    parts, other = (
        jax.device_get(jax.jit(shuffle, static_argnums=2)(key, jax.tree.map(jnp.asarray, tree), 3))
        for key in (KEY, jax.random.key(6))
    )
    assert parts["number"].shape == (3, 8, 1)
    assert parts["pair"].shape == (3, 8, 1, 2)
    assert sorted(parts["number"].ravel().tolist()) == list(range(24))
    np.testing.assert_array_equal(parts["number"], 6 * parts["pair"][..., 0] + parts["pair"][..., 1])
    assert np.any(parts["number"] != other["number"])


def test_epochs_of_whole_rollouts_are_gradient_steps_on_the_same_targets():
    inner, life, trajectory, _ = _update_batch(A2C())
    params, _, _, targets, _ = _update(inner, life, trajectory, (), replace(PLAIN, num_epochs=3))
    expected = life.agent_params

    @jax.jit
    @jax.grad
    def slope(params):
        return A2C().loss((), targets, inner.agent.apply(params, trajectory.obs), trajectory, None)[0]

    for _ in range(3):
        gradient = slope(expected)
        expected = {
            name: np.asarray(table) - np.float32(2.0 if name == "logits" else 1.0) * np.asarray(gradient[name])
            for name, table in expected.items()
        }
    small.assert_trees_close(params, expected, rtol=1e-5, atol=1e-6)
    once = _update(inner, life, trajectory, (), PLAIN)
    small.assert_trees_close(targets, once[3], rtol=0.0, atol=0.0)


def test_a_mean_over_minibatches_of_one_step_is_nearly_that_of_the_rollout():
    """Steps so small that their order does not matter: their sum is that of the mean gradient."""
    inner, life, trajectory, _ = _update_batch(A2C())
    tiny = Learner(SGD(1e-3, 100.0), SGD(1e-3, 100.0))
    whole, *_, metrics = _update(inner, life, trajectory, (), tiny)
    parts, *_, part_metrics = _update(inner, life, trajectory, (), replace(tiny, num_minibatches=4))
    for name, table in jax.device_get(life.agent_params).items():
        np.testing.assert_allclose(parts[name] - table, 4.0 * (whole[name] - table), rtol=0.05, atol=1e-6)
    np.testing.assert_allclose(part_metrics["loss"], metrics["loss"], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("objective", [pytest.param(small.OBJECTIVE, marks=pytest.mark.slow), PPO()])
def test_epochs_minibatches_and_the_key_matter_to_every_objective(objective):
    inner, life, trajectory, meta_params = _update_batch(objective)
    changes = ({}, {"num_epochs": 2}, {"num_minibatches": 2}, {"num_minibatches": 4})
    learners = [replace(PLAIN, **change) for change in changes]
    results = [_update(inner, life, trajectory, meta_params, learner) for learner in learners]
    results.append(_update(inner, life, trajectory, meta_params, learners[-1], jax.random.key(6)))
    for i, (params, *_, metrics) in enumerate(results):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((params, metrics)))
        assert all(np.any(np.asarray(params["logits"]) != other["logits"]) for other, *_ in results[:i])
    assert all(jax.tree.map(jnp.shape, metrics) == jax.tree.map(jnp.shape, results[0][-1]) for *_, metrics in results)


@dataclass(frozen=True, eq=False)
class Spy:
    """PPO's drift, and lists of all that it was asked about, in order."""

    ratios: list = field(default_factory=list)
    advantages: list = field(default_factory=list)
    features = ()

    def init(self, key):
        return ()

    def penalty(self, meta_params, log_ratio, advantage, fraction):
        jax.debug.callback(lambda ratio: self.ratios.append(np.asarray(ratio)), jnp.exp(log_ratio), ordered=True)
        jax.debug.callback(lambda advantage: self.advantages.append(np.asarray(advantage)), advantage, ordered=True)
        return PPODrift().penalty(meta_params, log_ratio, advantage, fraction)


def test_the_ratio_is_one_on_the_first_minibatch_of_an_update_only():
    inner, life, trajectory, _ = _update_batch(PPO())
    spy = Spy()
    _update(replace(inner, objective=MirrorLearning(spy)), life, trajectory, (), replace(PLAIN, num_epochs=2))
    jax.effects_barrier()
    first, second = spy.ratios
    np.testing.assert_allclose(first, 1.0, rtol=1e-6)
    assert np.any(np.abs(second - 1.0) > 1e-3)


@partial(jax.jit, static_argnums=(0, 1))
def permutations(num, num_draws):
    return jax.vmap(lambda key: permutation(key, num))(jax.random.split(KEY, num_draws))


@pytest.mark.parametrize("num", [1, 2, 7, 64])
def test_a_permutation_has_everybody_once(num):
    orders = permutations(num, 20)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(num), (20, num)))


def test_all_permutations_are_equally_likely():
    orders = np.asarray(permutations(3, 6000))
    _, counts = np.unique(orders @ np.array([9, 3, 1]), return_counts=True)
    assert stats.chisquare(counts).pvalue > 0.001
    assert len(counts) == 6


def test_too_many_samples_to_shuffle_are_refused():
    with pytest.raises(ValueError, match="fewer workers"):
        permutation(KEY, 2**20 + 1)


def test_a_life_shuffles_anew_in_every_update():
    """Where nothing is random but the order of samples, two updates from the same parameters differ by it alone."""
    spy = Spy()
    learner = replace(PLAIN, num_minibatches=4)
    inner = probes.inner_loop(probes.DelayedReward(), MirrorLearning(spy), learner, num_workers=2, num_steps=4)
    life, update = probes.begin(inner), jax.jit(inner.update)
    for num_updates in (0, 1, 0):
        update((), life.replace(num_updates=jnp.int32(num_updates)))
    jax.effects_barrier()
    first, second, again = (np.stack(spy.advantages[4 * i : 4 * i + 4]) for i in range(3))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != second)


@pytest.mark.parametrize("make", [SGD, Adam])
def test_annealing_scales_updates_down_to_zero_at_the_end(make):
    params, gradient = {"w": jnp.ones(2)}, {"w": jnp.array([0.1, -0.2])}
    plain, annealed = (make(anneal=anneal).transformation() for anneal in (False, True))
    expected, _ = jax.jit(lambda: plain.update(gradient, plain.init(params), params))()

    @jax.jit
    def update(progress):
        return annealed.update(gradient, annealed.init(params), params, progress=progress)

    for lifetime in (20, 100):
        for fraction in (0.0, 0.25, 1.0):
            progress = Progress(jnp.int32(fraction * lifetime), jnp.int32(lifetime))
            updates, _ = update(progress)
            np.testing.assert_allclose(updates["w"], (1.0 - fraction) * np.asarray(expected["w"]), rtol=1e-6)


def test_annealing_is_that_of_each_group_and_each_life():
    inner, life, trajectory, _ = _update_batch(A2C())
    learner = Learner(SGD(2.0, 100.0, anneal=True), SGD(1.0, 100.0))
    state = jax.jit(learner.init)(life.agent_params)
    whole = _update(inner, life, trajectory, (), PLAIN)[0]

    def at(lifetime):
        task = life.task.replace(lifetime=jnp.int32(lifetime))
        return _update(inner, life.replace(opt_state=state, task=task), trajectory, (), learner)[0]

    over = at(3)  # the life has done 3 updates
    before = np.asarray(life.agent_params["logits"])
    np.testing.assert_array_equal(over["logits"], before)
    np.testing.assert_array_equal(over["value"], whole["value"])
    half = at(6)
    np.testing.assert_allclose(half["logits"] - before, 0.5 * (whole["logits"] - before), rtol=1e-3, atol=1e-6)


def test_annealing_without_a_life_is_refused():
    critic = Critic(optimizer=SGD(4.0, anneal=True))
    spec = two_states.TwoStates.spec
    trajectory = _update_batch(A2C())[2]
    state = critic.init(KEY, spec, trajectory.reward.shape[1])
    with pytest.raises(ValueError, match="anneal=False"):
        critic.update(spec, state, trajectory)


def test_meta_gradients_pass_through_epochs_of_minibatches():
    inner = two_states.inner_loop(learner=Learner(SGD(2.0, 0.5), SGD(1.0, 0.5), num_epochs=2, num_minibatches=3))
    life = jax.jit(inner.begin)(KEY, two_states.task())

    def total(meta_params):
        return jnp.sum(jnp.square(inner.update(meta_params, life)[0].agent_params["logits"]))

    gradient = jax.jit(jax.grad(total))(inner.objective.init(KEY))["w"]
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient)


@pytest.mark.parametrize("field", ["num_epochs", "num_minibatches"])
def test_counts_below_one_are_refused(field):
    with pytest.raises(ValueError, match=field):
        Learner(**{field: 0})


def test_minibatches_that_do_not_divide_a_rollout_are_refused_at_construction():
    make = partial(probes.inner_loop, probes.ConstantReward(), A2C(), num_workers=4, num_steps=5)
    assert make(replace(PLAIN, num_minibatches=10)).learner.num_gradient_steps == 10
    with pytest.raises(ValueError, match="num_minibatches must divide"):
        make(replace(PLAIN, num_minibatches=3))
