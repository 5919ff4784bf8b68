"""Formulas: reading and writing, values beside NumPy's, derivatives beside finite differences, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core import formulas
from metadisco.core.config import ConfigError
from metadisco.core.formulas import Call, Input, Number, parse, text_of

NAMES = ("r", "A")
R, A = np.meshgrid(np.linspace(0.1, 3.0, 7, dtype=np.float32), np.linspace(-2.0, 2.0, 6, dtype=np.float32))
EXAMPLES = {
    "A * (r - 1.2)": lambda r, A: A * (r - 1.2),
    "relu(r - 1) - -0.5 * A**2": lambda r, A: np.maximum(r - 1, 0) + 0.5 * A**2,
    "-(r * A) - (2.0 - r)": lambda r, A: -r * A - 2 + r,
    "max(min(r, 0.3 * A), -1.5) * tanh(A)": lambda r, A: np.maximum(np.minimum(r, 0.3 * A), -1.5) * np.tanh(A),
    "abs(A - r)**2 + exp(-r)": lambda r, A: (A - r) ** 2 + np.exp(-r),
    "(r + A)**2 * 0.25": lambda r, A: 0.25 * (r + A) ** 2,
}


def random_expression(rng, depth=4):
    kind = rng.integers(0, 4) if depth else rng.integers(0, 2)
    if kind == 0:
        return Input(str(rng.choice(NAMES)))
    if kind == 1:
        is_tuned = bool(rng.integers(0, 2))
        return Number(round(float(rng.normal()), 3) if is_tuned else float(rng.integers(-3, 4)), is_tuned)
    name = str(rng.choice(list(formulas.FUNCTIONS)))
    return Call(name, tuple(random_expression(rng, depth - 1) for _ in range(formulas.FUNCTIONS[name].arity)))


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_formula_has_the_value_that_it_says(text):
    found = formulas.evaluate(parse(text, NAMES), {"r": R, "A": A})
    np.testing.assert_allclose(found, EXAMPLES[text](R, A), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_written_is_read_back_and_has_the_same_value(seed):
    expression = random_expression(np.random.default_rng(seed))
    text = text_of(expression)
    again = parse(text, NAMES)
    assert text_of(again) == text
    values = [formulas.evaluate(each, {"r": R, "A": A}, xp=np) for each in (expression, again)]
    np.testing.assert_array_equal(*np.broadcast_arrays(*values))


def test_numpy_and_jax_agree():
    for seed in range(10):
        expression = random_expression(np.random.default_rng(100 + seed), depth=3)
        values = [formulas.evaluate(expression, {"r": R, "A": A}, xp=xp) for xp in (np, jnp)]
        np.testing.assert_allclose(*np.broadcast_arrays(*values), rtol=1e-4, atol=1e-5)


def test_derivatives_by_constants_are_those_of_finite_differences():
    expression = parse("1.3 * tanh(0.7 * A * (r - 1.1)) + relu(r - 0.45)**2", NAMES)
    written = jnp.array(formulas.constants_of(expression), jnp.float32)

    def total(constants):
        return jnp.sum(formulas.evaluate(expression, {"r": R, "A": A}, constants))

    step = 1e-2 * jnp.eye(len(written))
    differences = [(total(written + each) - total(written - each)) / 2e-2 for each in step]
    np.testing.assert_allclose(jax.grad(total)(written), differences, rtol=1e-2, atol=1e-2)


def test_numbers_with_a_point_are_constants_in_the_order_of_the_text():
    expression = parse("1.5 * r - 2 * (A + -0.25)", NAMES)
    assert formulas.constants_of(expression) == (1.5, -0.25)
    assert text_of(formulas.with_constants(expression, (3.0, 4.0))) == "3.0 * r - 2 * (A + 4.0)"
    assert formulas.length(expression) == 9
    assert formulas.inputs_of(parse("r - 1", NAMES)) == {"r"}


def test_meta_parameters_are_near_what_is_written():
    parts = {"one": parse("1.5 * r", NAMES), "none": parse("r", NAMES)}
    assert list(formulas.written(parts)) == ["one"]
    assert formulas.written({"none": parts["none"]}) == ()
    first, second = (formulas.initial(jax.random.key(seed), parts)["one"] for seed in (0, 1))
    assert first != second
    assert abs(first - 1.5) < 0.1
    assert formulas.texts(parts, {"one": jnp.array([2.0])}) == {"one": "2.0 * r", "none": "r"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x + 1", "unknown input 'x'"),
        ("foo(r)", "unknown function 'foo'"),
        ("max(r)", "takes 2, got 1"),
        ("r / 2", "cannot stand in"),
        ("r**3", "cannot stand in"),
        ("r.__class__", "cannot stand in"),
        ("__import__('os')", "unknown function"),
        ("(lambda: r)()", "cannot stand in"),
        ("True", "cannot stand in"),
        ("1e999", "cannot stand in"),
        ("r if A else 1", "cannot stand in"),
        ("", "is not a formula"),
        ("(" * 300, "is not a formula"),
        ("r + " * 400 + "r", "at most 1000 characters"),
    ],
)
def test_whatever_is_not_arithmetic_is_refused(text, complaint):
    with pytest.raises(ConfigError, match=complaint.replace("(", r"\(")):
        parse(text, NAMES)
