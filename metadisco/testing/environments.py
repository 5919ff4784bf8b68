"""The contract of environments: what a rollout, and everything above it, relies on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import trees
from metadisco.core.types import Key
from metadisco.envs.base import Box, Discrete, Environment, EnvSpec, Level, Step
from metadisco.testing import contract
from metadisco.testing.contract import Counted, demand

NUM_EXAMPLES = 4  # random walks side by side
STEP = {"reward": jnp.float32, "terminated": jnp.bool_, "truncated": jnp.bool_}


def check_environment(env: Environment, level: Level, *, num_steps: int = 32, run: bool = True) -> None:
    """Check an environment against the contract of `metadisco.envs.base.Environment`.

    It is a hashable component that survives JSON; observations and actions are those of its spec; shapes and dtypes
    stay, so it compiles once, for equal instances too; `noise` is all its randomness; what it computes under `jit` and
    `vmap` is what it computes plainly; rewards and observations are finite and within bounds; an episode is terminated
    or truncated, never both; and `step` does not reset on its own.

    Args:
        env: the environment.
        level: one level of it, a pytree of arrays.
        num_steps: length of the random walks; make it long enough for an episode to end.
        run: walk; without, only shapes and types are checked, which compiles nothing.

    Raises:
        AssertionError: what is broken, and how to repair it.

    Example:
        >>> import jax
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> levels = GridLevels(max_side=4, num_walls=2, max_objects=2, max_steps=(5, 12))
        >>> check_environment(levels.env, levels.sample(jax.random.key(0)))
    """
    twin = contract.check_component(env)
    name = type(env).__name__
    _check_spec(name, env)
    _check_shapes(name, env, level)
    if not run:
        return

    walk = Counted(jax.vmap(_walk, in_axes=(None, 0, None, None)), static=(0, 3))
    keys = jax.random.split(jax.random.key(1), NUM_EXAMPLES)
    steps = walk(env, keys, level, num_steps)
    again = walk(twin, keys, level, num_steps)
    demand(
        walk.traces == 1,
        f"two equal {name} were compiled {walk.traces} times: equal instances must have equal hashes, so leave __eq__ "
        "and __hash__ to the dataclass",
    )
    contract.check_same(f"a walk in {name}", steps, again, "The same keys and level must give the same walk")
    _check_walk(name, env, steps)
    first = contract.first_of(steps, axis=1)

    def plain(noise: Any, first_noise: Any, action: jax.Array) -> tuple:
        obs, state = env.reset(first_noise, level)
        return obs, state, env.step(noise, state, action, level)

    together = (first["obs"], first["state"], (first["next_obs"], first["next_state"], first["step"]))
    last_noise = jax.tree.map(lambda leaf: leaf[:, -1], steps["noise"])
    contract.check_plain(f"reset and step of {name}: ", together, plain, first["noise"], last_noise, first["action"])


def _check_spec(name: str, env: Environment) -> None:
    spec = env.spec
    demand(isinstance(spec, EnvSpec), f"{name}.spec is a {type(spec).__name__}: it must be an EnvSpec")
    for kind, space in (("observation", spec.observation), ("action", spec.action)):
        demand(
            isinstance(space, Discrete | Box),
            f"{name}.spec.{kind} is a {type(space).__name__}: it must be Discrete(num) or Box(shape, low, high)",
        )
    contract.check_component(spec)


def _check_shapes(name: str, env: Environment, level: Level) -> None:
    """Check shapes and types, without compiling."""
    key = jax.random.key(0)
    arrays = all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(level))
    demand(arrays, f"the level of {name} holds Python values: make every leaf an array, as in jnp.float32(9.8)")
    demand(
        not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(level)),
        f"the level of {name} has weak types, which compile twice: say the dtype, as in jnp.float32(9.8)",
    )
    one = contract.shapes_of(f"{name}.noise", lambda: env.noise(key, ()))
    many = contract.shapes_of(f"{name}.noise", lambda: env.noise(key, (3, 2)))
    grown = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, 2, *leaf.shape), leaf.dtype), one)
    contract.check_types(
        f"the noise of {name}",
        grown,
        many,
        "noise(key, (3, 2)) must have the leaves of noise(key, ()), begun by (3, 2)",
    )
    action = jax.eval_shape(lambda: _actions(key, env.spec.action, 1)[0])
    obs, state = contract.shapes_of(f"{name}.reset", env.reset, one, level)
    next_obs, next_state, out = contract.shapes_of(f"{name}.step", env.step, one, state, action, level)

    space = env.spec.observation
    shape, dtype = ((), jnp.int32) if isinstance(space, Discrete) else (space.shape, jnp.float32)
    for where, seen in (("reset", obs), ("step", next_obs)):
        demand(
            isinstance(seen, jax.ShapeDtypeStruct) and (seen.shape, seen.dtype) == (shape, dtype),
            f"the observation of {name}.{where} is {seen}: its spec, {space}, says {jnp.dtype(dtype)}{list(shape)}",
        )
    contract.check_types(
        f"the state of {name}", state, next_state, "step must return a state of the types that reset returns"
    )
    demand(
        not any(leaf.weak_type for leaf in jax.tree.leaves((state, next_state))),
        f"the state of {name} has weak types, which compile twice: say the dtype, as in jnp.zeros((), jnp.int32)",
    )
    demand(isinstance(out, Step), f"{name}.step returns a {type(out).__name__} as its third part: it must be a Step")
    for field, wanted in STEP.items():
        leaf = getattr(out, field)
        found = getattr(leaf, "shape", None), getattr(leaf, "dtype", type(leaf).__name__)
        demand(
            found == ((), wanted),
            f"Step.{field} of {name} is {found[1]}{found[0]}: it must be a scalar {jnp.dtype(wanted)}; use astype",
        )


def _check_walk(name: str, env: Environment, steps: dict[str, Any]) -> None:
    """What a random walk must and must not do. Leaves of the walk: [examples, steps, ...]."""
    space, step = env.spec.observation, steps["step"]
    for what in ("obs", "next_obs"):
        contract.check_finite(
            f"an observation of {name}", steps[what], "Look for a division by 0, or a value without end"
        )
        low, high = (0, space.num - 1) if isinstance(space, Discrete) else (space.low, space.high)
        least, most = np.min(steps[what]), np.max(steps[what])
        demand(
            least >= low and most <= high,
            f"observations of {name} go from {least} to {most}: its spec, {space}, says {low} to {high}",
        )
    contract.check_finite(f"a reward of {name}", step.reward, "Look for a division by 0, or a value without end")
    terminated, truncated = np.asarray(step.terminated), np.asarray(step.truncated)
    demand(
        not np.any(terminated & truncated),
        f"a step of {name} is terminated and truncated at once: the value after a truncated step still counts, after a "
        "terminated one it does not; where the episode ends by its own rule, set truncated to False",
    )
    # An environment that resets on its own hands out, at an end, the very state in which the next episode begins.
    finished = terminated | truncated
    begins = _equal(steps["next_state"], steps["first_state"], finished.shape)
    if np.any(finished) and np.any(~finished & ~begins):
        demand(
            not np.all(begins[finished]),
            f"{name}.step resets on its own: it must return the observation and state that the action led to, also "
            "when the episode ended; rollouts reset",
        )


def _equal(left: Any, right: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Where two trees of leaves [*shape, ...] are equal. [*shape] bool."""
    equal = np.ones(shape, bool)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        same = (contract.as_numpy(one) == contract.as_numpy(other)).reshape(*shape, -1)
        equal &= np.all(same, axis=-1)
    return equal


