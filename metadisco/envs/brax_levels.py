"""Levels of brax environments: factors on the physics, drawn from ranges."""

import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from metadisco.core.config import nearest
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key
from metadisco.envs.brax_adapter import FACTORS, Brax, BraxLevel

LONGEST_STEP = 0.1  # of a mutation, as a share of the range


@own_defaults
@dataclass(frozen=True)
class BraxLevels:
    """Independent, uniform factors; those without a range are 1, as published.

    Attributes:
        env: what the levels are for.
        ranges: (factor, lowest, highest) for each that varies; see `BraxLevel`. () is always the published level.

    Example:
        >>> import jax
        >>> levels = BraxLevels(Brax("ant"), (("gravity", 0.5, 1.5), ("friction", 0.2, 1.0)))
        >>> level = levels.sample(jax.random.key(0))
        >>> float(level.mass)
        1.0
    """

    env: Brax
    ranges: tuple[tuple[str, float, float], ...] = ()

    def __post_init__(self) -> None:
        names = [name for name, _, _ in self.ranges]
        for name, low, high in self.ranges:
            if name not in FACTORS:
                raise ValueError(f"BraxLevels.ranges: {name!r} is no factor of a level.{nearest(name, FACTORS)}")
            if name not in self.env.factors:
                raise ValueError(
                    f"BraxLevels.ranges: {name!r} makes no difference in {self.env.name!r}, where nothing touches; "
                    f"vary {', '.join(self.env.factors)} instead"
                )
            if names.count(name) > 1:
                raise ValueError(f"BraxLevels.ranges has {name!r} more than once; give it one range")
            if not (0.0 < low <= high and math.isfinite(high)):
                raise ValueError(f"BraxLevels.ranges: {name!r} needs 0 < lowest <= highest, got {low} and {high}")

    def sample(self, key: Key) -> BraxLevel:
        """One level."""
        low, high = self._ends
        return self._with(self.env.default_level, low + (high - low) * jax.random.uniform(key, low.shape))

    def mutate(self, key: Key, level: BraxLevel) -> BraxLevel:
        """Move every factor that varies by up to a tenth of its range, reflected at the ends."""
        low, high = self._ends
        factors = jnp.stack([getattr(level, name) for name, _, _ in self.ranges]) if self.ranges else low
        step = (high - low) * jax.random.uniform(key, low.shape, minval=-LONGEST_STEP, maxval=LONGEST_STEP)
        moved = low + jnp.abs(factors + step - low)
        # Clipped as well: a reflected sum is rounded, and the level may not have been of this distribution.
        return self._with(level, jnp.clip(high - jnp.abs(high - moved), low, high))

    @property
    def _ends(self) -> tuple[jax.Array, jax.Array]:
        low = jnp.array([low for _, low, _ in self.ranges], jnp.float32)
        high = jnp.array([high for _, _, high in self.ranges], jnp.float32)
        return low, high

    def _with(self, level: BraxLevel, factors: jax.Array) -> BraxLevel:
        return replace(level, **{name: factors[i] for i, (name, _, _) in enumerate(self.ranges)})
