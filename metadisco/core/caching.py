"""Results that equal components share.

Components are frozen and hashable by value (`metadisco.core.config`), so what takes long to find out about one, such as
the program that it compiles to, is found out once for all that are equal. A component of one's own that cannot be
hashed works too: for it, everything is done anew.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def once_for_equal(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `functools.lru_cache`, except that arguments without a hash are no error: they are computed with every time.

    Example:
        >>> double = once_for_equal(maxsize=2)(lambda items: 2 * items)
        >>> double((1, 2)), double([1, 2])
        ((1, 2, 1, 2), [1, 2, 1, 2])
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cached: Any = functools.lru_cache(maxsize)(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                hash((args, tuple(kwargs.values())))
            except TypeError:
                return function(*args, **kwargs)
            return cached(*args, **kwargs)

        return call

    return decorate
