"""Any discovered objective, and a learned optimizer, in an Anakin loop as in Stoix: CartPole.

    python experiments/loops/in_stoix_style.py ta-lpo-quick
    python experiments/loops/in_stoix_style.py lpo-quick --optimizer runs/my-run    # a run of the preset open-quick

Actor and critic have networks, parameters and optimizers of their own. The learner is pmapped over devices and vmapped
over batches on each of them; every replica acts in environments of its own, and gradients are averaged over all.
metadisco's part is `rule`, `memory` and `wrap_optimizer`.
"""

import argparse
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

import metadisco


class Config(NamedTuple):
    num_updates: int = 64
    num_batches: int = 2  # on each device
    num_envs: int = 8
    num_steps: int = 64
    num_epochs: int = 4
    num_minibatches: int = 4
    rate: float = 1e-3
    width: int = 64


class Pair(NamedTuple):
    """Of actor and critic: networks, parameters, optimizers or their states."""

    actor: Any
    critic: Any


class LearnerState(NamedTuple):
    params: Pair
    opt_states: Pair
    memory: Any  # of the objective
    key: jax.Array
    env_state: Any
    obs: jax.Array
    returns: jax.Array  # of the episodes that go on


class Network(nn.Module):
    size: int
    width: int

    @nn.compact
    def __call__(self, x):
        for layer, width in enumerate((self.width, self.width, self.size)):
            x = nn.Dense(width)(x)
            x = x if layer == 2 else nn.tanh(x)
            self.sow("intermediates", "activity", jnp.abs(x).mean(axis=0))  # for a learned optimizer
        return x


def layers(params):
    """Of one network, in order."""
    return [params["params"][f"Dense_{layer}"] for layer in range(3)]


def optimizers(discovered, config, key):
    """Adam for both, under the learned optimizer or the schedule of an objective that has one."""
    actor_key, critic_key = jax.random.split(key)
    adam = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config.rate, eps=1e-5))
    return Pair(
        metadisco.wrap_optimizer(adam, discovered, lambda params: (layers(params), []), actor_key),
        metadisco.wrap_optimizer(adam, discovered, lambda params: ([], layers(params)), critic_key),
    )


def make_update(rule, networks, txs, config):
    """One update on a rollout. All replicas call it at once, and have the same parameters after it."""
    epochs, batches = (config.num_epochs, config.num_minibatches) if rule.uses_importance_ratio else (1, 1)

    def mean(tree):  # over all replicas: whatever an optimizer is told must be the same, or their parameters part
        return jax.lax.pmean(jax.lax.pmean(tree, "batch"), "device")

    def activity(network, params, obs):
        return network.apply(params, obs, mutable="intermediates")[1]["intermediates"]["activity"]

    def update(params, opt_states, memory, trajectory, progress, key):
        targets, memory = rule.targets(params, memory, trajectory, progress)
        told = {"progress": progress, "factors": mean(rule.step_factors(targets))}

        def descend(carry, batch):
            (params, opt_states), (trajectory, targets, epoch) = carry, batch
            gradients, _ = jax.grad(rule.loss, has_aux=True)(params, targets, trajectory, progress)
            sizes = [activity(*each, trajectory.obs) for each in zip(networks, params)]
            gradients, (of_actor, of_critic) = mean((gradients, sizes))
            now = told | {"epoch": epoch[0] / max(epochs - 1, 1)}
            actor, actor_state = txs.actor.update(
                gradients.actor, opt_states.actor, params.actor, activity=(of_actor, ()), **now
            )
            critic, critic_state = txs.critic.update(
                gradients.critic, opt_states.critic, params.critic, activity=((), of_critic), **now
            )
            return (optax.apply_updates(params, Pair(actor, critic)), Pair(actor_state, critic_state)), None

        def of_epoch(carry, numbered):
            epoch, key = numbered
            data = (trajectory, targets, jnp.full(trajectory.reward.shape, epoch))
            order = jax.random.permutation(key, trajectory.reward.size).reshape(batches, -1)
            return jax.lax.scan(descend, carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[order], data))

        numbered = (jnp.arange(epochs), jax.random.split(key, epochs))
        (params, opt_states), _ = jax.lax.scan(of_epoch, (params, opt_states), numbered)
        return params, opt_states, memory

    return update


