"""Any discovered objective in a training loop of one file, as in PureJaxRL: all of it is one jitted function.

    python experiments/loops/in_purejaxrl_style.py ta-lpo-quick
    python experiments/loops/in_purejaxrl_style.py scheduled-a2c-quick --seed 1

The loop is flax, optax, gymnax and `jax.lax.scan`. metadisco's part is `rule`, `memory` and `tx`: targets of a rollout,
a loss, what the objective remembers, and an optimizer that schedules and learned optimizers have a say in.
"""

import argparse
import math
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

import metadisco


class Config(NamedTuple):
    num_updates: int = 128
    num_envs: int = 16
    num_steps: int = 64
    rate: float = 1e-3
    num_epochs: int = 4
    num_minibatches: int = 4
    width: int = 64


class Runner(NamedTuple):
    params: Any
    opt_state: Any
    memory: Any  # of the objective
    env_state: Any
    obs: jax.Array
    returns: jax.Array  # of the episodes that go on


class Networks(nn.Module):
    """A network of two hidden layers for each output that the objective asks for."""

    heads: tuple[tuple[str, int], ...]
    width: int

    @nn.compact
    def __call__(self, obs):
        outputs = {}
        for name, size in self.heads:
            x, scales = obs.reshape(len(obs), -1), (2**0.5, 2**0.5, 1.0 if name == "value" else 0.01)
            for layer, (width, scale) in enumerate(zip((self.width, self.width, size), scales)):
                x = x if layer == 0 else nn.tanh(x)
                x = nn.Dense(width, kernel_init=nn.initializers.orthogonal(scale), name=f"{name}_{layer}")(x)
            outputs[name] = x
        return outputs


def layers(params):
    """The layers of the policy and of the prediction, for schedules and learned optimizers."""
    (prediction,) = {name[:-2] for name in params["params"]} - {"logits"}
    return tuple([params["params"][f"{name}_{layer}"] for layer in range(3)] for name in ("logits", prediction))


def passes(rule, config):
    """Epochs and minibatches of an update; one step where the loss does not correct for a policy that has changed."""
    return (config.num_epochs, config.num_minibatches) if rule.uses_importance_ratio else (1, 1)


def make_update(rule, tx, config):
    """One update of the agent on a rollout."""
    epochs, batches = passes(rule, config)

    def update(params, opt_state, memory, trajectory, progress, key):
        targets, memory = rule.targets(params, memory, trajectory, progress)
        factors = rule.step_factors(targets)

        def descend(carry, batch):
            (params, opt_state), (trajectory, targets) = carry, batch
            gradients, _ = jax.grad(rule.loss, has_aux=True)(params, targets, trajectory, progress)
            updates, opt_state = tx.update(gradients, opt_state, params, progress=progress, factors=factors)
            return (optax.apply_updates(params, updates), opt_state), None

        def of_epoch(carry, key):
            order = jax.random.permutation(key, trajectory.reward.size).reshape(batches, -1)
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[order], (trajectory, targets))
            return jax.lax.scan(descend, carry, flat)

        (params, opt_state), _ = jax.lax.scan(of_epoch, (params, opt_state), jax.random.split(key, epochs))
        return params, opt_state, memory

    return update


def make_train(discovered, config=Config(), env_name="CartPole-v1"):
    """A function of a key: the mean return of the episodes that ended in each update, NaN where none did."""
    env, env_params = gymnax.make(env_name)
    box = metadisco.Box(env.observation_space(env_params).shape)
    spec = metadisco.EnvSpec(box, metadisco.Discrete(env.num_actions))
    networks = Networks(tuple(discovered.objective.heads(spec).items()), config.width)
    rule = metadisco.Rule(discovered, spec, networks.apply)

    def step_envs(runner, key):
        action_key, step_key = jax.random.split(key)
        log_probs = jax.nn.log_softmax(networks.apply(runner.params, runner.obs)["logits"])
        action = jax.random.categorical(action_key, log_probs)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        keys, step = jax.random.split(step_key, config.num_envs), jax.vmap(env.step, (0, 0, 0, None))
        obs, env_state, reward, terminated, truncated, info = step(keys, runner.env_state, action, env_params)
        truncated, after = truncated & ~terminated, info["final_observation"]  # before the reset
        seen = metadisco.Trajectory(runner.obs, action, log_prob, reward, terminated, truncated, after)
        returns = runner.returns + reward
        going_on = jnp.where(terminated | truncated, 0.0, returns)
        return runner._replace(env_state=env_state, obs=obs, returns=going_on), (seen, returns)

    def train(key):
        net_key, env_key, memory_key, noise_key, key = jax.random.split(key, 5)
        obs, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(env_key, config.num_envs), env_params)
        params = networks.init(net_key, obs)
        rate = config.rate if rule.uses_importance_ratio else 10.0 * config.rate  # for one step in place of sixteen
        steps = config.num_updates * math.prod(passes(rule, config))
        adam = optax.adam(optax.linear_schedule(rate, 0.0, steps), eps=1e-5)
        base = optax.chain(optax.clip_by_global_norm(0.5), adam)
        tx = metadisco.wrap_optimizer(base, discovered, layers, noise_key)
        memory = rule.init(memory_key, params, config.num_envs)
        update = make_update(rule, tx, config)

        def of_update(runner, n):
            act_key, learn_key = jax.random.split(jax.random.fold_in(key, n))
            runner, (seen, returns) = jax.lax.scan(step_envs, runner, jax.random.split(act_key, config.num_steps))
            progress = metadisco.Progress(n, config.num_updates)
            learner = (runner.params, runner.opt_state, runner.memory)
            params, opt_state, memory = update(*learner, seen, progress, learn_key)
            runner = runner._replace(params=params, opt_state=opt_state, memory=memory)
            return runner, jnp.mean(returns, where=seen.finished)

        runner = Runner(params, tx.init(params), memory, env_state, obs, jnp.zeros(config.num_envs))
        return jax.lax.scan(of_update, runner, jnp.arange(config.num_updates))[1]

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="one of metadisco.zoo_names(), a run's folder or a portable objective")
    parser.add_argument("--env", default="CartPole-v1", help="of gymnax, with discrete actions [default: %(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    parser.add_argument("--updates", type=int, default=Config().num_updates, help="[default: %(default)s]")
    known = parser.parse_args()
    train = make_train(metadisco.load(known.checkpoint), Config(num_updates=known.updates), known.env)
    returns = jax.jit(train)(jax.random.key(known.seed))
    for part in range(8):
        begin, end = (known.updates * n // 8 for n in (part, part + 1))
        print(f"updates {begin:4} to {end:4}: mean return {jnp.nanmean(returns[begin:end]):.1f}")


if __name__ == "__main__":
    main()
