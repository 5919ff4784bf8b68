"""The training loops of `experiments/loops`: by PPO's drift they are plain PPO, and agents learn in them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metadisco
from experiments.loops import in_purejaxrl_style, in_stoix_style
from tests.support.small import assert_trees_close

SPEC = metadisco.EnvSpec(metadisco.Box((4,)), metadisco.Discrete(2))
PPO = metadisco.Discovered(metadisco.PPO(clip=0.1, gamma=0.9, gae_lambda=0.8, value_weight=0.7, entropy_weight=0.1), ())
T, B = 4, 3
SMALL = {"num_updates": 2, "num_envs": B, "num_steps": T, "num_epochs": 1, "num_minibatches": 1, "width": 4}
PROGRESS = metadisco.Progress(0, 2)
TA_LPO = metadisco.load("ta-lpo-quick")


def rollout(seed):
    rng = np.random.default_rng(seed)
    obs, after = (jnp.asarray(rng.normal(size=(T, B, 4)), jnp.float32) for _ in range(2))
    terminated, truncated = rng.random((T, B)) < 0.2, rng.random((T, B)) < 0.2
    action, log_prob = rng.integers(0, 2, (T, B)), np.log(rng.uniform(0.4, 0.6, (T, B)))
    numbers = [jnp.asarray(x, jnp.float32) for x in (log_prob, rng.normal(size=(T, B)))]
    ends = (jnp.asarray(terminated), jnp.asarray(truncated & ~terminated))
    return metadisco.Trajectory(obs, jnp.asarray(action), *numbers, *ends, after)


def plain_ppo(apply, params, old_params, seen):
    """The loss as in a textbook: estimates by the value before the update, and the smaller of two gains."""

    def value_of(obs):
        return jnp.stack([apply(old_params, row)["value"][:, 0] for row in obs])

    value, after = value_of(seen.obs), value_of(seen.next_obs)
    advantages, later = [], jnp.zeros(B)
    for t in reversed(range(T)):
        error = seen.reward[t] + 0.9 * (1 - seen.terminated[t]) * after[t] - value[t]
        later = error + 0.9 * 0.8 * (1 - seen.finished[t]) * later
        advantages.insert(0, later)
    advantage = jnp.stack(advantages)
    target, advantage = advantage + value, (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    rows = apply(params, seen.obs.reshape(T * B, 4))
    log_probs = jax.nn.log_softmax(rows["logits"]).reshape(T, B, 2)
    ratio = jnp.exp(jnp.where(seen.action == 1, log_probs[..., 1], log_probs[..., 0]) - seen.log_prob)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.9, 1.1) * advantage)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1)
    error = rows["value"].reshape(T, B) - target
    return -gain.mean() + 0.7 * 0.5 * (error**2).mean() - 0.1 * entropy.mean()


def slope(apply, params, seen):
    return jax.grad(lambda now: plain_ppo(apply, now, params, seen))(params)


def drawn(network, *inputs):
    """Parameters of a network or an objective. Those that it begins with take seconds to compile."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(network.init, jax.random.key(0), *inputs))
    rng = np.random.default_rng(0)
    return structure.unflatten([jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])


def test_the_update_of_the_purejaxrl_style_is_that_of_plain_ppo_by_its_drift():
    networks = in_purejaxrl_style.Networks((("logits", 2), ("value", 1)), 4)
    rule = metadisco.Rule(PPO, SPEC, networks.apply)
    update = in_purejaxrl_style.make_update(rule, optax.sgd(1.0), in_purejaxrl_style.Config(**SMALL))

    @jax.jit
    def both(params):
        learnt, _, _ = update(params, optax.sgd(1.0).init(params), (), rollout(0), PROGRESS, jax.random.key(0))
        return learnt, jax.tree.map(jnp.subtract, params, slope(networks.apply, params, rollout(0)))

    assert_trees_close(*both(drawn(networks, jnp.zeros((1, 4)))), rtol=1e-5, atol=1e-5)


