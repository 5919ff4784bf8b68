"""Constants of a formula, fitted by its gradient: least squares with derivatives from JAX."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core.devices import QUICK_COMPILATION
from metadisco.core.formulas import Expression, constants_of, with_constants

Inputs = Mapping[str, np.ndarray]
Respond = Callable[[Expression, Mapping[str, Any], Any, Any], Any]
"""What a component makes of a formula, given inputs by name, constants and the library that computes: [S] float32."""


def refined(
    expression: Expression, respond: Respond, inputs: Inputs, values: np.ndarray, *, max_evaluations: int = 20
) -> Expression:
    """The formula with the constants of the smallest mean squared error near those that it has.

    Args:
        expression: the formula.
        respond: what is made of it.
        inputs: [S] float32 each.
        values: [S] float32, what the responses should be.
        max_evaluations: of the residuals.
    """
    from scipy.optimize import least_squares

    begun = np.array(constants_of(expression))
    if not begun.size:
        return expression

    quick = partial(jax.jit, compiler_options=QUICK_COMPILATION)

    def residuals(constants: jax.Array) -> jax.Array:
        return respond(expression, inputs, constants, jnp) - values

    compiled, derivative = quick(residuals), quick(jax.jacfwd(residuals))

    def at(constants: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(jnp.asarray(constants, jnp.float32)), float)

    def slopes(constants: np.ndarray) -> np.ndarray:
        return np.asarray(derivative(jnp.asarray(constants, jnp.float32)), float)

    if not (np.isfinite(at(begun)).all() and np.isfinite(slopes(begun)).all()):
        return expression
    try:
        found = least_squares(at, begun, slopes, x_scale="jac", max_nfev=max_evaluations)
    except (ValueError, np.linalg.LinAlgError):  # residuals that are not finite on the way
        return expression
    return with_constants(expression, found.x) if np.isfinite(found.x).all() else expression
