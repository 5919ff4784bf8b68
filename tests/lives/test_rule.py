"""`Rule` and `wrap_optimizer`: a loop with a network of its own takes the steps of metadisco's learner."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metadisco
from metadisco.agents.agent import Agent
from metadisco.agents.networks import MLP, Separate, Tanh
from metadisco.lives.learner import Learner
from tests.support.small import assert_trees_close

SPEC = metadisco.EnvSpec(metadisco.Box((3,)), metadisco.Discrete(2))
TORSO = Separate(MLP((4,), Tanh()), MLP((5,), Tanh()))
ADAM = metadisco.Adam(0.1, max_grad_norm=1e9, anneal=True)  # so large that one norm is as good as one for each group
T, B, N = 5, 3, 7
SILENT = metadisco.OPEN(width=3, hidden=4, step=0.1, exponent=0.3, noise=1e-12)  # keys are drawn in another order
OBJECTIVES = {
    "LPG": metadisco.LPG(width=4, num_predictions=3, embedding_width=4, lifetime_features=True, scale_rewards=True),
    "schedule and optimizer": metadisco.WithOptimizer(metadisco.ScheduledMirrorLearning(width=3), SILENT),
    "PPO": metadisco.PPO(),
    "schedule of A2C": metadisco.ScheduledA2C(width=3),
}
SLOW = ("LPG", "PPO", "schedule of A2C")


def rollout(seed):
    rng = np.random.default_rng(seed)
    obs, after = (jnp.asarray(rng.normal(size=(T, B, 3)), jnp.float32) for _ in range(2))
    terminated, truncated = rng.random((T, B)) < 0.2, rng.random((T, B)) < 0.2
    reward, log_prob = rng.normal(size=(T, B)), np.log(rng.uniform(0.3, 0.7, (T, B)))
    arrays = map(jnp.asarray, (reward.astype("float32"), terminated, truncated & ~terminated))
    action = jnp.asarray(rng.integers(0, 2, (T, B)), jnp.int32)
    return metadisco.Trajectory(obs, action, jnp.asarray(log_prob, jnp.float32), *arrays, after)


SEEN = jax.tree.map(lambda *leaves: jnp.stack(leaves), rollout(0), rollout(1))


def renamed(params):
    """Parameters in a form that metadisco does not know, from its own."""
    prediction = next(name for name in params if name not in ("torso", "logits", "prediction_torso"))
    heads, torsos = (params["logits"], params[prediction]), (params["torso"][0], params["prediction_torso"][0])
    return {"net_b": dict(zip(("in", "out"), (torsos[0], heads[0]))), "net_a": {"out": heads[1], "in": torsos[1]}}


def layers(params):
    return [params["net_b"]["in"], params["net_b"]["out"]], [params["net_a"]["in"], params["net_a"]["out"]]


def outputs_of(params, obs):
    """Of the hidden units and of the head of both networks."""

    def net(layers):
        hidden = jnp.tanh(obs @ layers["in"]["kernel"] + layers["in"]["bias"])
        return [hidden, hidden @ layers["out"]["kernel"] + layers["out"]["bias"]]

    return net(params["net_b"]), net(params["net_a"])


def activity(params, obs):
    return jax.tree.map(lambda x: jnp.abs(x).mean(axis=range(x.ndim - 1)), outputs_of(params, obs))


def drawn(component, scale=1.0):
    """Parameters of an agent or an objective. Those that they begin with take seconds to compile."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(component.init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return structure.unflatten([jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])


