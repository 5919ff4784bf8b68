"""The environments of gymnax 1.0.1 (https://github.com/RobertTLange/gymnax): classic control, bsuite, MinAtar and more.

A level is gymnax's own `EnvParams`, every field an array: masses and lengths, the episode's length
(`max_steps_in_episode`), switches. What changes the shape of an array, such as the rows of Catch, is an option of the
environment instead. gymnax's `step_env` and `reset_env` are called directly, because its `step` resets on its own.

Importing gymnax is slow and puts arrays on a device, so it waits for the first use of an environment; what can be
checked at construction is checked against the names below.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.config import nearest
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Obs
from metadisco.envs.base import Box, Discrete, EnvSpec, Level, State, Step

Option = bool | int | float | str


def _from(least: int) -> range:
    return range(least, 10_000)


_MINATAR: dict[str, range | type] = {"use_minimal_action_set": bool}
# Constructor arguments that are scalars: of an integer, the values that make sense; of another, its type.
_OPTIONS: dict[str, dict[str, range | type]] = {
    "CartPole-v1": {},
    "Pendulum-v1": {},
    "Acrobot-v1": {},
    "MountainCar-v0": {},
    "MountainCarContinuous-v0": {},
    "Asterix-MinAtar": _MINATAR,
    "Breakout-MinAtar": _MINATAR,
    "Freeway-MinAtar": _MINATAR,
    "Seaquest-MinAtar": _MINATAR,
    "SpaceInvaders-MinAtar": _MINATAR,
    "Catch-bsuite": {"rows": _from(2), "columns": _from(1)},
    "DeepSea-bsuite": {"size": _from(1)},
    "MemoryChain-bsuite": {"num_bits": _from(1)},
    "UmbrellaChain-bsuite": {"n_distractor": _from(0)},
    "DiscountingChain-bsuite": {"n_actions": range(1, 6), "mapping_seed": range(5)},
    "SimpleBandit-bsuite": {"num_actions": _from(1)},
    "FourRooms-misc": {"use_visual_obs": bool},
    "MetaMaze-misc": {"maze_size": _from(1), "rf_size": _from(3)},
    "PointRobot-misc": {},
    "BernoulliBandit-misc": {},
    "GaussianBandit-misc": {},
    "Reacher-misc": {"num_joints": range(2, 3)},  # its observation only fits together for two
    "Swimmer-misc": {"num_urchins": _from(0)},
    "Pong-misc": {"width": _from(5), "height": _from(5), "paddle_half_height": _from(1)},
    "FrozenLake-misc": {"map_name": str, "is_slippery": bool, "success_rate": float},
}
ENVIRONMENTS: tuple[str, ...] = tuple(_OPTIONS)


@struct.dataclass
class StepKeys:
    """All randomness of a step and of a reset after it. A rollout gives both to both."""

    step: Key  # []
    reset: Key  # []


@own_defaults
@dataclass(frozen=True)
class Gymnax:
    """An environment of gymnax, by its name there.

    Observations are float32 arrays, or an index where gymnax has a scalar (FrozenLake). Continuous actions are in
    [-1, 1] and stretched to the bounds of the level. Where an episode terminates in its last step it does not count as
    truncated, too.

    Attributes:
        name: one of `ENVIRONMENTS`.
        options: (argument, value) of gymnax's constructor, for its arguments that are scalars.

    Note:
        Some dynamics are not what their names promise. The arms of SimpleBandit are drawn anew in every episode, which
        is one step, so there is nothing to learn. MetaMaze moves an agent that found the goal elsewhere, and its
        episode terminates only if that happens to be the goal again. In MemoryChain the first observation comes twice.
        The field of Pong has no border at the top: the ball may leave it and come back no more.
        The images of FourRooms (`use_visual_obs`) show the agent with row and column exchanged.

    Example:
        >>> from metadisco.envs.gymnax_adapter import Gymnax
        >>> Gymnax("CartPole-v1").spec
        EnvSpec(observation=Box(shape=(4,), low=-inf, high=inf), action=Discrete(num=2))
        >>> Gymnax("Catch-bsuite", (("rows", 6),)).spec.observation.shape
        (6, 5)
    """

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    def __post_init__(self) -> None:
        if self.name == "MNISTBandit-bsuite":
            raise ValueError(
                "Gymnax.name 'MNISTBandit-bsuite' is left out because gymnax downloads its images when it is made; "
                f"use another bandit, such as 'BernoulliBandit-misc'. Valid: {', '.join(ENVIRONMENTS)}."
            )
        if self.name not in _OPTIONS:
            raise ValueError(f"Gymnax.name {self.name!r} is unknown.{nearest(self.name, ENVIRONMENTS)}")
        if len(dict(self.options)) < len(self.options):
            raise ValueError(f"Gymnax.options has an option twice: {self.options}; give each once")
        for option, value in self.options:
            _check_option(self.name, option, value)

    @property
    def spec(self) -> EnvSpec:
        """Spaces; those of gymnax say too little or the wrong thing, so shapes are those of what it returns."""
        return _spec(self)

    @property
    def default_level(self) -> Level:
        """gymnax's default parameters as arrays: [] each, but for a few vectors."""
        with jax.ensure_compile_time_eval():
            return _as_arrays(_build(self).default_params)

    def noise(self, key: Key, shape: tuple[int, ...]) -> StepKeys:
        """Keys [*shape]: those that gymnax's own `step` makes of `jax.random.split(key, shape)`."""
        split = jax.random.split
        for _ in shape:
            split = jax.vmap(split)
        pairs = split(jax.random.split(key, shape))
        return StepKeys(step=pairs[..., 0], reset=pairs[..., 1])

    def reset(self, noise: StepKeys, level: Level) -> tuple[Obs, State]:
        """Begin an episode."""
        obs, state = _build(self).reset_env(noise.reset, _as_arrays(level))
        return self._observation(obs), _as_arrays(state)

    def step(self, noise: StepKeys, state: State, action: jax.Array, level: Level) -> tuple[Obs, State, Step]:
        """Act once. `action` is [] int32, or [D] float32 in [-1, 1]."""
        env, level = _build(self), _as_arrays(level)
        obs, next_state, reward, terminated, _ = env.step_env(noise.step, state, self._action(action, level), level)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(env.is_truncated(next_state, level), bool) & ~terminated
        return self._observation(obs), next_state, Step(jnp.asarray(reward, jnp.float32), terminated, truncated)

    def _observation(self, obs: jax.Array) -> Obs:
        return jnp.asarray(obs, jnp.int32 if isinstance(self.spec.observation, Discrete) else jnp.float32)

    def _action(self, action: jax.Array, level: Level) -> jax.Array:
        """What gymnax is given."""
        if isinstance(self.spec.action, Discrete):
            return jnp.asarray(action, jnp.int32)
        bounds = _build(self).action_space(level)
        return 0.5 * (bounds.high + bounds.low) + 0.5 * (bounds.high - bounds.low) * action


