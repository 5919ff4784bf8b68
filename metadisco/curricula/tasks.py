"""Task distributions: one over levels and one over lifetimes.

One that can make a small change of a task is `Mutable`; one that says how a task is made by discrete choices is
`Designable` (`metadisco.envs.level_design`).
"""

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp

from metadisco.core.config import check_counts
from metadisco.core.files import leaf_types
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Task
from metadisco.envs.base import Level
from metadisco.envs.level_design import Designable, NumberDesign, TaskDesign


class LevelDistribution(Protocol):
    """A source of levels of one environment."""

    def sample(self, key: Key) -> Level:
        """One level."""


class LifetimeDistribution(Protocol):
    """A source of lifetimes."""

    def sample(self, key: Key) -> jax.Array:
        """One lifetime in agent updates. [] int32, at least 1."""


class TaskDistribution(Protocol):
    """A source of tasks."""

    def sample(self, key: Key) -> Task:
        """One task."""


class HasDefaultLevel(Protocol):
    """An environment that has a level by default."""

    @property
    def default_level(self) -> Level:
        """A pytree of arrays."""


@runtime_checkable
class Mutable(Protocol):
    """A distribution of levels, lifetimes or tasks that can also change a draw a little. `ACCEL` needs it."""

    def mutate(self, key: Key, parent: Any) -> Any:
        """A neighbor of `parent` that the distribution might have drawn too."""


@runtime_checkable
class Uneven(Protocol):
    """A component that says how even the lifetimes are that it offers. Optional; one that does not counts as even."""

    @property
    def evenness(self) -> float:
        """The mean lifetime over the longest, in (0, 1]."""


@own_defaults
@dataclass(frozen=True)
class OneLevel:
    """The only level of an environment that has no arrays to vary.

    Example:
        >>> OneLevel().sample(jax.random.key(0))
        ()
    """

    def sample(self, key: Key) -> Level:
        """Nothing: the environment is as it is."""
        del key
        return ()


@own_defaults
@dataclass(frozen=True)
class DefaultLevel:
    """The level that an environment has by default, always.

    Attributes:
        env: with `default_level`.
    """

    env: HasDefaultLevel

    def sample(self, key: Key) -> Level:
        """The default level."""
        del key
        return self.env.default_level


@own_defaults
@dataclass(frozen=True)
class FixedLifetime:
    """The same lifetime for all agents.

    Attributes:
        num_updates: agent updates.
    """

    num_updates: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "num_updates")

    def sample(self, key: Key) -> jax.Array:
        """The lifetime. [] int32."""
        del key
        return jnp.asarray(self.num_updates, jnp.int32)

    def mutate(self, key: Key, lifetime: jax.Array) -> jax.Array:
        """The same lifetime. [] int32."""
        del key
        return lifetime

    def at(self, share: jax.Array) -> jax.Array:
        """The lifetime. [] int32."""
        del share
        return jnp.asarray(self.num_updates, jnp.int32)

    def design(self, num_bins: int) -> NumberDesign:
        """A single option, whatever the number of bins."""
        del num_bins
        return NumberDesign(self, 1)


@own_defaults
@dataclass(frozen=True)
class LogUniformLifetime:
    """Lifetimes whose logarithm is uniform (arXiv:2402.05828 trains on [10, 250]).

    Attributes:
        shortest: in agent updates.
        longest: in agent updates, inclusive.
    """

    shortest: int = 10
    longest: int = 250

    def __post_init__(self) -> None:
        check_counts(self, "shortest", "longest")
        if self.shortest > self.longest:
            raise ValueError(
                f"LogUniformLifetime needs shortest <= longest, got shortest={self.shortest}, longest={self.longest}"
            )

    @property
    def evenness(self) -> float:
        """The mean lifetime over the longest."""
        if self.shortest == self.longest:
            return 1.0
        return (1.0 - self.shortest / self.longest) / math.log(self.longest / self.shortest)

    def sample(self, key: Key) -> jax.Array:
        """A lifetime. [] int32."""
        return self.at(jax.random.uniform(key))

    def at(self, share: jax.Array) -> jax.Array:
        """The lifetime at a share of the logarithmic range. [] int32."""
        low, high = jnp.log(self.shortest), jnp.log(self.longest)
        exponent = share * (high - low) + low
        return jnp.clip(jnp.round(jnp.exp(exponent)), self.shortest, self.longest).astype(jnp.int32)

    def design(self, num_bins: int) -> NumberDesign:
        """Bins of the logarithm."""
        return NumberDesign(self, num_bins if self.shortest < self.longest else 1)

    def mutate(self, key: Key, lifetime: jax.Array) -> jax.Array:
        """Multiply by a factor of up to (longest / shortest)^0.1 or its inverse, clipped. [] int32."""
        for_step, for_dither = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        factor = jnp.exp(for_step * 0.1 * (jnp.log(self.longest) - jnp.log(self.shortest)))
        # Without dither a lifetime of a few updates would always be rounded back to itself.
        moved = jnp.round((lifetime + 0.5 * for_dither) * factor)
        return jnp.clip(moved, self.shortest, self.longest).astype(jnp.int32)


