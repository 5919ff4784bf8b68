"""A discovered drift, and a learned optimizer, in an Anakin loop as in Stoix: CartPole.

    python experiments/loops/in_stoix_style.py ta-lpo-quick
    python experiments/loops/in_stoix_style.py lpo-quick --optimizer runs/my-run    # a run of the preset open-quick

Actor and critic have networks, parameters and optimizers of their own. The learner is pmapped over devices and vmapped
over batches on each of them; every replica acts in environments of its own, and gradients are averaged over all.
metadisco's part is `drift`, one line of the actor's loss, and `wrap_optimizer`.
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
    gamma: float = 0.99
    gae_lambda: float = 0.95
    value_weight: float = 0.5
    entropy_weight: float = 0.01


class Pair(NamedTuple):
    """Of actor and critic: parameters, optimizers or their states."""

    actor: Any
    critic: Any


class LearnerState(NamedTuple):
    params: Pair
    opt_states: Pair
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
            self.sow("intermediates", "activity", jnp.abs(x).mean(axis=range(x.ndim - 1)))  # for a learned optimizer
        return x


def layers(params):
    """Of one network, in order."""
    return [params["params"][f"Dense_{layer}"] for layer in range(3)]


def optimizers(config, discovered, key):
    """Adam for both, under the learned optimizer if there is one."""
    actor_key, critic_key = jax.random.split(key)
    adam = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config.rate, eps=1e-5))
    return Pair(
        metadisco.wrap_optimizer(adam, discovered, lambda params: (layers(params), []), actor_key),
        metadisco.wrap_optimizer(adam, discovered, lambda params: ([], layers(params)), critic_key),
    )


def advantages(trajectory, value, next_value, config):
    """Generalised advantages [T, B]. The value after a cut by time counts, and that after an end does not."""

    def backward(advantage, now):
        reward, terminated, finished, value, after = now
        advantage = reward + config.gamma * jnp.where(terminated, 0.0, after) - value + advantage * (1 - finished)
        return config.gamma * config.gae_lambda * advantage, advantage

    now = (trajectory.reward, trajectory.terminated, trajectory.finished, value, next_value)
    return jax.lax.scan(backward, jnp.zeros(value.shape[1]), now, reverse=True)[1]


def actor_loss(params, network, drift, batch, progress, config):
    trajectory, advantage, _ = batch
    logits, seen = network.apply(params, trajectory.obs, mutable="intermediates")
    log_probs = jax.nn.log_softmax(logits)
    log_prob = jnp.take_along_axis(log_probs, trajectory.action[..., None], axis=-1)[..., 0]
    ratio, advantage = jnp.exp(log_prob - trajectory.log_prob), advantage - advantage.mean()
    advantage = advantage / (advantage.std() + 1e-8)
    gain = ratio * advantage - drift(ratio, advantage, progress.fraction)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return -gain.mean() - config.entropy_weight * entropy.mean(), seen["intermediates"]["activity"]


def critic_loss(params, network, batch, config):
    trajectory, _, target = batch
    value, seen = network.apply(params, trajectory.obs, mutable="intermediates")
    error = value[..., 0] - target
    return config.value_weight * 0.5 * jnp.square(error).mean(), seen["intermediates"]["activity"]


def make_update(networks, txs, drift, config):
    """One update on a rollout, the same for all replicas."""

    def descend(carry, numbered):
        (params, opt_states, progress), (batch, epoch) = carry, numbered
        of_actor = jax.grad(actor_loss, has_aux=True)(params.actor, networks.actor, drift, batch, progress, config)
        of_critic = jax.grad(critic_loss, has_aux=True)(params.critic, networks.critic, batch, config)
        # What an optimizer is told must be the same for all replicas, or their parameters part.
        told = jax.lax.pmean(jax.lax.pmean(Pair(of_actor, of_critic), "batch"), "device")
        share, moved, states = epoch / max(config.num_epochs - 1, 1), [], []
        for tx, (gradients, activity), state, old in zip(txs, told, opt_states, params):
            activity = (activity, ()) if tx is txs.actor else ((), activity)
            seen = {"progress": progress, "epoch": share, "activity": activity}
            updates, state = tx.update(gradients, state, old, **seen)
            moved, states = [*moved, optax.apply_updates(old, updates)], [*states, state]
        return (Pair(*moved), Pair(*states), progress), None

    def update(params, opt_states, trajectory, progress, key):
        value = networks.critic.apply(params.critic, trajectory.obs)[..., 0]
        next_value = networks.critic.apply(params.critic, trajectory.next_obs)[..., 0]
        advantage = advantages(trajectory, value, next_value, config)
        data = (trajectory, advantage, advantage + value)

        def of_epoch(carry, numbered):
            epoch, key = numbered
            order = jax.random.permutation(key, value.size).reshape(config.num_minibatches, -1)
            minibatches = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[order], data)
            return jax.lax.scan(descend, carry, (minibatches, jnp.full(config.num_minibatches, epoch)))

        numbered = (jnp.arange(config.num_epochs), jax.random.split(key, config.num_epochs))
        (params, opt_states, _), _ = jax.lax.scan(of_epoch, (params, opt_states, progress), numbered)
        return params, opt_states

    return update


def make_learner(env, env_params, networks, txs, drift, config):
    """A function of a learner's state: all updates, and the mean return of the episodes that ended in each."""
    update = make_update(networks, txs, drift, config)

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
        params, opt_states = update(state.params, state.opt_states, seen, progress, learn_key)
        return state._replace(params=params, opt_states=opt_states), jnp.mean(returns, where=seen.finished)

    return lambda state: jax.lax.scan(of_update, state, jnp.arange(config.num_updates))