def rule_of(objective, meta_params):
    """With more outputs than the objective asks for."""
    (_, prediction) = objective.heads(SPEC)

    def apply(params, obs):
        of_policy, of_prediction = outputs_of(params, obs)
        return {"logits": of_policy[1], prediction: of_prediction[1], "hidden": of_policy[0]}

    return metadisco.Rule(metadisco.Discovered(objective, meta_params), SPEC, apply)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in OBJECTIVES]
)
def test_a_loop_takes_the_steps_of_metadiscos_learner(name):
    """Two updates, so that memories and states of optimizers count, by other names of parameters."""
    objective = OBJECTIVES[name]
    meta_params = drawn(objective, 0.5)
    agent, learner = Agent(TORSO, SPEC, tuple(objective.heads(SPEC).items())), Learner(ADAM, ADAM)
    discovered, rule = metadisco.Discovered(objective, meta_params), rule_of(objective, meta_params)
    tx = metadisco.wrap_optimizer(ADAM.transformation(), discovered, layers, jax.random.key(5))

    @jax.jit
    def by_learner(key, params):
        def update(carry, n):
            *carry, memory = carry
            progress = metadisco.Progress(n, jnp.int32(N))
            seen = jax.tree.map(lambda leaf: leaf[n], SEEN)
            *carry, memory, _, _ = learner.update(key, agent, objective, meta_params, *carry, memory, seen, progress)
            return (*carry, memory), None

        opt_state = learner.init(params, getattr(objective, "optimizer", None))
        carry = (params, opt_state, objective.init_state(key, agent, params, B))
        params, _, memory = jax.lax.scan(update, carry, jnp.arange(2))[0]
        return params, memory

    @jax.jit
    def by_hand(key, params):
        def update(carry, n):
            params, state, memory = carry
            seen, progress = jax.tree.map(lambda leaf: leaf[n], SEEN), metadisco.Progress(n, N)
            targets, memory = rule.targets(params, memory, seen, progress)
            gradients = jax.grad(rule.loss, has_aux=True)(params, targets, seen, progress)[0]
            told = {"progress": progress, "factors": rule.step_factors(targets), "activity": activity(params, seen.obs)}
            updates, state = tx.update(gradients, state, params, **told)
            return (optax.apply_updates(params, updates), state, memory), None

        carry = (params, tx.init(params), rule.init(key, params, B))
        params, _, memory = jax.lax.scan(update, carry, jnp.arange(2))[0]
        return params, memory

    params = drawn(agent)
    (theirs, their_memory), (ours, our_memory) = (
        run(jax.random.key(0), each) for run, each in ((by_learner, params), (by_hand, renamed(params)))
    )
    assert_trees_close(ours, renamed(theirs), rtol=2e-5, atol=2e-6)
    if name == "schedule and optimizer":  # remembers parameters
        our_memory, theirs = replace(our_memory, agent_params=()), renamed(their_memory.agent_params)
        their_memory = replace(their_memory, agent_params=())
    assert_trees_close(our_memory, their_memory, rtol=2e-5, atol=2e-6)


PPO = rule_of(metadisco.PPO(), ())
PARAMS = renamed(drawn(Agent(TORSO, SPEC, (("logits", 2), ("value", 1)))))
RESIDUAL = metadisco.WithOptimizer(metadisco.PPO(), metadisco.ResidualOPEN(width=3, hidden=4))
SCHEDULE = metadisco.Discovered(metadisco.ScheduledA2C(width=3), drawn(metadisco.ScheduledA2C(width=3)))


@partial(jax.jit, static_argnums=(0, 1))
def one_step(tx, progress, params):
    """What is added to parameters, by made-up gradients."""
    return tx.update(jax.tree.map(jnp.cos, params), tx.init(params), params, progress=progress)


PROGRESS = metadisco.Progress(3, N)


