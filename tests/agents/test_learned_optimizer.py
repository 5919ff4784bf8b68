"""OPEN against a slow NumPy reference, its special cases, its noise, and what a network says of itself."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.agent import Agent
from metadisco.agents.learned_optimizer import DECAYS, INPUTS, OPEN, LearningStep, ResidualOPEN
from metadisco.agents.networks import CNN, MLP, Constant, Relu, Separate, Table, Tanh, activity, layer_proportions
from metadisco.core.lowrank import LowRank
from metadisco.envs.base import Box, Discrete, EnvSpec

SPEC, HEADS = EnvSpec(Box((3,)), Discrete(2)), (("logits", 2), ("value", 1))
AGENT = Agent(Separate(MLP((4,), Tanh()), MLP((5,))), SPEC, HEADS)
SMALL = OPEN(width=3, hidden=6, step=0.2, exponent=0.3, noise=0.1)
RESIDUAL = ResidualOPEN(width=3, hidden=6, step=1.0)


def _drawn(seed, tree, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), tree)


def _step(agent_params, seed=0):
    gradients = _drawn(seed, agent_params, 0.1)
    drawn = jax.device_get(_drawn(seed + 7, agent_params))
    told = jax.tree.map(lambda leaf: np.abs(leaf.reshape(-1, leaf.shape[-1])[0]), drawn)
    return LearningStep(gradients, _drawn(seed + 1, agent_params, 0.01), told, jnp.float32(0.3), jnp.float32(0.5))


@partial(jax.jit, static_argnums=0)
def _twice(optimizer, key, meta_params, agent_params, first, second):
    """Updates of two steps; the second has a memory."""
    state = optimizer.init_state(agent_params)
    one, state = optimizer.update(key, meta_params, state, agent_params, first)
    two, state = optimizer.update(jax.random.fold_in(key, 1), meta_params, state, agent_params, second)
    return one, two, state


def _agent_params():
    return _drawn(3, jax.eval_shape(AGENT.init, jax.random.key(0)))


def _meta_params(optimizer=SMALL, seed=9):
    return _drawn(seed, jax.eval_shape(optimizer.init, jax.random.key(0)), 0.5)


def _run(optimizer=SMALL, key=0, meta_params=None, seeds=(0, 10)):
    agent_params = _agent_params()
    meta_params = _meta_params(optimizer) if meta_params is None else meta_params
    return _twice(optimizer, jax.random.key(key), meta_params, agent_params, *(_step(agent_params, s) for s in seeds))


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _reference_of_one(meta_params, momenta, hidden, told):
    """m, e and delta of one parameter, and its hidden state; a loop over nothing but layers."""
    gru, width = meta_params["gru"], hidden.size
    x, h = told @ gru["input"] + gru["input_bias"], hidden @ gru["recurrent"]
    reset, update = _sigmoid(x[:width] + h[:width]), _sigmoid(x[width : 2 * width] + h[width : 2 * width])
    candidate = np.tanh(x[2 * width :] + reset * (h[2 * width :] + gru["recurrent_bias"]))
    hidden = (1.0 - update) * candidate + update * hidden
    x = hidden
    for name in ("first", "second"):
        layer = meta_params[name]
        x = x @ layer["kernel"] + layer["bias"]
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-6) * layer["scale"] + layer["shift"]
        x = np.maximum(x, 0.0)
    return x @ meta_params["out"] + meta_params["out_bias"], hidden


def _reference(optimizer, meta_params, agent_params, steps):
    """Updates of parameters of the value's network, which have no noise, parameter by parameter. {place: update}."""
    memory, updates = {}, {}
    for step in steps:
        updates, changes = {}, {}
        for place, proportion in ((("prediction_torso", 0, "kernel"), 0.0), (("prediction_torso", 0, "bias"), 0.0),
                                  (("value", "kernel"), 1.0), (("value", "bias"), 1.0)):  # fmt: skip

            def at(tree, place=place):
                for name in place:
                    tree = tree[name]
                return np.asarray(tree, np.float64)

            leaf, gradient, proposed, active = (
                at(each) for each in (agent_params, step.gradients, step.proposed, step.activity)
            )
            momenta, hidden = memory.get(place, (np.zeros((6, *leaf.shape)), np.zeros((*leaf.shape, optimizer.width))))
            decays = np.array(DECAYS).reshape(-1, *[1] * leaf.ndim)
            momenta = decays * momenta + (1.0 - decays) * gradient
            columns = [leaf, *np.sign(momenta), *np.log(np.abs(momenta) + 1e-13)]
            columns += [np.sign(gradient), np.log(np.abs(gradient) + 1e-13)]
            columns = [column / np.sqrt(1e-5 + np.mean(column**2)) for column in columns]
            after, change = np.zeros_like(hidden), np.zeros_like(leaf)
            size = np.sqrt(np.mean(proposed**2))
            for index in np.ndindex(leaf.shape):
                dormancy = active[index[-1]] / active.mean()
                told = np.array([column[index] for column in columns] + [0.3, proportion, 0.5, dormancy])
                said, after[index] = _reference_of_one(meta_params, momenta, hidden[index], told)
                towards, factor = optimizer.step * said[0], np.exp(optimizer.exponent * said[1])
                change[index] = -towards * factor
                if optimizer.residual:
                    change[index] = proposed[index] * (factor - 1.0) - size * towards * factor
            memory[place] = momenta, after
            changes[place] = change, proposed if optimizer.residual else 0.0 * proposed
        mean = np.mean(np.concatenate([change.ravel() for change, _ in changes.values()]))
        updates = {place: base + change - mean for place, (change, base) in changes.items()}
    return updates