def train(key, discovered, optimizer=None, config=Config(), env_name="CartPole-v1"):
    """Learner states and returns of all replicas, [devices, batches, ...].

    Args:
        key: of everything.
        discovered: an objective with a drift.
        optimizer: a `WithOptimizer`, of which the optimizer is used; Adam alone if there is none.
        config: sizes and settings.
        env_name: of gymnax.
    """
    env, env_params = gymnax.make(env_name)
    networks = Pair(Network(env.num_actions, config.width), Network(1, config.width))
    actor_key, critic_key, noise_key, env_key, life_key = jax.random.split(key, 5)
    txs = optimizers(config, discovered if optimizer is None else optimizer, noise_key)
    replicas = (jax.local_device_count(), config.num_batches)
    reset = jax.vmap(jax.vmap(jax.vmap(env.reset, (0, None)), (0, None)), (0, None))
    obs, env_state = reset(jax.random.split(env_key, (*replicas, config.num_envs)), env_params)
    params = Pair(*(net.init(key, obs[0, 0]) for net, key in zip(networks, (actor_key, critic_key))))
    params = Pair(*({"params": each["params"]} for each in params))  # without what is sown
    opt_states = Pair(*(tx.init(each) for tx, each in zip(txs, params)))
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*replicas, *jnp.shape(leaf))), (params, opt_states))
    keys, returns = jax.random.split(life_key, replicas), jnp.zeros((*replicas, config.num_envs))
    learner = make_learner(env, env_params, networks, txs, discovered.drift, config)
    learn = jax.pmap(jax.vmap(learner, axis_name="batch"), axis_name="device")
    return learn(LearnerState(*same, keys, env_state, obs, returns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a discovered drift (LPO, TA-LPO): a name, a run's folder, an objective")
    parser.add_argument("--optimizer", help="a discovered objective with an optimizer, of which that is used")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    known = parser.parse_args()
    optimizer = known.optimizer and metadisco.load(known.optimizer)
    _, returns = train(jax.random.key(known.seed), metadisco.load(known.checkpoint), optimizer)
    for begin in range(0, returns.shape[-1], 8):
        print(f"updates {begin:3} to {begin + 8:3}: mean return {jnp.nanmean(returns[..., begin : begin + 8]):.1f}")


if __name__ == "__main__":
    main()
