"""Checks of every component, and comparisons for the other checks.

A check raises AssertionError with a sentence that says what is broken and what to do. Compiling costs time, so a
function is compiled once, for several examples side by side, and compared with a plain call of it for the first one:
that settles at once whether `jit` equals eager and whether `vmap` equals a loop.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import config
from metadisco.core.files import is_key, named_leaves

TOLERANCE = 1e-3  # relative, and absolute where a value is below 1: compiled code may add up in another order


def demand(holds: Any, message: str) -> None:
    """Raise AssertionError with a message unless it holds."""
    if not bool(holds):
        raise AssertionError(message)


def check_component(component: Any) -> Any:
    """Check that a component is hashable by value and serializable; return its equal copy.

    Raises:
        AssertionError: where it is not a frozen dataclass, cannot be hashed, or does not come back from JSON.
    """
    name = type(component).__name__
    demand(
        config.is_component(component),
        f"{name} is not a frozen dataclass: use @dataclass(frozen=True), its settings as fields",
    )
    try:
        hash(component)
    except TypeError as error:
        raise AssertionError(
            f"{name} has no hash ({error}), so it cannot be a static argument of jax.jit: use tuples in the place of "
            "lists, and no arrays in fields"
        ) from error
    try:
        twin = config.from_data(json.loads(json.dumps(config.to_data(component))))
    except config.ConfigError as error:
        raise AssertionError(f"{name} cannot be written to JSON and read again: {error}") from error
    demand(
        twin == component,
        f"{name} comes back from JSON as another one, {twin!r}: every setting must be a field that compares by value",
    )
    demand(
        hash(twin) == hash(component),
        f"two equal {name} have different hashes, so each would be compiled anew: leave __hash__ to the dataclass",
    )
    return twin


class Counted:
    """A function that counts how often it is traced: once is enough for arguments of the same types."""

    def __init__(self, function: Callable[..., Any], *, static: tuple[int, ...] = (0,)) -> None:
        """Wrap; `static` are the places of arguments that are components or sizes."""
        self.traces = 0

        def traced(*arguments: Any) -> Any:
            self.traces += 1
            return function(*arguments)

        self._compiled = jax.jit(traced, static_argnums=static)

    def __call__(self, *arguments: Any) -> Any:
        """The compiled function."""
        return self._compiled(*arguments)


def check_same(what: str, left: Any, right: Any, why: str, *, tolerance: float = TOLERANCE) -> None:
    """Check that two trees have the same values, types included.

    Args:
        what: is compared; begins the message.
        left: a tree of arrays.
        right: another one.
        why: ends the message.
        tolerance: relative, and absolute near 0.
    """
    ours, theirs = named_leaves(left), named_leaves(right)
    demand(ours.keys() == theirs.keys(), f"{what} has other parts: {sorted(ours)} and {sorted(theirs)}. {why}")
    for name, leaf in ours.items():
        one, other = as_numpy(leaf), as_numpy(theirs[name])
        demand(
            one.shape == other.shape and one.dtype == other.dtype,
            f"{what}{name} is {one.dtype}{list(one.shape)} and {other.dtype}{list(other.shape)}. {why}",
        )
        if np.issubdtype(one.dtype, np.floating):
            is_close = np.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            is_close = one == other
        if not np.all(is_close):
            place = np.unravel_index(np.argmin(is_close), one.shape)
            raise AssertionError(
                f"{what}{name} differs: {one[place]} and {other[place]} at {[int(i) for i in place]}. {why}"
            )


def check_types(what: str, before: Any, after: Any, why: str) -> None:
    """Check that two trees, of arrays or of shapes, have the same structure, shapes and dtypes, weak ones included."""

    def types(tree: Any) -> dict[str, str]:
        return {
            name: f"{'weak ' if getattr(leaf, 'weak_type', False) else ''}{leaf.dtype}{list(leaf.shape)}"
            for name, leaf in named_leaves(tree).items()
        }

    ours, theirs = types(before), types(after)
    for name in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(name, "absent"), theirs.get(name, "absent")
        demand(one == other, f"{what}{name} is {one} before and {other} after. {why}")


def check_finite(what: str, tree: Any, why: str) -> None:
    """Check that every float is a finite number."""
    for name, leaf in named_leaves(tree).items():
        if not is_key(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating):
            demand(np.all(np.isfinite(np.asarray(leaf))), f"{what}{name} is not finite. {why}")


def check_metrics(what: str, metrics: Any) -> None:
    """Check that metrics are a flat dict of float32 scalars."""
    demand(
        isinstance(metrics, dict), f"the metrics of {what} are a {type(metrics).__name__}: return a dict, {{}} for none"
    )
    for name, leaf in metrics.items():
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        demand(
            isinstance(name, str) and shape == () and dtype == jnp.float32,
            f"the metric {name!r} of {what} is {dtype}{shape}: it must be a float32 scalar, such as a jnp.mean",
        )


def check_plain(what: str, batched: Any, function: Callable[..., Any], *arguments: Any) -> None:
    """Check that results under `jit(vmap)` equal those of a plain call, for the first example.

    Args:
        what: the function's name in messages.
        batched: its results under `jit(vmap)`, leading axis: examples.
        function: of one example.
        *arguments: trees with the same leading axis.
    """
    expected, given = first_of((batched, arguments))
    check_same(
        what,
        expected,
        function(*given),
        "The first is under jax.jit and jax.vmap, the second of a plain call with the same arguments: it must depend "
        "on its arguments only, and draw random numbers from its key only",
    )


def shapes_of(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, as shapes, without compiling it; AssertionError where JAX cannot trace it."""
    try:
        return jax.eval_shape(function, *arguments)
    except (jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError) as error:
        raise AssertionError(
            f"{what} cannot be compiled: it looks at the value of an array, or keeps one from an earlier call. Use "
            f"jnp.where or jax.lax.cond in the place of `if`, and jnp in the place of numpy. JAX says: "
            f"{str(error).splitlines()[0]}"
        ) from error


def stack_of(make: Callable[[jax.Array], Any], num: int, seed: int = 0) -> Any:
    """`num` examples side by side, from one key each."""
    return jax.vmap(make)(jax.random.split(jax.random.key(seed), num))


def first_of(batched: Any, axis: int = 0) -> Any:
    """The first of the examples along an axis, taken by NumPy, which compiles nothing."""

    def first(leaf: jax.Array) -> jax.Array:
        place = (slice(None),) * axis + (0,)
        return leaf[place] if is_key(leaf) else jnp.asarray(np.asarray(leaf)[place])

    return jax.tree.map(first, batched)


def differ(left: Any, right: Any) -> bool:
    """Whether any number of two trees of the same structure differs."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right))
    return any(np.any(as_numpy(one) != as_numpy(other)) for one, other in pairs)


def as_numpy(leaf: Any) -> np.ndarray:
    """A leaf as an array of NumPy, a key as its numbers."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
