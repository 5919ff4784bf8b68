"""Any environment that gymnasium can make, stepped on the host."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from metadisco.core.jax_defaults import own_defaults
from metadisco.envs.base import EnvSpec
from metadisco.envs.host import require, spec_of

Option = bool | int | float | str


@own_defaults
@dataclass(frozen=True)
class Gymnasium:
    """A vector of environments that gymnasium makes by name.

    Attributes:
        name: as gymnasium registers it; `module:NAME` imports a module that registers it first.
        options: (argument, value) of the environment's constructor.

    Example:
        >>> Gymnasium("CartPole-v1").spec.num_actions
        2
    """

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    @property
    def spec(self) -> EnvSpec:
        """Of the environment, which is made once to ask it."""
        return _spec(self)

    def check(self) -> None:
        """Raise ConfigError where the module of the name is not installed."""
        module, colon, _ = self.name.partition(":")
        if colon:
            require(module, needed_by=self.name, install=f"pip install {module} (see docs/metaworld.md for metaworld)")

    def make(self, num_workers: int, *, training: bool) -> Any:
        """One process steps all workers, one after the other. Training and evaluation are the same."""
        del training
        self.check()
        import gymnasium
        from gymnasium.vector import AutoresetMode

        options: dict[str, Any] = dict(self.options)
        try:
            return gymnasium.make_vec(
                self.name,
                num_envs=num_workers,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
                **options,
            )
        except (gymnasium.error.Error, TypeError) as error:
            raise ValueError(f"gymnasium cannot make {self.name} with options {self.options}: {error}") from error

    def observe(self, obs: np.ndarray) -> np.ndarray:
        """As they are."""
        return obs


@functools.cache
def _spec(source: Gymnasium) -> EnvSpec:
    vector = source.make(1, training=False)
    try:
        return spec_of(vector.single_observation_space, vector.single_action_space, name=source.name)
    finally:
        vector.close()