def test_the_update_of_the_stoix_style_is_that_of_plain_ppo_on_all_replicas_by_its_drift():
    networks = in_stoix_style.Pair(in_stoix_style.Network(2, 4), in_stoix_style.Network(1, 4))
    params = in_stoix_style.Pair(*({"params": drawn(net, jnp.zeros((1, 4)))["params"]} for net in networks))
    txs = in_stoix_style.Pair(*[metadisco.wrap_optimizer(optax.sgd(1.0), PPO)] * 2)
    config, seen = in_stoix_style.Config(**SMALL), jax.tree.map(lambda *x: jnp.stack(x), rollout(0), rollout(1))

    def apply(params, obs):
        return {"logits": networks.actor.apply(params.actor, obs), "value": networks.critic.apply(params.critic, obs)}

    update = in_stoix_style.make_update(metadisco.Rule(PPO, SPEC, apply), networks, txs, config)

    @jax.jit
    def both(params):
        states = in_stoix_style.Pair(*(tx.init(each) for tx, each in zip(txs, params)))
        of_replica = lambda seen: update(params, states, (), seen, PROGRESS, jax.random.key(0))[0]  # noqa: E731
        learnt = jax.vmap(jax.vmap(of_replica, axis_name="batch"), axis_name="device")(
            jax.tree.map(lambda leaf: leaf[None], seen)
        )
        slopes = jax.vmap(lambda seen: slope(apply, params, seen))(seen)
        return learnt, jax.tree.map(lambda old, each: old - each.mean(axis=0), params, slopes)

    learnt, expected = both(params)
    for replica in range(2):
        assert_trees_close(jax.tree.map(lambda leaf, n=replica: leaf[0, n], learnt), expected, rtol=1e-5, atol=1e-5)


def test_a_tiny_training_in_the_purejaxrl_style_runs_through():
    """By LPG, which takes one step on each rollout."""
    train = in_purejaxrl_style.make_train(metadisco.load("lpg-grid"), in_purejaxrl_style.Config(**SMALL))
    assert jax.jit(train)(jax.random.key(0)).shape == (2,)


@pytest.mark.parametrize("is_learned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_replicas_of_the_stoix_style_stay_equal_and_see_different_rollouts(is_learned):
    """By a drift, and by a drift and a learned optimizer with noise."""
    optimizer = metadisco.WithOptimizer(metadisco.PPO(), metadisco.OPEN(width=3, hidden=4, noise=0.1))
    other = metadisco.Discovered(optimizer, drawn(optimizer))
    discovered = in_stoix_style.with_optimizer(TA_LPO, other) if is_learned else TA_LPO
    config = in_stoix_style.Config(num_batches=2, **SMALL)
    state, returns = in_stoix_style.train(jax.random.key(0), discovered, config)
    for leaf in jax.tree.leaves(state.params):
        np.testing.assert_allclose(leaf[0, 0], leaf[-1, -1], rtol=1e-5, atol=1e-6)
    assert not jnp.array_equal(state.obs[0, 0], state.obs[0, 1])
    assert returns.shape == (jax.local_device_count(), 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "env", "random", "least"),
    [
        ("ta-lpo-quick", "CartPole-v1", 22.0, 200.0),
        ("scheduled-a2c-quick", "CartPole-v1", 22.0, 150.0),
        ("lpg-grid", "Catch-bsuite", -0.6, 0.5),
    ],
)
def test_agents_learn_in_the_purejaxrl_style(name, env, random, least):
    train = in_purejaxrl_style.make_train(metadisco.load(name), env_name=env)
    # One after the other: XLA waits forever on few cores where it has batched products of so many rows.
    returns = jax.jit(lambda keys: jax.lax.map(train, keys))(jax.random.split(jax.random.key(0), 2))
    assert jnp.nanmean(returns[:, :2]) < (random + least) / 2
    assert jnp.nanmean(returns[:, -32:]) > least


@pytest.mark.slow
def test_agents_learn_in_the_stoix_style():
    _, returns = in_stoix_style.train(jax.random.key(0), TA_LPO)
    assert jnp.nanmean(returns[..., :1]) < 60.0
    assert jnp.nanmean(returns[..., -16:]) > 200.0
