"""A drift that is a formula: what symbolic regression makes of a learned one, or what somebody writes down.

As DPO was written down for what LPO had learned (arXiv:2210.05639), with one formula for actions that were better than
expected and one for those that were worse. Whatever the formulas are, it is a drift of mirror learning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from metadisco.core import formulas
from metadisco.core.config import check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, MetaParams

INPUTS = ("r", "l", "A", "t")
BRANCHES = ("better", "worse")


@own_defaults
@dataclass(frozen=True)
class FormulaDrift:
    """D = relu(f - relu(f(1)) - xi), f one formula where A >= 0 and another where A < 0.

    f(1) is f at r = 1, for the same A and n/N. Formulas are continuous, so D is 0 around r = 1, and the three
    conditions of mirror learning hold for every formula. Their constants are the meta-parameters.

    Attributes:
        better: f where A >= 0, of r = pi / pi_old, l = log r, A and t = n/N; see `metadisco.core.formulas`.
        worse: f where A < 0.
        threshold: xi.

    Example:
        >>> ppo = FormulaDrift("A * (r - 1.2)", "A * (r - 0.8)")
        >>> ppo.written["better"].tolist() == [jax.numpy.float32(1.2)]
        True
    """

    better: str
    worse: str
    threshold: float = 1e-6

    def __post_init__(self) -> None:
        check_positive(self, "threshold")
        for name in BRANCHES:
            formulas.parse(getattr(self, name), INPUTS)

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs that stand in the formulas."""
        used = frozenset[str]().union(*map(formulas.inputs_of, self.expressions.values()))
        return tuple("n/N" if name == "t" else name for name in INPUTS if name in used)

    @property
    def expressions(self) -> dict[str, formulas.Expression]:
        """The formulas as they are written, by branch."""
        return {name: formulas.parse(getattr(self, name), INPUTS) for name in BRANCHES}

    @property
    def written(self) -> MetaParams:
        """Meta-parameters: the constants as they are written, by branch."""
        return formulas.written(self.expressions)

    def init(self, key: Key) -> MetaParams:
        """Constants near those that are written, for a search that begins there."""
        return formulas.initial(key, self.expressions)

    def texts(self, meta_params: MetaParams) -> dict[str, str]:
        """The formulas with the constants that they have now, by branch."""
        return formulas.texts(self.expressions, meta_params)

    def penalty(
        self, meta_params: MetaParams, log_ratio: jax.Array, advantage: jax.Array, fraction: jax.Array | float
    ) -> jax.Array:
        """The equation of the class."""
        expressions, values = self.expressions, {}
        for name, own in zip(BRANCHES, (jax.nn.relu(advantage), jnp.minimum(advantage, 0.0))):  # of the right sign
            constants = formulas.constants_in(meta_params, name)
            values[name] = anchored(expressions[name], inputs(log_ratio, own, fraction), constants, self.threshold)
        return jnp.where(advantage >= 0.0, values["better"], values["worse"])


def inputs(log_ratio: Any, advantage: Any, fraction: Any, *, xp: Any = jnp) -> dict[str, Any]:
    """What a formula is told, by name, all of one shape."""
    arrays = xp.broadcast_arrays(log_ratio, advantage, xp.asarray(fraction, xp.float32))
    return {"r": xp.exp(arrays[0]), "l": arrays[0], "A": arrays[1], "t": arrays[2]}


def anchored(
    expression: formulas.Expression, told: Mapping[str, Any], constants: Any, threshold: float, *, xp: Any = jnp
) -> Any:
    """relu(f - relu(f(1)) - xi) of one formula, which is told what `inputs` says. [...] float32.

    `xp` is the library that computes, `jax.numpy` or NumPy.
    """
    one = {**told, "r": xp.ones_like(told["r"]), "l": xp.zeros_like(told["l"])}
    there, at_one = (formulas.evaluate(expression, each, constants, xp=xp) for each in (told, one))
    return xp.maximum(there - xp.maximum(at_one, 0.0) - threshold, 0.0)
