"""Types that all modules share: experience, progress through a lifetime, tasks and their outcomes.

Axis letters used in all shape comments:
`N` tasks (lives), `R` replicas per task, `M = N * R` lives, `T` rollout steps, `B` workers of one agent, `A` actions,
`K` objects of a grid world, `S` tabular observations.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

Key = jax.Array  # a typed PRNG key, `jax.random.key`
Obs = jax.Array
MetaParams = Any  # pytree of arrays; () for a hand-written objective
AgentParams = Any  # pytree of arrays
Population = Any  # meta-parameters with leading axis M; leaves may be `metadisco.core.lowrank.LowRank`
Heads = dict[str, int]  # name of an agent output -> its width
Outputs = dict[str, jax.Array]  # head name -> [..., width]
Metrics = dict[str, jax.Array]  # name -> [] float32


@struct.dataclass
class Trajectory:
    """A rollout of `T` steps by `B` workers, time-major."""

    obs: jax.Array  # [T, B, ...]
    action: jax.Array  # [T, B] int32 or [T, B, D] float32
    log_prob: jax.Array  # [T, B] float32, of `action` under the policy that acted
    reward: jax.Array  # [T, B] float32
    terminated: jax.Array  # [T, B] bool, the episode ended by the environment's own rule: no value after it
    truncated: jax.Array  # [T, B] bool, the episode was cut by time: the value of `next_obs` still counts
    next_obs: jax.Array  # [T, B, ...], before any reset

    @property
    def finished(self) -> jax.Array:
        """Where an episode ended, for whichever reason. [T, B] bool."""
        return self.terminated | self.truncated


@struct.dataclass
class Progress:
    """How far an agent is through its life. The numbers may be Python's where they are known."""

    num_updates: jax.Array  # [] int32, agent updates done (n)
    lifetime: jax.Array  # [] int32, agent updates in all (N)

    @property
    def fraction(self) -> jax.Array:
        """n / N, in [0, 1). [] float32."""
        return jnp.asarray(self.num_updates, jnp.float32) / jnp.asarray(self.lifetime, jnp.float32)

    @property
    def log_lifetime(self) -> jax.Array:
        """Natural logarithm of N. [] float32."""
        return jnp.log(jnp.asarray(self.lifetime, jnp.float32))


@struct.dataclass
class Task:
    """What one agent is trained on: a level, and for how long."""

    level: Any  # pytree of arrays that parameterise the environment
    lifetime: jax.Array  # [] int32, agent updates


@struct.dataclass
class Outcome:
    """The result of a life."""

    fitness: jax.Array  # [] float32, mean undiscounted episode return of the trained agent; higher is better
    num_updates: jax.Array  # [] int32, agent updates done
    metrics: Metrics  # per-life means over the updates done
    score: jax.Array | None = None  # [] float32, how informative the level was; None where it is not needed
