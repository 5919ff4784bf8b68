"""How long an agent's episodes are: what tells a rule how far ahead to look.

A discount that suits episodes of thirty steps is far too low where five hundred steps are given and patience pays.
"""

import jax
import jax.numpy as jnp
from flax import struct

INPUTS = ("episode_length", "longest_episode")
_TYPICAL = 100.0  # steps; lengths are logs beside it, halved


@struct.dataclass
class EpisodeHistory:
    """How long the episodes of one agent have been, in steps."""

    age: jax.Array  # [B] int32, of each worker's episode that goes on
    longest: jax.Array  # [] int32, of all, those that go on included
    num_steps: jax.Array  # [] float32, of all episodes
    num_episodes: jax.Array  # [] float32, begun so far

    @property
    def mean(self) -> jax.Array:
        """Mean length, of those that go on as far as they have come. [] float32."""
        return self.num_steps / self.num_episodes


def none(num_workers: int) -> EpisodeHistory:
    """Before the first step: each worker is about to begin one."""
    nothing = jnp.zeros((), jnp.int32)
    return EpisodeHistory(jnp.zeros(num_workers, jnp.int32), nothing, jnp.float32(0.0), jnp.float32(num_workers))


def observe(state: EpisodeHistory, finished: jax.Array) -> EpisodeHistory:
    """The history after a rollout whose episodes ended at `finished`, [T, B] bool."""
    num_steps = finished.shape[0]
    steps = jnp.arange(1, num_steps + 1)[:, None]
    # Steps of this rollout before each worker's present episode; negative where it began before the rollout.
    ended = jax.lax.cummax(jnp.where(finished, steps, -state.age), axis=0)
    begun = jnp.concatenate([-state.age[None], ended[:-1]])
    return EpisodeHistory(
        age=num_steps - ended[-1],
        longest=jnp.maximum(state.longest, jnp.max(steps - begun)),
        num_steps=state.num_steps + finished.size,
        num_episodes=state.num_episodes + jnp.sum(finished),
    )


def inputs(state: EpisodeHistory) -> dict[str, jax.Array]:
    """Both as inputs of a net, of order 1 where episodes have ten to a thousand steps. [] float32 each."""
    return {
        "episode_length": 0.5 * jnp.log(state.mean / _TYPICAL),
        "longest_episode": 0.5 * jnp.log(state.longest.astype(jnp.float32) / _TYPICAL),
    }