@pytest.mark.parametrize("optimizer", [SMALL, RESIDUAL])
def test_two_steps_are_those_of_a_slow_reference(optimizer):
    agent_params, meta_params = _agent_params(), _meta_params(optimizer)
    steps = [_step(agent_params, 0), _step(agent_params, 10)]
    expected = _reference(
        optimizer, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), meta_params), agent_params, steps
    )
    found = _run(optimizer)[1]
    for place, update in expected.items():
        leaf = found
        for name in place:
            leaf = leaf[name]
        np.testing.assert_allclose(leaf, update, rtol=2e-4, atol=2e-6)


def test_the_inputs_are_those_of_the_paper_and_their_order_is_part_of_a_checkpoint():
    assert OPEN().features == INPUTS
    assert len(INPUTS) == 19
    assert (INPUTS[0], INPUTS[15:]) == (
        "parameter",
        ("training_proportion", "layer_proportion", "batch_proportion", "dormancy"),
    )


def test_with_outputs_of_zero_residual_steps_are_the_proposed_ones_bit_for_bit():
    optimizer, agent_params = RESIDUAL, _agent_params()
    one, two, _ = _run(optimizer, meta_params=jax.jit(optimizer.init)(jax.random.key(1)))
    for update, seed in ((one, 0), (two, 10)):
        jax.tree.map(np.testing.assert_array_equal, update, _step(agent_params, seed).proposed)


def _group(tree, *names):
    return np.concatenate([np.ravel(leaf) for name in names for leaf in jax.tree.leaves(tree[name])])


@pytest.mark.parametrize("names", [("torso", "logits"), ("prediction_torso", "value")])
def test_updates_have_a_mean_of_zero_in_each_group(names):
    update = _group(_run()[1], *names)
    assert np.std(update) > 0.03
    assert abs(np.mean(update)) < 1e-6
    change = _group(_run(RESIDUAL)[1], *names) - _group(_step(_agent_params(), 10).proposed, *names)
    assert np.std(change) > 1e-3
    assert abs(np.mean(change)) < 1e-7


@pytest.mark.parametrize("optimizer", [SMALL, RESIDUAL])
def test_only_the_policy_is_stochastic_and_a_key_reproduces_it(optimizer):
    one, again, other = (_run(optimizer, key)[0] for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    for name in ("prediction_torso", "value"):
        jax.tree.map(np.testing.assert_array_equal, one[name], other[name])
    for name in ("torso", "logits"):
        pairs = zip(*(jax.tree.leaves(jax.device_get(each[name])) for each in (one, other)))
        assert all(np.any(a != b) for a, b in pairs)


def test_noise_is_standard_gaussian_times_delta():
    meta_params = _drawn(0, _meta_params(), 0.0)
    meta_params["out_bias"] = jnp.array([0.0, 0.0, 2.0])
    agent_params = {"logits": jnp.zeros((4000, 2)), "value": jnp.zeros((4000, 1))}
    step = replace(_step(agent_params), activity=jax.tree.map(lambda leaf: leaf[0], agent_params))
    optimizer = OPEN(3, 4, noise=0.5)
    state = jax.jit(optimizer.init_state)(agent_params)
    update, _ = jax.jit(optimizer.update)(jax.random.key(0), meta_params, state, agent_params, step)
    assert abs(np.std(update["logits"]) - 1.0) < 0.03  # 0.5 times 2
    assert not np.any(update["value"])


@pytest.mark.parametrize("changes", [{"step": 0.1}, {"exponent": 0.1}, {"noise": 0.2}], ids=str)
def test_every_setting_changes_the_updates(changes):
    one, other = (jax.device_get(_run(each)[1]) for each in (SMALL, replace(SMALL, **changes)))
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("changes", [{"width": 2}, {"hidden": 3}], ids=str)
def test_both_widths_size_the_net(changes):
    shapes = [jax.eval_shape(each.init, jax.random.key(0)) for each in (SMALL, replace(SMALL, **changes))]
    assert shapes[0] != shapes[1]


@pytest.mark.parametrize("field", ["gradients", "activity", "fraction", "epoch"])
def test_every_part_of_a_step_is_looked_at(field):
    agent_params = _agent_params()
    first = jax.device_get(_step(agent_params))

    def more(leaf):
        return leaf + np.float32(0.4) * (np.arange(leaf.shape[-1]) < 1 if leaf.ndim else 1)

    other = replace(first, **{field: jax.tree.map(more, getattr(first, field))})
    updates = [
        jax.device_get(_twice(SMALL, jax.random.key(0), _meta_params(), agent_params, each, first)[0])
        for each in (first, other)
    ]
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(updates[0]), jax.tree.leaves(updates[1])))


