"""Schedules of meta-optimizers' hyper-parameters over meta-steps."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Decay:
    """Exponential decay to a floor: max(floor, start * rate**step).

    Attributes:
        start: value at meta-step 0.
        rate: factor per meta-step, in (0, 1]; 1 is constant.
        floor: smallest value.
    """

    start: float
    rate: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (self.start > 0.0 and math.isfinite(self.start)):
            raise ValueError(f"Decay.start must be positive and finite, got {self.start}")
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"Decay.rate must be in (0, 1], got {self.rate}; 1 keeps the value constant")
        if not 0.0 <= self.floor <= self.start:
            raise ValueError(f"Decay.floor must be between 0 and start={self.start}, got {self.floor}")

    def __call__(self, step: jax.Array) -> jax.Array:
        """Value at `step`. [] float32."""
        return jnp.maximum(self.floor, self.start * self.rate ** jnp.asarray(step, jnp.float32))