def test_a_learned_optimizer_that_has_learned_nothing_is_adam():
    """Its outputs are 0, whatever its other weights."""
    weights = drawn(RESIDUAL)["optimizer"]
    weights |= {name: jnp.zeros_like(weights[name]) for name in ("out", "out_bias")}
    fresh = metadisco.Discovered(RESIDUAL, {"objective": (), "optimizer": weights})
    tx, adam = metadisco.wrap_optimizer(optax.adam(0.1), fresh, layers, jax.random.key(3)), optax.adam(0.1)

    @jax.jit
    def differences(params):
        def step(carry, n):
            (params, ours), (others, theirs) = carry
            updates, ours = tx.update(jax.tree.map(lambda x: jnp.cos(x + n), params), ours, params, progress=PROGRESS)
            proposed, theirs = adam.update(jax.tree.map(lambda x: jnp.cos(x + n), others), theirs)
            moved = (optax.apply_updates(params, updates), ours), (optax.apply_updates(others, proposed), theirs)
            return moved, jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), updates, proposed)

        carry = (params, tx.init(params)), (params, adam.init(params))
        return jax.lax.scan(step, carry, jnp.arange(3.0))[1]

    assert max(jnp.max(leaf) for leaf in jax.tree.leaves(differences(PARAMS))) < 1e-6


def test_two_optimizers_of_two_networks_are_one_of_both():
    learned = metadisco.WithOptimizer(metadisco.PPO(), SILENT)
    learned = metadisco.Discovered(learned, drawn(learned))
    wrapped = partial(metadisco.wrap_optimizer, optax.sgd(0.1), learned, key=jax.random.key(3))
    of_actor = wrapped(layers=lambda net: ([net["in"], net["out"]], []))
    of_critic = wrapped(layers=lambda net: ([], [net["in"], net["out"]]))
    both, _ = one_step(wrapped(layers=layers), PROGRESS, PARAMS)
    for name, tx in (("net_b", of_actor), ("net_a", of_critic)):
        updates, _ = one_step(tx, PROGRESS, PARAMS[name])
        assert_trees_close(updates, both[name], rtol=1e-4, atol=1e-7)
        assert jnp.std(updates["in"]["kernel"]) > 1e-4


def test_every_draw_of_a_learned_optimizer_is_another():
    loud = metadisco.WithOptimizer(metadisco.PPO(), metadisco.OPEN(width=3, hidden=4, step=1e-12, noise=1.0))
    tx = metadisco.wrap_optimizer(optax.sgd(0.1), metadisco.Discovered(loud, drawn(loud)), layers, jax.random.key(0))

    @jax.jit
    def twice(params):
        state = tx.init(params)
        first, after = tx.update(params, state, params, progress=PROGRESS)
        again, _ = tx.update(params, replace(state, key=after.key), params, progress=PROGRESS)
        return [each["net_b"]["in"]["kernel"] for each in (first, again)]

    first, again = twice(PARAMS)
    assert jnp.std(first / again) > 0.1


def test_factors_scale_the_steps_of_both_groups():
    tx = metadisco.wrap_optimizer(optax.sgd(1.0), SCHEDULE, layers)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), factors={"policy": jnp.float32(0.5)})
    expected = {
        "net_b": jax.tree.map(lambda x: -0.5 * x, PARAMS["net_b"]),
        "net_a": jax.tree.map(lambda x: -x, PARAMS["net_a"]),
    }
    assert_trees_close(updates, expected)


def test_an_objective_that_says_nothing_of_steps_leaves_the_optimizer_alone():
    for objective in (metadisco.PPO(), metadisco.WithCountBonus(metadisco.A2C())):
        tx = metadisco.wrap_optimizer(optax.sgd(1.0), metadisco.Discovered(objective, ()))
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, factors={}, progress=metadisco.Progress(0, N))
        assert_trees_close(updates, jax.tree.map(jnp.negative, PARAMS))


