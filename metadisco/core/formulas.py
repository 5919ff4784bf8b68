"""Short formulas of named inputs, as text and as trees: read, written, evaluated in JAX.

A formula is data, such as `relu(A * (r - 1.2))`: it is read by a parser that knows numbers, inputs and `FUNCTIONS` and
nothing else, so that a formula from a file can do nothing but arithmetic. A number that is written with a decimal point
is a constant that may be tuned (1.2 above); a whole one belongs to the formula (the 1 of `r - 1`). Every function is
continuous and defined everywhere.
"""

import ast
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metadisco.core.config import ConfigError, nearest
from metadisco.core.types import MetaParams

LONGEST_TEXT = 1000  # characters of a formula
LARGEST_EXPONENT = 20.0  # of `exp`, beyond which it is constant


class Function(NamedTuple):
    """What may stand in a formula: how many arguments it has, and what a library of arrays makes of them."""

    arity: int
    apply: Callable[..., Any]  # of the library, which is NumPy or that of JAX, and the arguments


FUNCTIONS: Mapping[str, Function] = {
    "add": Function(2, lambda xp, x, y: x + y),
    "sub": Function(2, lambda xp, x, y: x - y),
    "mul": Function(2, lambda xp, x, y: x * y),
    "neg": Function(1, lambda xp, x: -x),
    "square": Function(1, lambda xp, x: x * x),
    "min": Function(2, lambda xp, x, y: xp.minimum(x, y)),
    "max": Function(2, lambda xp, x, y: xp.maximum(x, y)),
    "relu": Function(1, lambda xp, x: xp.maximum(x, 0.0)),
    "abs": Function(1, lambda xp, x: xp.abs(x)),
    "tanh": Function(1, lambda xp, x: xp.tanh(x)),
    "exp": Function(1, lambda xp, x: xp.exp(xp.minimum(x, LARGEST_EXPONENT))),
}
_OPERATORS = {"add": (1, " + "), "sub": (1, " - "), "mul": (2, " * ")}  # how tightly each binds, and its sign
_UNARY, _POWER, _ATOM = 3, 4, 5


@dataclass(frozen=True)
class Number:
    """A number; `is_tuned` where it is a constant of the formula, which may be changed."""

    value: float
    is_tuned: bool = True


@dataclass(frozen=True)
class Input:
    """A named input."""

    name: str


@dataclass(frozen=True)
class Call:
    """A function of other expressions, by its name in `FUNCTIONS`."""

    function: str
    arguments: tuple["Expression", ...]


Expression = Number | Input | Call


@functools.lru_cache(maxsize=1024)
def parse(text: str, inputs: tuple[str, ...]) -> Expression:
    """Read a formula.

    Args:
        text: of numbers, inputs, + - * and **2, and the named ones among `FUNCTIONS`.
        inputs: names that may stand in it.

    Raises:
        ConfigError: for anything else; it says what, and what there is.

    Example:
        >>> parse("r - 1.5", ("r",))
        Call(function='sub', arguments=(Input(name='r'), Number(value=1.5, is_tuned=True)))
    """
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"a formula has at most {LONGEST_TEXT} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _read(tree, text, inputs)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise
        example = f"relu(0.5 * {(*inputs, 'x')[0]})"
        raise ConfigError(f"{text[:40]!r} is not a formula: write one such as {example!r}") from error


