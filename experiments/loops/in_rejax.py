"""Discovered objectives in another library, rejax, on CartPole: a drift in its PPO, and any of them in its place.

    pip install rejax
    python experiments/loops/in_rejax.py runs/my-run
    python experiments/loops/in_rejax.py scheduled-a2c-quick

`DriftPPO` is all that a drift needs. `AnyObjective` keeps the networks, train state, minibatches and evaluation, but
not what is learned from a rollout. The rest makes an environment of gymnax 1.0 one that rejax 0.1.3 can step.
"""

import argparse
from collections.abc import Callable

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax
from flax import struct
from gymnax.wrappers import LegacyStepAPIWrapper
from rejax import PPO
from rejax.algos.algorithm import register_init
from rejax.networks import MLP

import metadisco


class DriftPPO(PPO):
    drift: Callable = struct.field(pytree_node=False, default=None)  # drift(ratio, advantage, progress)

    def update_actor(self, state, batch):
        def loss(params):
            seen = batch.trajectories
            log_prob, entropy = self.actor.apply(params, seen.obs, seen.action, method="log_prob_entropy")
            ratio = jnp.exp(log_prob - seen.log_prob)
            advantage = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
            done = state.global_step - self.num_envs * self.num_steps  # before this rollout
            progress = jnp.clip(done / self.total_timesteps, 0.0, 1.0)  # rejax may train a little longer
            objective = ratio * advantage - self.drift(ratio, advantage, progress)
            return -objective.mean() - self.ent_coef * entropy.mean()

        grads = jax.grad(loss)(state.actor_ts.params)
        return state.replace(actor_ts=state.actor_ts.apply_gradients(grads=grads))


class Prediction(nn.Module):
    """In place of rejax's critic, for objectives with a prediction of more numbers than one."""

    size: int
    hidden_layer_sizes: tuple
    activation: Callable

    def setup(self):
        self.features = MLP(self.hidden_layer_sizes, self.activation)
        self.prediction = nn.Dense(self.size)

    def __call__(self, obs):
        return self.prediction(self.features(obs))


def layers(params):
    """Of an actor or a prediction: hidden layers, then the head."""
    names = dict(params["params"])
    return [*names.pop("features").values(), *names.values()]