def _check_option(name: str, option: str, value: Option) -> None:
    options: Mapping[str, range | type] = _OPTIONS[name]
    if option not in options:
        raise ValueError(f"Gymnax.options has {option!r}, which {name} does not take.{nearest(option, options)}")
    wanted = options[option]
    if isinstance(wanted, range):
        is_valid = type(value) is int and value in wanted
        expected = f"an integer from {wanted.start} to {wanted.stop - 1}"
    else:
        is_valid = type(value) is wanted or (wanted is float and type(value) is int)
        expected = f"a {wanted.__name__}"
    if not is_valid:
        raise ValueError(f"Gymnax.options: {option} of {name} must be {expected}, got {value!r}")


@functools.cache
def _build(env: Gymnax) -> Any:
    """The environment of gymnax. Raises ValueError where gymnax refuses the options."""
    # It holds arrays, and so do gymnax's modules: they must be real ones even if the first use is within a trace.
    with jax.ensure_compile_time_eval():
        import gymnax

        try:
            return gymnax.make(env.name, **dict(env.options))[0]
        except (AssertionError, ValueError) as error:
            reason = str(error) or "sizes of MetaMaze must be odd"
            raise ValueError(f"gymnax cannot make {env.name} with Gymnax.options {env.options}: {reason}") from error


@functools.cache
def _spec(env: Gymnax) -> EnvSpec:
    made, level = _build(env), env.default_level  # imports gymnax as it must be

    from gymnax.environments import spaces

    obs, _ = jax.eval_shape(made.reset_env, jax.eval_shape(jax.random.key, 0), level)
    with jax.ensure_compile_time_eval():
        observations, actions = made.observation_space(level), made.action_space(level)
    is_index = obs.shape == () and isinstance(observations, spaces.Discrete)
    return EnvSpec(
        Discrete(int(observations.n)) if is_index else Box(obs.shape),
        Discrete(int(actions.n)) if isinstance(actions, spaces.Discrete) else Box(tuple(actions.shape), -1.0, 1.0),
    )


def _as_arrays(tree: Any) -> Any:
    """Python numbers as arrays of a type that does not give way to others."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)