def _read(tree: ast.expr, text: str, inputs: tuple[str, ...]) -> Expression:
    """One node of Python's own syntax tree, which is never run."""
    match tree:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) < 1e30:
            return Number(float(value), isinstance(value, float))
        case ast.Name(id=name) if name in inputs:
            return Input(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _read(operand, text, inputs)
            return Number(-inner.value, inner.is_tuned) if isinstance(inner, Number) else Call("neg", (inner,))
        case ast.BinOp(op=ast.Pow(), left=left, right=ast.Constant(value=2)):
            return Call("square", (_read(left, text, inputs),))
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() as operator, left=left, right=right):
            name = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}[type(operator)]
            return Call(name, (_read(left, text, inputs), _read(right, text, inputs)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            if len(arguments) == FUNCTIONS[name].arity:
                return Call(name, tuple(_read(each, text, inputs) for each in arguments))
            raise ConfigError(f"{name} in the formula {text!r} takes {FUNCTIONS[name].arity}, got {len(arguments)}")
        case ast.Name(id=name):
            raise ConfigError(f"the formula {text!r} has an unknown input {name!r}.{nearest(name, inputs)}")
        case ast.Call(func=ast.Name(id=name)):
            raise ConfigError(f"the formula {text!r} has an unknown function {name!r}.{nearest(name, FUNCTIONS)}")
    raise ConfigError(
        f"{ast.unparse(tree)!r} cannot stand in the formula {text!r}: it may have numbers, {', '.join(inputs)}, + - * "
        f"**2 and {', '.join(name for name in FUNCTIONS if name not in _OPERATORS)}"
    )


def text_of(expression: Expression) -> str:
    """Write a formula, with no more parentheses than it needs; `parse` reads the same expression back.

    Example:
        >>> text_of(parse("max((r)-1.20, 0) * (A + (2))", ("r", "A")))
        'max(r - 1.2, 0) * (A + 2)'
    """
    return _write(expression)[0]


def _write(expression: Expression) -> tuple[str, int]:
    """The text, and how tightly its outermost operator binds."""
    match expression:
        case Number(value, is_tuned):
            return repr(float(value)) if is_tuned else str(int(value)), _UNARY if value < 0 else _ATOM
        case Input(name):
            return name, _ATOM
        case Call("neg", (Number() as number,)):
            return f"neg({_write(number)[0]})", _ATOM
        case Call("neg", (inner,)):
            return f"-{_inside(inner, _POWER)}", _UNARY
        case Call("square", (inner,)):
            return f"{_inside(inner, _ATOM)}**2", _POWER
        case Call(name, (left, right)) if name in _OPERATORS:
            strength, sign = _OPERATORS[name]
            return f"{_inside(left, strength)}{sign}{_inside(right, strength + 1)}", strength
    return f"{expression.function}({', '.join(_write(each)[0] for each in expression.arguments)})", _ATOM


def _inside(expression: Expression, strength: int) -> str:
    text, own = _write(expression)
    return text if own >= strength else f"({text})"


def evaluate(expression: Expression, inputs: Mapping[str, Any], constants: Any = None, *, xp: Any = jnp) -> Any:
    """The value of a formula. [...] float32, of the shape to which its inputs broadcast.

    Args:
        expression: the formula.
        inputs: by name, [...] float32.
        constants: values of its constants, in the order of the text; those that are written in it by default.
        xp: the library that computes, `jax.numpy` or NumPy.
    """
    values = iter(constants_of(expression) if constants is None else constants)

    def value(node: Expression) -> Any:
        if isinstance(node, Number):
            return xp.asarray(next(values) if node.is_tuned else node.value, xp.float32)
        if isinstance(node, Input):
            return inputs[node.name]
        return FUNCTIONS[node.function].apply(xp, *[value(each) for each in node.arguments])

    return value(expression)


def nodes(expression: Expression) -> Iterator[Expression]:
    """Every part of a formula, in the order of the text."""
    yield expression
    if isinstance(expression, Call):
        for each in expression.arguments:
            yield from nodes(each)


def length(expression: Expression) -> int:
    """How many numbers, inputs and functions a formula has."""
    return sum(1 for _ in nodes(expression))


def constants_of(expression: Expression) -> tuple[float, ...]:
    """The constants, in the order of the text."""
    return tuple(node.value for node in nodes(expression) if isinstance(node, Number) and node.is_tuned)


def inputs_of(expression: Expression) -> frozenset[str]:
    """Names of the inputs that a formula has."""
    return frozenset(node.name for node in nodes(expression) if isinstance(node, Input))


def with_constants(expression: Expression, values: Sequence[float]) -> Expression:
    """The same formula with other constants, in the order of the text."""
    rest = iter(values)

    def changed(node: Expression) -> Expression:
        if isinstance(node, Number):
            return Number(float(next(rest))) if node.is_tuned else node
        if isinstance(node, Input):
            return node
        return Call(node.function, tuple(changed(each) for each in node.arguments))

    return changed(expression)


def initial(key: jax.Array, parts: Mapping[str, Expression]) -> MetaParams:
    """Constants near those that are written in named formulas, at which a search may begin; as `written`."""
    begun = written(parts)
    keys = jax.random.split(key, max(len(begun), 1))

    def near(key: jax.Array, values: jax.Array) -> jax.Array:
        return values + 0.01 * jax.random.normal(key, values.shape) * jnp.maximum(jnp.abs(values), 0.1)

    return {name: near(k, values) for k, (name, values) in zip(keys, begun.items())} if begun else ()


def written(parts: Mapping[str, Expression]) -> MetaParams:
    """The constants of named formulas as meta-parameters: name -> [K] float32; () where there are none."""
    found = {name: constants_of(each) for name, each in parts.items()}
    return {name: jnp.asarray(values, jnp.float32) for name, values in found.items() if values} or ()


def constants_in(meta_params: MetaParams, name: str) -> jax.Array | tuple[()]:
    """The constants of one of several named formulas, out of what `written` has made."""
    return meta_params[name] if isinstance(meta_params, Mapping) and name in meta_params else ()


def texts(parts: Mapping[str, Expression], meta_params: MetaParams) -> dict[str, str]:
    """Named formulas as text, with the constants that they have in meta-parameters, to six digits."""
    return {
        name: text_of(with_constants(each, [float(f"{float(value):.6g}") for value in constants_in(meta_params, name)]))
        for name, each in parts.items()
    }