def _actions(key: Key, space: Discrete | Box, num: int) -> jax.Array:
    """Random actions, [num] or [num, ...]."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, (num,), 0, space.num)
    low, high = max(space.low, -1.0), min(space.high, 1.0)
    return jax.random.uniform(key, (num, *space.shape), minval=low, maxval=high)


def _walk(env: Environment, key: Key, level: Level, num_steps: int) -> dict[str, Any]:
    """A random walk that begins anew where an episode ends. Every leaf [num_steps, ...]."""
    noise_key, action_key = jax.random.split(key)
    noises = env.noise(noise_key, (num_steps,))
    actions = _actions(action_key, env.spec.action, num_steps)

    def step(carry: tuple, now: tuple) -> tuple[tuple, dict[str, Any]]:
        (obs, state), (noise, action) = carry, now
        next_obs, next_state, out = env.step(noise, state, action, level)
        first = env.reset(noise, level)
        seen = {"noise": noise, "action": action, "obs": obs, "state": state, "step": out, "first_state": first[1]}
        following = trees.where(out.terminated | out.truncated, first, (next_obs, next_state))
        return following, seen | {"next_obs": next_obs, "next_state": next_state}

    begun = env.reset(jax.tree.map(lambda leaf: leaf[-1], noises), level)
    return jax.lax.scan(step, begun, (noises, actions))[1]