class AnyObjective(PPO):
    """For discrete actions."""

    discovered: metadisco.Discovered = struct.field(pytree_node=False, default=None)

    @classmethod
    def create_agent(cls, config, env, env_params):
        actor = super().create_agent(config, env, env_params)["actor"]
        _, size = heads(config["discovered"], env, env_params).values()
        return {"actor": actor, "critic": Prediction(size, actor.hidden_layer_sizes, actor.activation)}

    @property
    def rule(self):
        (_, prediction) = heads(self.discovered, self.env, self.env_params)

        def apply(params, obs):
            actor, critic = params
            logits = self.actor.apply(actor, obs, method=lambda module, obs: module._action_dist(obs).logits)
            return {"logits": logits, prediction: self.critic.apply(critic, obs)}

        return metadisco.Rule(self.discovered, spec(self.env, self.env_params), apply)

    @register_init
    def initialize_network_params(self, key):
        states = super().initialize_network_params(key)
        actor, critic = states["actor_ts"], states["critic_ts"]
        orders = (lambda params: (layers(params), [])), (lambda params: ([], layers(params)))
        for (name, state), order in zip(states.items(), orders):
            tx = metadisco.wrap_optimizer(state.tx, self.discovered, order, key)
            states[name] = state.replace(tx=tx, opt_state=tx.init(state.params))
        memory = self.rule.init(key, (actor.params, critic.params), self.num_envs)
        return states | {"memory": memory, "num_updates": jnp.zeros((), jnp.int32)}

    def train_iteration(self, state):
        size = self.num_envs * self.num_steps
        progress = metadisco.Progress(state.num_updates, -(-self.total_timesteps // size))
        state, seen = self.collect_trajectories(state)
        params = (state.actor_ts.params, state.critic_ts.params)
        targets, memory = self.rule.targets(params, state.memory, seen, progress)
        told = {"progress": progress, "factors": self.rule.step_factors(targets)}

        def descend(state, batch):
            targets, seen = batch
            params = (state.actor_ts.params, state.critic_ts.params)
            grads, _ = jax.grad(self.rule.loss, has_aux=True)(params, targets, seen, progress)
            moved = [step(each, grad, told) for each, grad in zip((state.actor_ts, state.critic_ts), grads)]
            return state.replace(actor_ts=moved[0], critic_ts=moved[1]), None

        def epoch(state, key):
            return jax.lax.scan(descend, state, self.shuffle_and_split((targets, seen), key))

        key, rest = jax.random.split(state.rng)
        state = state.replace(rng=rest, memory=memory, num_updates=state.num_updates + 1)
        return jax.lax.scan(epoch, state, jax.random.split(key, self.num_epochs))[0]

    def collect_trajectories(self, state):
        def act(state, _):
            rest, action_key, step_key = jax.random.split(state.rng, 3)
            sampled = self.actor.apply(state.actor_ts.params, state.last_obs, action_key, method="action_log_prob")
            keys = jax.random.split(step_key, self.num_envs)
            obs, env_state, reward, done, info = self.vmap_step(keys, state.env_state, sampled[0], self.env_params)
            ends = info["terminated"], info["truncated"] & ~info["terminated"]
            seen = metadisco.Trajectory(state.last_obs, *sampled, reward, *ends, info["final_observation"])
            steps = state.global_step + self.num_envs
            changed = {"rng": rest, "env_state": env_state, "last_obs": obs, "last_done": done, "global_step": steps}
            return state.replace(**changed), seen

        return jax.lax.scan(act, state, length=self.num_steps)


def step(state, grads, told):
    """`TrainState.apply_gradients`, for optimizers that are told more than gradients."""
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params, **told)
    return state.replace(step=state.step + 1, params=optax.apply_updates(state.params, updates), opt_state=opt_state)


def spec(env, env_params) -> metadisco.EnvSpec:
    """Spaces of an environment of gymnax, with discrete actions."""
    box = metadisco.Box(env.observation_space(env_params).shape)
    return metadisco.EnvSpec(box, metadisco.Discrete(env.action_space(env_params).n))


def heads(discovered, env, env_params) -> dict[str, int]:
    """The policy, then the prediction."""
    return discovered.objective.heads(spec(env, env_params))


class FiveValueSteps(LegacyStepAPIWrapper):
    """rejax copies its settings, and gymnax's wrapper cannot be copied."""

    def __deepcopy__(self, memo):
        return self


def create(algorithm: type[PPO], **settings) -> PPO:
    """An algorithm of rejax on CartPole."""
    env, env_params = gymnax.make("CartPole-v1")
    return algorithm.create(env=FiveValueSteps(env), env_params=env_params, **settings)


def agent_of(discovered: metadisco.Discovered, **settings) -> PPO:
    """rejax's PPO with the drift, if there is one, and else an agent of the objective."""
    if isinstance(discovered.objective, metadisco.MirrorLearning):
        return create(DriftPPO, drift=discovered.drift, **settings)
    agent = create(AnyObjective, discovered=discovered, **settings)
    if agent.rule.uses_importance_ratio:
        return agent
    return agent.replace(num_epochs=1, num_minibatches=1, learning_rate=1e-2)  # one step on each rollout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="one of metadisco.zoo_names(), a run's folder or a portable objective")
    parser.add_argument("--steps", type=int, default=131_072, help="of the environment [default: 131072]")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    known = parser.parse_args()
    size = {"total_timesteps": known.steps, "eval_freq": max(known.steps // 8, 1), "num_envs": 16}
    agent = agent_of(metadisco.load(known.checkpoint), **size)
    _, (_, returns) = jax.jit(agent.train)(jax.random.key(known.seed))
    for point, mean in enumerate(returns.mean(axis=1)):
        print(f"{point * agent.eval_freq:>8,} steps: mean return {mean:.1f}")


if __name__ == "__main__":
    main()
