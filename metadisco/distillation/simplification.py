"""Formulas made shorter by sympy, and as LaTeX."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from metadisco.core.formulas import FUNCTIONS, Call, Expression, Input, Number, evaluate, inputs_of, length

if TYPE_CHECKING:
    import sympy

Signs = Mapping[str, int]
"""Inputs that are never negative (1) or never positive (-1), by name; any other may be both."""
LONGEST = 60  # nodes; longer ones are not worked on, since sympy takes long
NEGLIGIBLE = 1e-7


def simplified(expression: Expression, *, signs: Signs, columns: Mapping[str, Expression], digits: int) -> Expression:
    """The shortest of several equal forms of a formula.

    Args:
        expression: the formula, of inputs and of columns.
        signs: of inputs.
        columns: what is to be put in place of names of columns.
        digits: significant ones of the constants.
    """
    import sympy

    whole = _symbolic(expression, signs)
    meanings = {_symbol(name, signs): _symbolic(each, signs) for name, each in columns.items()}
    forms = [whole, sympy.expand(whole, deep=False)]
    forms = [each.xreplace(meanings) for each in forms]
    forms += [sympy.factor_terms(each) for each in forms]
    symbols = sorted(forms[0].free_symbols, key=str)
    forms += [sympy.collect(each, symbol) for each in forms[:2] for symbol in symbols]
    candidates = [_read(_rounded(each, digits)) for each in forms]
    return min(candidates, key=length)


def latex(expression: Expression, names: Mapping[str, str]) -> str:
    """LaTeX of a formula; `names` are those of its inputs."""
    import sympy

    whole = _symbolic(expression, {})
    return str(sympy.latex(whole, symbol_names={_symbol(name, {}): text for name, text in names.items()}))


def _symbol(name: str, signs: Signs) -> "sympy.Symbol":
    import sympy

    sign = signs.get(name)
    if sign is None:
        return sympy.Symbol(name, real=True)
    return sympy.Symbol(name, nonnegative=True) if sign > 0 else sympy.Symbol(name, nonpositive=True)


def _symbolic(expression: Expression, signs: Signs) -> Any:
    import sympy

    if isinstance(expression, Number):
        value = expression.value
        return sympy.Integer(int(value)) if not expression.is_tuned else sympy.Float(value)
    if isinstance(expression, Input):
        return _symbol(expression.name, signs)
    first, *rest = (_symbolic(each, signs) for each in expression.arguments)
    match expression.function:
        case "add":
            return first + rest[0]
        case "sub":
            return first - rest[0]
        case "mul":
            return first * rest[0]
        case "neg":
            return -first
        case "square":
            return first**2
        case "abs":
            return sympy.Abs(first)
        case "tanh" | "exp" as name:
            return getattr(sympy, name)(first)
    return sympy.Function(expression.function, real=True)(first, *rest)  # sympy's own Max takes long


def _rounded(whole: Any, digits: int) -> Any:
    """With constants of so many digits; those that are 0, 1 or -1 then belong to the formula."""
    import sympy

    changed = {}
    for number in whole.atoms(sympy.Float):
        value = float(f"{float(number):.{digits}g}")
        value = 0.0 if abs(value) < NEGLIGIBLE else value
        changed[number] = sympy.Integer(int(value)) if value in (-1.0, 0.0, 1.0) else sympy.Float(value)
    return whole.xreplace(changed)


def _read(whole: Any) -> Expression:
    """A formula from sympy's form of it."""
    import sympy

    if whole.is_Symbol:
        return Input(whole.name)
    if whole.is_Integer:
        return Number(float(int(whole)), is_tuned=False)
    if whole.is_Number:
        return Number(float(whole))
    if whole.is_Add:
        return _sum([*whole.as_ordered_terms()])
    if whole.is_Mul:
        return _product([*whole.as_ordered_factors()])
    if whole.is_Pow and whole.exp.is_Integer and int(whole.exp) >= 2:
        return _fold("mul", _powers(whole))
    if isinstance(whole, sympy.exp):
        return Call("exp", (_read(whole.args[0]),))
    arguments = [_read(each) for each in whole.args]
    names = {sympy.tanh: "tanh", sympy.Abs: "abs"}
    name = names.get(whole.func, str(whole.func))
    if name in FUNCTIONS and len(arguments) == FUNCTIONS[name].arity:
        return _shortened(Call(name, tuple(arguments)))
    raise ValueError(f"no formula is known for {whole}")


def _shortened(call: Call) -> Expression:
    """A function of numbers, or the larger of something and 0."""
    if all(isinstance(each, Number) for each in call.arguments):
        return Number(float(evaluate(call, {}, xp=np)))
    if call.function == "max":
        rest = [each for each in call.arguments if not (isinstance(each, Number) and each.value == 0.0)]
        return Call("relu", (rest[0],)) if len(rest) == 1 else call
    return call


def with_and_without_relu(expression: Expression) -> list[Expression]:
    """The formula, and what is left where max(x, c) is x for every constant c: a component may have its own relu."""

    def without(node: Expression) -> Expression:
        if not isinstance(node, Call):
            return node
        arguments = tuple(without(each) for each in node.arguments)
        rest = [each for each in arguments if inputs_of(each)]
        return rest[0] if node.function == "max" and len(rest) == 1 else Call(node.function, arguments)

    other = without(expression)
    return [expression] if other == expression else [expression, other]


def without_constant(expression: Expression) -> list[Expression]:
    """The formula without the number that is added to it; empty where there is none."""
    if not isinstance(expression, Call) or expression.function not in ("add", "sub"):
        return []
    first, second = expression.arguments
    if isinstance(second, Number):
        return [first]
    if isinstance(first, Number):
        return [second if expression.function == "add" else Call("neg", (second,))]
    inner = without_constant(first)
    return [Call(expression.function, (each, second)) for each in inner]


def _fold(function: str, arguments: list[Expression]) -> Expression:
    whole, *rest = arguments
    for each in rest:
        whole = Call(function, (whole, each))
    return whole


def _sum(terms: list[Any]) -> Expression:
    """Terms one after the other, those that are subtracted last."""
    added = [each for each in terms if not each.could_extract_minus_sign()]
    subtracted = [each for each in terms if each.could_extract_minus_sign()]
    whole = _fold("add", [_read(each) for each in added]) if added else _read(subtracted.pop(0))
    for each in subtracted:
        whole = Call("sub", (whole, _read(-each)))
    return whole


def _product(factors: list[Any]) -> Expression:
    if factors[0] == -1:
        return Call("neg", (_product(factors[1:]),))
    return _fold("mul", [part for each in factors for part in _powers(each)])


def _powers(whole: Any) -> list[Expression]:
    """The factors of a power: squares, and the base once more where the exponent is odd."""
    if not (whole.is_Pow and whole.exp.is_Integer and int(whole.exp) >= 2):
        return [_read(whole)]
    base = _read(whole.base)
    return [Call("square", (base,))] * (int(whole.exp) // 2) + [base] * (int(whole.exp) % 2)
