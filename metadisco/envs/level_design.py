"""How a task is made by discrete choices, one after the other, so that a network can learn to make tasks.

A design is the rules of a short game: it says which options are legal next, what there is to see of the draft so far,
and what a choice does to it. It is independent of the policy that chooses. Numbers are chosen by bin; a uniform random
number is the position in the bin. A step without a legal option is passed over, so a design of variable length has a
fixed number of steps.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from metadisco.core import trees
from metadisco.core.types import Task

Draft = Any  # pytree of arrays of fixed shapes, what has been made so far


class Design(Protocol):
    """Rules by which a level, a lifetime or a task is made."""

    @property
    def num_steps(self) -> int:
        """Choices, counting those that may be passed over."""

    @property
    def num_options(self) -> int:
        """The most options that a step can have."""

    def begin(self) -> Draft:
        """The empty draft."""

    def options(self, draft: Draft, step: jax.Array) -> jax.Array:
        """Which options are legal at `step` [] int32. [num_options] bool; none where the step is passed over."""

    def observe(self, draft: Draft) -> jax.Array:
        """What there is to see of a draft. [width] float32, of the order of 1."""

    def place(self, draft: Draft, step: jax.Array, option: jax.Array, uniform: jax.Array) -> Draft:
        """Carry out a legal option [] int32; `uniform` [] float32 in [0, 1) says where in its bin a number is."""

    def finish(self, draft: Draft) -> Any:
        """Turn a draft in which every step was made into what it is a draft of."""


@runtime_checkable
class Designable(Protocol):
    """A distribution of levels, lifetimes or tasks that can also be made by choice. `PAIRED` needs it."""

    def design(self, num_bins: int) -> Design:
        """Rules for making whatever the distribution can draw; numbers are chosen from `num_bins` bins."""


class Quantiles(Protocol):
    """A distribution of one number."""

    def at(self, share: jax.Array) -> jax.Array:
        """The number below which lies this share, [] float32 in [0, 1], of the distribution."""


def share_in_bin(option: jax.Array, uniform: jax.Array, num_bins: int) -> jax.Array:
    """The share of a range that is chosen by its bin, and by a uniform number within the bin. float32 in [0, 1]."""
    return (option + uniform).astype(jnp.float32) / num_bins


@dataclass(frozen=True)
class NumberDesign:
    """One number, chosen by its bin; the bins are equally likely under the distribution.

    Attributes:
        numbers: what the number is drawn from.
        num_bins: how many bins.
    """

    numbers: Quantiles
    num_bins: int

    @property
    def num_steps(self) -> int:
        """One."""
        return 1

    @property
    def num_options(self) -> int:
        """The bins."""
        return self.num_bins

    def begin(self) -> jax.Array:
        """The share, not yet chosen."""
        return jnp.zeros((), jnp.float32)

    def options(self, draft: jax.Array, step: jax.Array) -> jax.Array:
        """All of them. [num_options] bool."""
        del draft, step
        return jnp.ones(self.num_bins, bool)

    def observe(self, draft: jax.Array) -> jax.Array:
        """The share. [1] float32."""
        return draft[None]

    def place(self, draft: jax.Array, step: jax.Array, option: jax.Array, uniform: jax.Array) -> jax.Array:
        """A share in the chosen bin."""
        del draft, step
        return share_in_bin(option, uniform, self.num_bins)

    def finish(self, draft: jax.Array) -> jax.Array:
        """The number."""
        return self.numbers.at(draft)


@dataclass(frozen=True)
class TaskDesign:
    """First the level, then its lifetime.

    Attributes:
        level: how the level is made.
        lifetime: how the lifetime is.

    Example:
        >>> import jax.numpy as jnp
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import LogUniformLifetime, Tasks
        >>> design = Tasks(GridLevels(), LogUniformLifetime()).design(num_bins=10)
        >>> design.num_steps, design.num_options
        (40, 100)
        >>> int(jnp.sum(design.options(design.begin(), jnp.int32(0))))  # sides of the room from 4 to 10
        7
    """

    level: Design
    lifetime: Design

    @property
    def num_steps(self) -> int:
        """Those of both."""
        return self.level.num_steps + self.lifetime.num_steps

    @property
    def num_options(self) -> int:
        """Those of the part that has more."""
        return max(self.level.num_options, self.lifetime.num_options)

    def begin(self) -> tuple[Draft, Draft]:
        """Two empty drafts."""
        return self.level.begin(), self.lifetime.begin()

    def options(self, draft: tuple[Draft, Draft], step: jax.Array) -> jax.Array:
        """The options of the part whose turn it is. [num_options] bool."""

        def pad(options: jax.Array) -> jax.Array:
            return jnp.pad(options, (0, self.num_options - options.size))

        of_level = pad(self.level.options(draft[0], step))
        of_lifetime = pad(self.lifetime.options(draft[1], step - self.level.num_steps))
        return jnp.where(step < self.level.num_steps, of_level, of_lifetime)

    def observe(self, draft: tuple[Draft, Draft]) -> jax.Array:
        """Both parts, one after the other. [width] float32."""
        return jnp.concatenate([self.level.observe(draft[0]), self.lifetime.observe(draft[1])])

    def place(
        self, draft: tuple[Draft, Draft], step: jax.Array, option: jax.Array, uniform: jax.Array
    ) -> tuple[Draft, Draft]:
        """Carry out an option of the part whose turn it is."""
        level, lifetime = draft
        num_before = self.level.num_steps
        placed = self.level.place(level, step, option, uniform)
        timed = self.lifetime.place(lifetime, step - num_before, option, uniform)
        is_level = step < num_before
        return trees.where(is_level, placed, level), trees.where(is_level, lifetime, timed)

    def finish(self, draft: tuple[Draft, Draft]) -> Task:
        """The task."""
        return Task(self.level.finish(draft[0]), self.lifetime.finish(draft[1]))
