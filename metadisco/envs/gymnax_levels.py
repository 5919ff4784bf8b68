"""Levels of gymnax environments: parameters drawn from ranges, such as poles of different lengths.

Parameters that gymnax computes from others once, when its defaults are written down, are computed again for every
level; they cannot have a range of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp

from metadisco.core.config import nearest
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key
from metadisco.envs.base import Level
from metadisco.envs.gridworld.levels import uniform_integer
from metadisco.envs.gymnax_adapter import Gymnax

_LARGEST_INTEGER = 2**24  # up to which float32, in which numbers are drawn, has every integer
_SHARE = 0.1  # of a range, by which a mutation moves a number at most

_DERIVED: dict[str, dict[str, Callable[[Level], jax.Array]]] = {
    "CartPole-v1": {
        "total_mass": lambda level: level.masspole + level.masscart,
        "polemass_length": lambda level: level.masspole * level.length,
    },
    # The time of an episode's end, by which the observation of the time is scaled to [min_lim, max_lim].
    "BernoulliBandit-misc": {"t_max": lambda level: level.max_steps_in_episode},
}


@own_defaults
@dataclass(frozen=True)
class GymnaxLevels:
    """Levels whose parameters are uniform in ranges, and gymnax's defaults where there is none.

    Attributes:
        env: the environment that the levels are for.
        ranges: (field, low, high) of gymnax's parameters, both ends included. Integers are drawn as integers; a
            switch is one with the range 0 to 1. Without ranges every level is the default one.

    Example:
        >>> import jax
        >>> from metadisco.envs.gymnax_adapter import Gymnax
        >>> levels = GymnaxLevels(Gymnax("CartPole-v1"), (("length", 0.25, 1.0), ("max_steps_in_episode", 100, 500)))
        >>> many = jax.vmap(levels.sample)(jax.random.split(jax.random.key(0), 8))
        >>> many.length.shape
        (8,)
    """

    env: Gymnax
    ranges: tuple[tuple[str, float, float], ...] = ()

    def __post_init__(self) -> None:
        if len({field for field, _, _ in self.ranges}) < len(self.ranges):
            raise ValueError(f"GymnaxLevels.ranges has a field twice: {self.ranges}; give each once")
        if self.ranges:  # else there is nothing to check, and importing gymnax is slow
            for field, low, high in self.ranges:
                self._check_range(field, low, high)

    def _check_range(self, field: str, low: float, high: float) -> None:
        default, name = self.default_level, f"GymnaxLevels.ranges: {field} of {self.env.name}"
        derived = _DERIVED.get(self.env.name, {})
        valid = [known.name for known in fields(default) if known.name not in derived]
        valid = [known for known in valid if getattr(default, known).ndim == 0]
        if field in derived:
            raise ValueError(f"{name} follows from other fields, so it has no range. Valid: {', '.join(valid)}.")
        if field not in valid:
            raise ValueError(f"{name} is no field of its levels.{nearest(field, valid)}")
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"{name} needs finite numbers low <= high, got {low} and {high}")
        if field == "max_steps_in_episode" and low < 1:
            raise ValueError(f"{name} must be at least 1, got the range {low} to {high}")
        dtype = getattr(default, field).dtype
        if jnp.issubdtype(dtype, jnp.bool_) and (low, high) not in ((0, 0), (0, 1), (1, 1)):
            raise ValueError(f"{name} is a switch: its range must be 0 to 1, or one of them, got {low} to {high}")
        if jnp.issubdtype(dtype, jnp.integer):
            is_exact = float(low).is_integer() and float(high).is_integer()
            if not (is_exact and max(-low, high) < _LARGEST_INTEGER):
                raise ValueError(
                    f"{name} is an integer: its range must be of integers below 2**24, got {low} to {high}"
                )

    @property
    def default_level(self) -> Level:
        """The level that gymnax has by default."""
        return self.env.default_level

    def sample(self, key: Key) -> Level:
        """Draw one level."""
        level = self.default_level
        uniforms = jax.random.uniform(key, (len(self.ranges),))
        drawn = {}
        for uniform, (field, low, high) in zip(uniforms, self.ranges):
            dtype = getattr(level, field).dtype
            if jnp.issubdtype(dtype, jnp.floating):
                number = low + uniform * (high - low)
            else:
                number = uniform_integer(uniform, int(low), int(high))
            drawn[field] = jnp.clip(number, low, high).astype(dtype)  # rounding may leave the range
        return self._complete(replace(level, **drawn))

    def mutate(self, key: Key, level: Level) -> Level:
        """Move every parameter that has a range by up to a tenth of it, an integer by up to 1 at least.

        Parameters outside their range come back into it.
        """
        directions = jax.random.uniform(key, (len(self.ranges),), minval=-1.0, maxval=1.0)
        moved = {}
        for direction, (field, low, high) in zip(directions, self.ranges):
            number = getattr(level, field)
            reach = _SHARE * (high - low)
            if jnp.issubdtype(number.dtype, jnp.floating):
                changed = number + direction * reach
            else:
                changed = jnp.round(number + direction * max(reach, 1.0))
            moved[field] = jnp.clip(changed, low, high).astype(number.dtype)
        return self._complete(replace(level, **moved))

    def _complete(self, level: Level) -> Level:
        """Compute the parameters that follow from others."""
        derived = _DERIVED.get(self.env.name, {})
        values = {field: rule(level).astype(getattr(level, field).dtype) for field, rule in derived.items()}
        return replace(level, **values)
