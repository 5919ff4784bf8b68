"""Symbolic regression: known rules come back, equal seeds give equal formulas, forms are shortened."""

import numpy as np
import pytest

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.formulas import evaluate, parse, text_of
from metadisco.distillation import fronts, rules, simplification
from metadisco.distillation.fronts import Formula
from metadisco.distillation.regression import Search, search, telling
from metadisco.distillation.sampling import Samples
from metadisco.objectives.drift import DPODrift, PPODrift
from metadisco.objectives.formula_drift import BRANCHES
from metadisco.objectives.mirror_learning import MirrorLearning

SHORT = Search(population=100, generations=20, restarts=1, num_samples=200, max_length=16)


def samples(num=2000) -> Samples:
    """Ratios and advantages as agents have them."""
    rng = np.random.default_rng(0)
    columns = {
        "l": np.clip(rng.normal(0.0, 0.3, num), -1.0, 1.0),
        "A": np.clip(rng.normal(0.0, 1.0, num), -3.0, 3.0),
        "t": rng.uniform(0.0, 1.0, num),
    }
    return Samples({name: each.astype(np.float32) for name, each in columns.items()}, np.arange(num) % 4 == 3)


def distilled(drift, branch, settings=SHORT) -> str:
    """The formula of the smallest error of one branch of a drift."""
    functions = rules.of(Discovered(MirrorLearning(drift), ())).functions(samples())
    function = functions[BRANCHES.index(branch)]
    best = fronts.front(function, search=settings, seed=0)[-1]
    assert function.error(best.expression, function.held_out) < 1e-6
    return best.text


@pytest.mark.parametrize(("branch", "formula"), [("better", "A * (r - 1.2)"), ("worse", "A * (r - 0.8)")])
def test_ppo_is_found_in_its_own_drift(branch, formula):
    assert distilled(PPODrift(), branch) == formula


def test_dpo_is_found_in_its_own_drift():
    assert distilled(DPODrift(), "worse") == "A * l - 0.6 * tanh(1.667 * A * l)"


@pytest.mark.slow
def test_dpo_is_found_in_its_own_drift_for_good_actions():
    longer = Search(population=250, generations=40, restarts=2, max_length=18)
    assert distilled(DPODrift(), "better", longer) == "A * (r - 1) - 2.0 * tanh(0.5 * A * (r - 1))"


def test_equal_seeds_find_equal_formulas():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(100, 2))
    values = np.tanh(columns[:, 0]) - columns[:, 1]
    tiny = Search(population=30, generations=3, restarts=2, max_length=9)
    first, second, other = (search(columns, ("x", "y"), values, settings=tiny, seed=seed) for seed in (0, 0, 9))
    assert list(map(text_of, first)) == list(map(text_of, second)) != list(map(text_of, other))


def test_a_formula_of_the_search_has_the_values_that_the_library_says():
    from pyoperon.sklearn import SymbolicRegressor

    from metadisco.distillation.regression import _SYMBOLS, _read

    rng = np.random.default_rng(1)
    columns = rng.normal(size=(60, 2))
    values = np.maximum(columns[:, 0], columns[:, 1] ** 2) - np.tanh(columns[:, 0])
    known = SymbolicRegressor(
        allowed_symbols=_SYMBOLS, objectives=["mse", "length"], population_size=60, generations=3, random_state=0
    ).fit(columns, values)
    names = {key: name.lower() for key, name in known.variables_.items()}
    inputs = {f"x{place + 1}": columns[:, place].astype(np.float32) for place in range(2)}
    for solution in known.pareto_front_:
        ours = evaluate(_read(solution["tree"].Nodes, names), inputs, xp=np)
        theirs = known.evaluate_model(solution["tree"], columns)
        np.testing.assert_allclose(np.broadcast_to(ours, 60), theirs, rtol=1e-3, atol=1e-4)


def test_half_of_the_samples_are_far_from_the_median():
    values = np.concatenate([np.zeros(900), np.arange(1.0, 101.0)])
    chosen = telling(values, 100, seed=0)
    assert len(set(chosen)) == 100
    assert np.sum(values[chosen] > 0.0) >= 50
    assert len(telling(values, 2000, seed=0)) == 1000


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("1.0 * x + 0.0 * y", "x"),
        ("2.0 * (x * y) - 0.4 * y", "y * (2.0 * x - 0.4)"),
        ("max(x, 0.0)", "relu(x)"),
        ("x + 1.5 - (0.5 + y)", "x + 1.0 - y"),
        ("x * x * x", "x**2 * x"),
        ("abs(p) * x", "p * x"),
        ("abs(n)", "-n"),
    ],
)
def test_formulas_are_shortened_without_a_change_of_their_values(long, short):
    names = ("x", "y", "p", "n")
    expression = parse(long, names)
    found = simplification.simplified(expression, signs={"p": 1, "n": -1}, columns={}, digits=6)
    assert text_of(found) == text_of(parse(short, names)).replace("1.0 -", "1 -")
    inputs = {name: np.linspace(0.5, 2.0, 5, dtype=np.float32) for name in "xyp"} | {"n": np.float32(-0.7)}
    np.testing.assert_allclose(evaluate(found, inputs, xp=np), evaluate(expression, inputs, xp=np), rtol=1e-5)


def test_latex_has_the_names_of_inputs():
    assert simplification.latex(parse("0.5 * t * tanh(l)", ("t", "l")), {"t": "n/N", "l": r"\log r"}) == (
        r"0.5 n/N \tanh{\left(\log r \right)}"
    )


def test_the_shortest_formula_within_the_tolerance_is_chosen():
    front = [Formula(parse(text, ("x",)), error) for text, error in (("0.5", 1.0), ("2.0 * x", 0.02), ("x**2", 0.015))]
    assert fronts.chosen(front, 0.01).text == "2.0 * x"
    assert fronts.chosen(front, 0.001).text == "x**2"


def test_constants_are_fitted_to_all_samples_alike_though_a_search_is_told_of_the_unusual_ones():
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=4000).astype(np.float32)}
    values = np.where(np.arange(4000) % 40 == 0, 5.0, 0.0).astype(np.float32)
    function = fronts.Function("f", inputs, values, np.arange(4000) % 4 == 3, rules.as_it_is, {"column": "x"})
    shortest = fronts.front(function, search=Search(30, 2, 1, 100, 5), seed=0)[0]
    assert shortest.expression.value == pytest.approx(np.mean(values[~function.held_out]), rel=0.05)