def make_learner(env, env_params, networks, update, config):
    """A function of a learner's state: all updates, and the mean return of the episodes that ended in each."""

    def step_envs(state, key):
        action_key, step_key = jax.random.split(key)
        log_probs = jax.nn.log_softmax(networks.actor.apply(state.params.actor, state.obs))
        action = jax.random.categorical(action_key, log_probs)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        keys, step = jax.random.split(step_key, config.num_envs), jax.vmap(env.step, (0, 0, 0, None))
        obs, env_state, reward, terminated, truncated, info = step(keys, state.env_state, action, env_params)
        after, returns = info["final_observation"], state.returns + reward  # before the reset
        seen = metadisco.Trajectory(state.obs, action, log_prob, reward, terminated, truncated & ~terminated, after)
        going_on = jnp.where(terminated | truncated, 0.0, returns)
        return state._replace(env_state=env_state, obs=obs, returns=going_on), (seen, returns)

    def of_update(state, n):
        act_key, learn_key = jax.random.split(jax.random.fold_in(state.key, n))
        state, (seen, returns) = jax.lax.scan(step_envs, state, jax.random.split(act_key, config.num_steps))
        progress = metadisco.Progress(n, config.num_updates)
        learnt = update(state.params, state.opt_states, state.memory, seen, progress, learn_key)
        state = state._replace(**dict(zip(("params", "opt_states", "memory"), learnt)))
        return state, jnp.mean(returns, where=seen.finished)

    return lambda state: jax.lax.scan(of_update, state, jnp.arange(config.num_updates))


def with_optimizer(discovered, other):
    """The objective of one and the learned optimizer of the other."""
    both = metadisco.WithOptimizer(discovered.objective, other.objective.optimizer)
    of_optimizer = other.objective.optimizer_params(other.meta_params)
    return metadisco.Discovered(both, {"objective": discovered.meta_params, "optimizer": of_optimizer})


def train(key, discovered, config=Config()):
    """Learner states and returns of all replicas on CartPole, [devices, batches, ...]."""
    env, env_params = gymnax.make("CartPole-v1")
    spec = metadisco.EnvSpec(metadisco.Box((4,)), metadisco.Discrete(2))
    (policy, width), (prediction, size) = discovered.objective.heads(spec).items()
    networks = Pair(Network(width, config.width), Network(size, config.width))
    rule = metadisco.Rule(
        discovered,
        spec,
        lambda params, obs: {
            policy: networks.actor.apply(params.actor, obs),
            prediction: networks.critic.apply(params.critic, obs),
        },
    )
    noise_key, begin_key = jax.random.split(key)
    txs, shape = optimizers(discovered, config, noise_key), (jax.local_device_count(), config.num_batches)

    @jax.jit
    def begin(key):
        *net_keys, memory_key, env_key, life_key = jax.random.split(key, 5)
        params = Pair(*({"params": net.init(k, jnp.zeros((1, 4)))["params"]} for net, k in zip(networks, net_keys)))
        opt_states = Pair(*(tx.init(each) for tx, each in zip(txs, params)))
        same = (params, opt_states, rule.init(memory_key, params, config.num_envs))
        same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, *jnp.shape(leaf))), same)
        reset = jax.vmap(jax.vmap(jax.vmap(lambda key: env.reset(key, env_params))))
        obs, env_state = reset(jax.random.split(env_key, (*shape, config.num_envs)))
        return LearnerState(*same, jax.random.split(life_key, shape), env_state, obs, jnp.zeros(obs.shape[:3]))

    learner = make_learner(env, env_params, networks, make_update(rule, networks, txs, config), config)
    return jax.pmap(jax.vmap(learner, axis_name="batch"), axis_name="device")(begin(begin_key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="one of metadisco.zoo_names(), a run's folder or a portable objective")
    parser.add_argument("--optimizer", help="another with a learned optimizer, which is used")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    known = parser.parse_args()
    discovered = metadisco.load(known.checkpoint)
    if known.optimizer:
        discovered = with_optimizer(discovered, metadisco.load(known.optimizer))
    _, returns = train(jax.random.key(known.seed), discovered)
    for begin in range(0, returns.shape[-1], 8):
        print(f"updates {begin:3} to {begin + 8:3}: mean return {jnp.nanmean(returns[..., begin : begin + 8]):.1f}")


if __name__ == "__main__":
    main()