@runtime_checkable
class DrawsTasks(Protocol):
    """A curriculum whose new tasks come from one distribution. Optional."""

    @property
    def tasks(self) -> TaskDistribution:
        """The distribution."""


@own_defaults
@dataclass(frozen=True)
class Tasks:
    """Levels and lifetimes drawn independently.

    Attributes:
        levels: distribution of levels.
        lifetimes: distribution of lifetimes.

    Example:
        >>> import jax
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> task = Tasks(GridLevels(), FixedLifetime(64)).sample(jax.random.key(0))
        >>> int(task.lifetime)
        64
    """

    levels: LevelDistribution
    lifetimes: LifetimeDistribution = LogUniformLifetime()

    def sample(self, key: Key) -> Task:
        """One task."""
        level_key, lifetime_key = jax.random.split(key)
        return Task(self.levels.sample(level_key), self.lifetimes.sample(lifetime_key))

    def mutate(self, key: Key, task: Task) -> Task:
        """A neighbor in level and lifetime; both distributions must be `Mutable`, see `immutable_parts`."""
        level_key, lifetime_key = jax.random.split(key)
        return Task(
            cast(Mutable, self.levels).mutate(level_key, task.level),
            cast(Mutable, self.lifetimes).mutate(lifetime_key, task.lifetime),
        )

    def design(self, num_bins: int) -> TaskDesign:
        """Level by choice, then lifetime; both distributions must be `Designable`, see `undesignable_parts`."""
        levels, lifetimes = cast(Designable, self.levels), cast(Designable, self.lifetimes)
        return TaskDesign(levels.design(num_bins), lifetimes.design(num_bins))


@own_defaults
@dataclass(frozen=True)
class TaskMixture:
    """Several distributions of tasks for one environment, each as likely as the others.

    A curriculum may also choose among the parts, see `SelfEvolvingCurriculum`.

    Attributes:
        parts: the distributions; the arrays of their tasks have the same types and shapes.

    Example:
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> levels = GridLevels()
        >>> tasks = TaskMixture((Tasks(levels, FixedLifetime(16)), Tasks(levels, FixedLifetime(64))))
        >>> int(tasks.draw(jax.random.key(0), 1).lifetime)
        64
    """

    parts: tuple[TaskDistribution, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("TaskMixture.parts is empty; give at least one distribution, such as Tasks(GridLevels())")
        first, *others = (leaf_types(_shapes(part)) for part in self.parts)
        for i, other in enumerate(others, start=1):
            for name in dict.fromkeys([*first, *other]):
                if first.get(name) != other.get(name):
                    raise ValueError(
                        f"TaskMixture.parts: tasks must have the same arrays in all parts, and {name} is "
                        f"{first.get(name, 'absent')} in part 0 and {other.get(name, 'absent')} in part {i}; use "
                        "levels of one size, such as EmbeddedLevels for smaller grid worlds"
                    )

    def sample(self, key: Key) -> Task:
        """One task, from a part that is drawn uniformly."""
        part_key, task_key = jax.random.split(key)
        return self.draw(task_key, jax.random.randint(part_key, (), 0, len(self.parts)))

    def draw(self, key: Key, part: jax.Array | int) -> Task:
        """One task of a part, [] int32."""
        return jax.lax.switch(part, [each.sample for each in self.parts], key)


def evenness(component: Any) -> float:
    """How even the lifetimes are that a curriculum offers: the mean over the longest, as their distribution has it.

    Args:
        component: a curriculum, or a part of one. 1 where no part of it says.
    """
    if isinstance(component, Uneven):
        return float(component.evenness)
    parts: tuple[Any, ...] = component if isinstance(component, tuple) else ()
    if is_dataclass(component):
        parts = tuple(getattr(component, field.name) for field in fields(component))
    return min((evenness(part) for part in parts), default=1.0)


def immutable_parts(tasks: TaskDistribution) -> list[str]:
    """Names of the classes in a task distribution that would have to be `Mutable` and are not."""
    return [type(part).__name__ for part in _parts(tasks) if not isinstance(part, Mutable)]


def undesignable_parts(tasks: TaskDistribution) -> list[str]:
    """Names of the classes in a task distribution that would have to be `Designable` and are not."""
    return [type(part).__name__ for part in _parts(tasks) if not isinstance(part, Designable)]


def _parts(tasks: TaskDistribution) -> tuple[Any, ...]:
    """What a task is drawn from: `Tasks` has the methods of both protocols, but only hands them on to its parts."""
    return (tasks.levels, tasks.lifetimes) if isinstance(tasks, Tasks) else (tasks,)


def _shapes(tasks: TaskDistribution) -> Task:
    """A task without its numbers."""
    return jax.eval_shape(tasks.sample, jax.eval_shape(jax.random.key, 0))
