"""A corridor without randomness, once in JAX and once for gymnasium."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.envs.base import Box, Discrete, EnvSpec, Step

END, LAST = 2, 5  # cells to either side of the start; steps before an episode is cut


@dataclass(frozen=True)
class Corridor:
    """Walk left or right; the episode terminates at either end, of which only the right one pays."""

    spec = EnvSpec(Box((2,)), Discrete(2))

    def noise(self, key, shape):
        return jax.random.uniform(key, shape)

    def reset(self, noise, level):
        return jnp.zeros(2), (jnp.int32(0), jnp.int32(0))

    def step(self, noise, state, action, level):
        cell, time = state[0] + 2 * action - 1, state[1] + 1
        ended = jnp.abs(cell) == END
        reward = jnp.where(cell == END, 1.0, -0.1)
        step = Step(reward.astype(jnp.float32), ended, (time == LAST) & ~ended)
        return jnp.stack([cell, time]).astype(jnp.float32), (cell, time), step


@dataclass(frozen=True)
class HostCorridor:
    """The source of the same corridor. `mode` is the vector environment's way to reset."""

    mode: str = "SameStep"
    spec = Corridor.spec

    def check(self):
        pass

    def make(self, num_workers, *, training):
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        return SyncVectorEnv([_make] * num_workers, autoreset_mode=AutoresetMode(self.mode))

    def observe(self, obs):
        return obs


def _make():
    import gymnasium

    class Env(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.cell, self.time = 0, 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.cell, self.time = self.cell + 2 * int(action) - 1, self.time + 1
            obs = np.array([self.cell, self.time], np.float32)
            reward = 1.0 if self.cell == END else -0.1
            return obs, reward, abs(self.cell) == END, self.time == LAST, {}  # both may be said

    return Env()
