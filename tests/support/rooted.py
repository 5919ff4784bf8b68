"""An objective that makes a NaN on purpose."""

from dataclasses import dataclass

import jax.numpy as jnp

from tests.support import two_states


@dataclass(frozen=True)
class Rooted(two_states.Linear):
    """From the second update on its loss takes the root of something negative."""

    def loss(self, meta_params, targets, outputs, trajectory, progress):
        loss, metrics = super().loss(meta_params, targets, outputs, trajectory, progress)
        return loss * jnp.sqrt(0.5 - progress.num_updates.astype(jnp.float32)), metrics