def test_targets_are_constants_and_minibatches_have_any_leading_axes():
    @jax.jit
    def found(params):
        seen = rollout(0)
        targets, pullback = jax.vjp(lambda params: PPO.targets(params, (), seen, PROGRESS)[0], params)
        slopes = pullback(jax.tree.map(jnp.ones_like, targets))
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (targets, seen))
        return slopes, [PPO.loss(params, *each, PROGRESS)[0] for each in ((targets, seen), flat)]

    slopes, losses = found(PARAMS)
    assert all(jnp.all(leaf == 0.0) for leaf in jax.tree.leaves(slopes))
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_other_types_of_a_rollout_are_taken():
    """Ends as floats and actions of 8 bits, as some buffers keep them."""
    seen = rollout(0)
    other = replace(
        seen,
        terminated=seen.terminated.astype(jnp.float32),
        truncated=seen.truncated.astype(jnp.float32),
        action=seen.action.astype(jnp.uint8),
    )
    of_both = jax.jit(lambda each: [PPO.targets(PARAMS, (), seen, PROGRESS)[0].advantage for seen in each])
    np.testing.assert_array_equal(*of_both((seen, other)))


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"logits": 2}, "returns {'logits': (15, 2)}"),
        ({"logits": 2, "value": None}, "'value': (15, 1)} for observations of the shape (15, 3), and returns"),
        ({"logits": 3, "value": 1}, "'logits': (15, 2)"),
    ],
)
def test_a_network_with_other_outputs_is_refused(outputs, said):
    def wrong(params, obs):
        return {name: jnp.zeros((len(obs), width) if width else len(obs)) for name, width in outputs.items()}

    rule = metadisco.Rule(metadisco.Discovered(metadisco.PPO(), ()), SPEC, wrong)
    with pytest.raises(ValueError, match=re.escape(said)):
        rule.targets((), (), rollout(0), metadisco.Progress(0, N))


def test_rollouts_that_do_not_fit_are_refused():
    seen, progress = rollout(0), metadisco.Progress(0, N)
    with pytest.raises(ValueError, match="same axes of time and workers"):
        PPO.targets(PARAMS, (), replace(seen, reward=seen.reward[..., None]), progress)
    with pytest.raises(ValueError, match=r"whole rollout, \[T, B\], got rewards of shape \(5,\)"):
        PPO.targets(PARAMS, (), jax.tree.map(lambda leaf: leaf[:, 0], seen), progress)
    with pytest.raises(ValueError, match=r"metadisco.load\(NAME\)"):
        metadisco.Rule("lpg-grid", SPEC, PPO.apply)
    with pytest.raises(ValueError, match="discrete action spaces"):
        metadisco.Rule(metadisco.Discovered(metadisco.LPG(), ()), replace(SPEC, action=metadisco.Box((2,))), PPO.apply)


def test_optimizers_that_lack_something_are_refused():
    learned = metadisco.Discovered(RESIDUAL, drawn(RESIDUAL))
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match=r"metadisco.load\(NAME\)"):
        metadisco.wrap_optimizer(sgd, "lpg-grid")
    with pytest.raises(ValueError, match="give wrap_optimizer their layers="):
        metadisco.wrap_optimizer(sgd, SCHEDULE)
    with pytest.raises(ValueError, match="give wrap_optimizer a key="):
        metadisco.wrap_optimizer(sgd, learned, layers)
    with pytest.raises(ValueError, match=r"factors=rule.step_factors\(targets\)"):
        metadisco.wrap_optimizer(sgd, SCHEDULE, layers).update(PARAMS, (sgd.init(PARAMS), optax.EmptyState()))
    half = metadisco.wrap_optimizer(sgd, learned, lambda params: ([params["net_b"]], []), jax.random.key(0))
    with pytest.raises(ValueError, match=r"\['net_a'\]\['in'\]\['bias'\] in 0"):
        half.init(PARAMS)
    bare = metadisco.wrap_optimizer(sgd, learned, lambda params: params, jax.random.key(0))
    with pytest.raises(ValueError, match="two lists"):
        bare.init(PARAMS)
    tx = metadisco.wrap_optimizer(sgd, learned, layers, jax.random.key(0))
    with pytest.raises(ValueError, match="progress=metadisco"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="one array for each of 2 layers, got 1"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, progress=metadisco.Progress(0, N), activity=([jnp.ones(4)], []))
