"""Brax's continuous-control environments (arXiv:2106.13281), with some constants of the physics as the level.

Only brax's raw environments and their physics are used. Its wrappers hide the observation that ends an episode and
replay one first state for ever; here every episode begins with a new draw, and time-outs are kept apart from failures.

The level is a set of factors, 1 as published, that the physics is multiplied by within `reset` and `step`: levels can
be vmapped. Brax's spring and positional backends bend masses and inertias before use, m^(1 - s) with an s of each
environment, which is 1 for some: then all links weigh 1 and a factor on m would do nothing. So the bent numbers are
computed once, and the factor is one on what the backend works with.
"""

import contextlib
import copy
import functools
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.config import nearest
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, Obs
from metadisco.envs.base import Box, EnvSpec, Step

NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "walker2d",
)
BACKENDS = ("spring", "generalized", "positional", "mjx")
BROKEN = MappingProxyType(
    {"swimmer": "brax computes its fluid forces with arguments that JAX has removed (jnp.clip(a_min=...))"}
)
WITHOUT_CONTACTS = frozenset({"inverted_double_pendulum", "inverted_pendulum", "reacher"})  # nothing ever touches
FACTORS = ("gravity", "mass", "friction", "motor")


@struct.dataclass
class BraxLevel:
    """Factors on the physics, positive; 1 is the published environment."""

    gravity: jax.Array  # [] float32
    mass: jax.Array  # [] float32, of all links, and their moments of inertia
    friction: jax.Array  # [] float32, of all contacts
    motor: jax.Array  # [] float32, force or torque of the same action


@struct.dataclass
class BraxState:
    """Where an episode is. Brax's reward, metrics and so on are outputs of a step and not kept."""

    physics: Any  # brax's state of the bodies
    time: jax.Array  # [] int32, steps taken


@own_defaults
@dataclass(frozen=True)
class Brax:
    """One of brax's environments on one of its physics backends.

    Actions are brax's own: in [-1, 1], for each actuator, on every backend. Where an actuator has another range
    (inverted_pendulum, pusher, humanoid, humanoidstandup), brax's environment stretches [-1, 1] to it, and the costs of
    control in its reward are of the stretched action. Nothing is rescaled here, so returns compare with published ones
    of the same backend; backends differ in their physics, and their returns do not compare with each other.

    Attributes:
        name: of the environment, as brax spells it.
        backend: of the physics: spring is the fastest on a CPU; mjx is MuJoCo's own.
        episode_length: steps before truncation; published returns are for 1000.

    Example:
        >>> import jax
        >>> env = Brax("inverted_pendulum")
        >>> env.spec.action
        Box(shape=(1,), low=-1.0, high=1.0)
        >>> obs, state = env.reset(env.noise(jax.random.key(0), ()), env.default_level)
        >>> obs.shape
        (4,)
    """

    name: str
    backend: str = "spring"
    episode_length: int = 1000
    reset_is_costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.name in BROKEN:
            raise ValueError(
                f"Brax.name = {self.name!r} does not run: {BROKEN[self.name]}. Of the same kind are 'halfcheetah', "
                "'hopper' and 'walker2d'."
            )
        if self.name not in NAMES:
            raise ValueError(f"Brax.name = {self.name!r} is unknown.{nearest(self.name, NAMES)}")
        if self.backend not in BACKENDS:
            raise ValueError(f"Brax.backend = {self.backend!r} is unknown.{nearest(self.backend, BACKENDS)}")
        if self.episode_length < 1:
            raise ValueError(f"Brax.episode_length must be at least 1, got {self.episode_length}")

    @property
    def spec(self) -> EnvSpec:
        """Spaces: the environment's observation, unbounded; one number in [-1, 1] for each actuator."""
        built = _build(self.name, self.backend)
        return EnvSpec(Box((built.obs_size,)), Box((built.action_size,), -1.0, 1.0))

    @property
    def factors(self) -> tuple[str, ...]:
        """Fields of a level that make a difference in this environment."""
        has_contacts = self.name not in WITHOUT_CONTACTS
        return tuple(name for name in FACTORS if has_contacts or name != "friction")

    @property
    def default_level(self) -> BraxLevel:
        """The published environment."""
        return BraxLevel(**{name: jnp.ones((), jnp.float32) for name in FACTORS})

    def noise(self, key: Key, shape: tuple[int, ...]) -> jax.Array:
        """A key for each of `shape` steps, for a reset after it: a step itself is deterministic."""
        return jax.random.split(key, shape)

    def reset(self, noise: jax.Array, level: BraxLevel) -> tuple[Obs, BraxState]:
        """Begin an episode at a slightly random pose."""
        with _without_warnings():
            first = self._at(level).reset(noise)
        return first.obs.astype(jnp.float32), BraxState(first.pipeline_state, jnp.zeros((), jnp.int32))

    def step(
        self, noise: jax.Array, state: BraxState, action: jax.Array, level: BraxLevel
    ) -> tuple[Obs, BraxState, Step]:
        """Act once. `terminated` is brax's `done`: the robot fell. An action outside [-1, 1] is brax's to handle."""
        del noise
        with _without_warnings():
            after = self._at(level).step(_brax_state(state.physics), action)
        time = state.time + 1
        terminated = after.done > 0.5
        truncated = (time >= self.episode_length) & ~terminated
        step = Step(jnp.asarray(after.reward, jnp.float32), terminated, truncated)
        return after.obs.astype(jnp.float32), BraxState(after.pipeline_state, time), step

    def _at(self, level: BraxLevel) -> Any:
        """Brax's environment with the physics of a level; the one that is shared stays as it is."""
        built = _build(self.name, self.backend)
        env = copy.copy(built.env)
        env.sys = _scale(built.env.sys, level)
        return env


