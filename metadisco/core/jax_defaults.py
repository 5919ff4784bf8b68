"""JAX's process-wide defaults that metadisco does not follow: 64 bits, and another random number generator.

Agents, objectives and levels are float32 and int32: measured so, stored so, and compared bit by bit so. In a process of
64 bits (`JAX_ENABLE_X64`) every array made without a type, and every count, would be twice as wide, also in libraries
that metadisco calls. What a life draws must not depend on which lives it is batched with, which holds for
`threefry2x32` and not for `rbg` (`JAX_DEFAULT_PRNG_IMPL`). And antithetic candidates share their keys on purpose, which
`JAX_DEBUG_KEY_REUSE` would take for a mistake. So what is public computes in a context of its own; a key that the
caller has made is used as it is.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax

GENERATOR = "threefry2x32"
_SPECIAL = ("__call__", "__post_init__")
_FOLLOWS: ContextVar[bool] = ContextVar("follows", default=False)
Target = TypeVar("Target", bound=Callable[..., Any])


def own_defaults(target: Target) -> Target:
    """Let a function, or all public methods that a class defines, compute in 32 bits whatever the process's default.

    Example:
        >>> import jax.numpy as jnp
        >>> with jax.enable_x64(True):
        ...     own_defaults(jnp.zeros)(3).dtype
        dtype('float32')
    """
    if isinstance(target, type):
        for name, member in list(vars(target).items()):
            if inspect.isfunction(member) and (not name.startswith("_") or name in _SPECIAL):
                setattr(target, name, own_defaults(member))
        return target

    @functools.wraps(target)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not _differs():
            return target(*args, **kwargs)
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax.enable_x64(False))
            stack.enter_context(jax.default_prng_impl(GENERATOR))
            stack.enter_context(jax.debug_key_reuse(False))
            return target(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


@contextlib.contextmanager
def follow_process() -> Iterator[None]:
    """A context in which the process's own defaults hold, such as 64 bits for a comparison with finite differences."""
    token = _FOLLOWS.set(True)
    try:
        yield
    finally:
        _FOLLOWS.reset(token)


def _differs() -> bool:
    if _FOLLOWS.get():
        return False
    options: Any = jax.config  # whose names and types are known at run time only
    is_other = options.jax_enable_x64 or options.jax_default_prng_impl != GENERATOR
    return bool(is_other or options.jax_debug_key_reuse)
