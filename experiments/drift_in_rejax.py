"""A discovered drift in the PPO of another library, rejax, on CartPole.

    pip install rejax
    python experiments/drift_in_rejax.py runs/my-run

`DriftPPO` is all there is to it. The rest makes an environment of gymnax 1.0 one that rejax 0.1.3 can step, and trains.
"""

import argparse
from collections.abc import Callable

import gymnax
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.wrappers import LegacyStepAPIWrapper
from rejax import PPO

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


class FiveValueSteps(LegacyStepAPIWrapper):
    """rejax copies its settings, and gymnax's wrapper cannot be copied."""

    def __deepcopy__(self, memo):
        return self


def create(algorithm: type[PPO], **settings) -> PPO:
    """PPO on CartPole."""
    env, env_params = gymnax.make("CartPole-v1")
    return algorithm.create(env=FiveValueSteps(env), env_params=env_params, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a run's folder or a portable objective, with a drift (LPO, TA-LPO, ...)")
    parser.add_argument("--steps", type=int, default=131_072, help="of the environment [default: 131072]")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    known = parser.parse_args()
    drift = metadisco.load(known.checkpoint).drift
    agent = create(DriftPPO, drift=drift, total_timesteps=known.steps, eval_freq=max(known.steps // 8, 1))
    _, (_, returns) = jax.jit(agent.train)(jax.random.key(known.seed))
    for point, mean in enumerate(returns.mean(axis=1)):
        print(f"{point * agent.eval_freq:>8,} steps: mean return {mean:.1f}")


if __name__ == "__main__":
    main()