@dataclass(frozen=True)
class _Built:
    """Brax's environment, made once for each name and backend, and its sizes."""

    env: Any
    obs_size: int
    action_size: int


@functools.cache
def _build(name: str, backend: str) -> _Built:
    with _silence():
        from brax import envs

        # Whoever asks first may be inside of a trace; what is kept must be numbers, not tracers.
        with jax.ensure_compile_time_eval():
            env = envs.get_environment(name, backend=backend)
            if backend in ("spring", "positional"):
                env.sys = _bend(env.sys)
        first = jax.eval_shape(lambda: env.reset(jax.random.key(0)))
    return _Built(env, first.obs.shape[-1], env.action_size)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without what is said while an environment is made: lines on stdout, warnings, MuJoCo's file of them."""
    with contextlib.redirect_stdout(io.StringIO()), _without_warnings():
        import mujoco  # type: ignore[import-untyped]

        # MuJoCo's own handler writes MUJOCO_LOG.TXT into the present folder.
        handler = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda message: None)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(handler)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Brax and the libraries under it warn that they are no longer maintained, and of one another's old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _brax_state(physics: Any) -> Any:
    """What brax's step takes. Where a step leaves `done` alone, its 0 says that nothing has ended."""
    from brax.envs import State

    nothing = jnp.zeros((), jnp.float32)
    return State(physics, obs=nothing, reward=nothing, done=nothing, metrics={}, info={})


def _bend(sys: Any) -> Any:
    """The system whose masses and inertias are those that the spring and positional backends make of them."""
    inertia = sys.link.inertia
    moments = jax.vmap(jnp.diagonal)(inertia.i) ** (1.0 - sys.spring_inertia_scale)
    return sys.tree_replace(
        {
            "link.inertia.mass": inertia.mass ** (1.0 - sys.spring_mass_scale),
            "link.inertia.i": jax.vmap(jnp.diag)(moments),
            "spring_mass_scale": jnp.zeros_like(sys.spring_mass_scale),
            "spring_inertia_scale": jnp.zeros_like(sys.spring_inertia_scale),
        }
    )


def _scale(sys: Any, level: BraxLevel) -> Any:
    """The system of a level. Brax's own backends read the first of each group, mjx the others.

    How soft mjx and generalized make their constraints depends on the masses a little; that stays as published.
    """
    inertia = sys.link.inertia
    return sys.tree_replace(
        {
            "gravity": sys.gravity * level.gravity,
            "opt.gravity": sys.opt.gravity * level.gravity,
            "link.inertia.mass": inertia.mass * level.mass,
            "link.inertia.i": inertia.i * level.mass,
            "body_mass": sys.body_mass * level.mass,
            "body_inertia": sys.body_inertia * level.mass,
            "body_subtreemass": sys.body_subtreemass * level.mass,
            "geom_friction": sys.geom_friction * level.friction,
            "actuator.gear": sys.actuator.gear * level.motor,
            "actuator_gear": sys.actuator_gear * level.motor,
        }
    )
