"""Made-up rollouts of an actor-critic and random weights for nets, for objectives by a schedule."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.agents.agent import Agent
from metadisco.agents.networks import Table
from metadisco.core.types import Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives.base import Predictions

NUM_STEPS, NUM_WORKERS, NUM_ACTIONS = 6, 3, 4


@dataclass(frozen=True)  # all are equal, so that they share a compilation
class Known:
    """An agent whose parameters are its outputs along a rollout."""

    def apply(self, agent_params, obs):
        del obs
        return agent_params


def tabular(num_obs):
    """An agent of a table, of which objectives need the spaces."""
    return Agent(Table(), EnvSpec(Discrete(num_obs), Discrete(NUM_ACTIONS)), (("logits", NUM_ACTIONS), ("value", 1)))


def experience(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    terminated = rng.random((NUM_STEPS, NUM_WORKERS)) < 0.2
    truncated = ~terminated & (rng.random((NUM_STEPS, NUM_WORKERS)) < 0.2)
    index = jnp.asarray(np.zeros((NUM_STEPS, NUM_WORKERS), np.int32))
    reward = np.where(rng.random((NUM_STEPS, NUM_WORKERS)) < 0.5, rng.normal(size=(NUM_STEPS, NUM_WORKERS)), 0.0)
    trajectory = Trajectory(
        obs=index,
        action=jnp.asarray(rng.integers(0, NUM_ACTIONS, (NUM_STEPS, NUM_WORKERS)), jnp.int32),
        log_prob=jnp.asarray(np.zeros((NUM_STEPS, NUM_WORKERS), np.float32)),
        reward=jnp.asarray(scale * reward, jnp.float32),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        next_obs=index,
    )
    outputs = {"logits": NUM_ACTIONS, "value": 1}
    draw = lambda width: jnp.asarray(rng.normal(size=(NUM_STEPS, NUM_WORKERS, width)), jnp.float32)  # noqa: E731
    now, after = ({name: draw(width) for name, width in outputs.items()} for _ in range(2))
    return trajectory, Predictions(now, after, agent_params=now, agent=Known())


def visiting(num_obs, seed=0, scale=1.0):
    """A rollout whose observations are drawn, with predictions."""
    trajectory, predictions = experience(seed, scale)
    obs = np.random.default_rng(seed).integers(0, num_obs, trajectory.obs.shape)
    return replace(trajectory, obs=jnp.asarray(obs, jnp.int32)), predictions


@partial(jax.jit, static_argnums=(0, 1))
def random_net(objective, seed=1):
    leaves, structure = jax.tree.flatten(objective.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return jax.tree.unflatten(structure, [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])