def test_zero_gradients_and_silent_units_are_finite_also_for_a_meta_gradient():
    agent_params = _agent_params()
    step = replace(_step(agent_params), epoch=jnp.float32(0.0))
    nothing = _drawn(0, step, 0.0)

    def size(meta_params, optimizer):
        _, update, _ = _twice(optimizer, jax.random.key(0), meta_params, agent_params, nothing, nothing)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(update))

    value, slope = jax.jit(jax.value_and_grad(size), static_argnums=1)(_meta_params(), SMALL)
    assert all(np.all(np.isfinite(leaf)) for leaf in (value, *jax.tree.leaves(slope)))


def test_low_rank_weights_are_those_that_they_stand_for():
    meta_params, rng = _meta_params(), np.random.default_rng(0)
    left, right = (jnp.asarray(rng.normal(size=(size, 1)), jnp.float32) for size in (len(INPUTS), 9))
    base, scale = meta_params["gru"]["input"], np.float32(0.3)
    full = meta_params | {"gru": meta_params["gru"] | {"input": base + scale * left @ right.T}}
    thin = meta_params | {"gru": meta_params["gru"] | {"input": LowRank(base, left, right, scale)}}
    one, other = (_run(meta_params=each)[1] for each in (full, thin))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), one, other)


def test_activity_is_the_mean_size_of_what_units_say():
    params = _agent_params()
    obs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    told = jax.jit(AGENT.activity)(params, obs.reshape(2, 3, 3))
    layer = jax.device_get(params["prediction_torso"][0])
    units = np.maximum(obs @ layer["kernel"] + layer["bias"], 0.0)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(told["prediction_torso"][0][name], np.abs(units).mean(0), rtol=1e-5)
    logits = np.asarray(jax.jit(AGENT.apply)(params, obs)["logits"])
    np.testing.assert_allclose(told["logits"]["kernel"], np.abs(logits).mean(0), rtol=1e-5)
    assert jax.tree.structure(told) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("torso", "observation"),
    [
        (Table(), Discrete(4)),
        (Constant(), Discrete(4)),
        (MLP((3,), Relu()), Discrete(4)),
        (CNN((2,), (3,)), Box((3, 3, 2))),
        (Separate(Table(), MLP((3,))), Discrete(4)),
    ],
    ids=repr,
)
def test_any_torso_has_an_activity_for_each_parameter(torso, observation):
    agent = Agent(torso, EnvSpec(observation, Discrete(2)), HEADS)

    def told(key):
        params = agent.init(key)
        shape = getattr(observation, "shape", ())
        obs = jnp.zeros((5, *shape), jnp.float32 if shape else jnp.int32)
        return params, activity(torso, params, obs)

    params, sizes = jax.eval_shape(told, jax.random.key(0))
    jax.tree.map(lambda leaf, size: np.testing.assert_equal(size.shape, leaf.shape[-1:]), params, sizes)


def test_a_layer_is_placed_by_its_depth():
    torso = CNN((2, 2), (3, 3))
    params = jax.eval_shape(
        lambda key: torso.init(key, EnvSpec(Box((3, 3, 2)), Discrete(2)), dict(HEADS)), jax.random.key(0)
    )
    placed = layer_proportions(params)
    layers = [*placed["torso"]["convolutions"], *placed["torso"]["layers"]]
    assert [(layer["kernel"], layer["bias"]) for layer in layers] == [(x, x) for x in (0.0, 0.25, 0.5, 0.75)]
    assert placed["value"] == {"kernel": 1.0, "bias": 1.0}


@pytest.mark.parametrize("changes", [{"width": 0}, {"hidden": 0}, {"step": 0.0}, {"noise": -1.0}, {"exponent": np.inf}])
def test_settings_out_of_range_are_refused(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"OPEN.{name} must be"):
        OPEN(**changes)
