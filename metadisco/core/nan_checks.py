"""Programs that may return NaN under `JAX_DEBUG_NANS`.

JAX looks at what a compiled program returns. A meta-step returns no NaN where an agent diverged: the agent counts as
failed and the others go on. And some NaN is meant, such as the fitness of a meta-step in which no life has ended. So
programs run unchecked here, and whoever runs them looks into what came of them (`metadisco.meta_training.nan_search`).
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from metadisco.core.files import is_key

_UNCHECKED: ContextVar[bool] = ContextVar("unchecked", default=False)


def is_on() -> bool:
    """Whether NaN is looked for, also where programs run unchecked meanwhile."""
    # The types of JAX's options are known at run time only.
    return _UNCHECKED.get() or jax.config.jax_debug_nans  # type: ignore[attr-defined]


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """A context in which programs may return NaN, for whoever looks into it himself if `is_on`."""
    token = _UNCHECKED.set(is_on())
    try:
        with jax.debug_nans(False):
            yield
    finally:
        _UNCHECKED.reset(token)


def copy_of(state: Any) -> Any:
    """A train state that survives the meta-step that it is given to; None without `JAX_DEBUG_NANS`."""

    def copy(leaf: jax.Array) -> jax.Array:
        if is_key(leaf):
            return jax.random.wrap_key_data(copy(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jnp.copy(leaf)

    return jax.tree.map(copy, state) if is_on() else None


def has_nan(tree: Any) -> bool:
    """Whether a tree has NaN in it."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not is_key(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)]
    return any(bool(jnp.any(jnp.isnan(leaf))) for leaf in leaves)
