"""Symbolic regression: formulas of a few columns of numbers, on a Pareto front of length against error.

The search is pyoperon's (C++; NSGA-II over trees, Levenberg-Marquardt for their constants;
doi:10.1007/s10710-019-09371-3), which is an optional dependency. With one thread, equal arguments give equal formulas.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from metadisco.core import formulas
from metadisco.core.config import ConfigError, check_counts
from metadisco.core.formulas import Call, Expression, Input, Number

_SYMBOLS = "add,sub,mul,fmin,fmax,tanh,square,constant,variable"
# By the names of nodes, which are what is computed: the types of fmin and fmax are exchanged in pyoperon 0.6.2.
_CALLS = {"+": "add", "-": "sub", "*": "mul", "fmin": "min", "fmax": "max", "tanh": "tanh", "square": "square"}
NEEDED = "symbolic regression needs pyoperon and sympy, which are not installed: pip install 'metadisco[distill]'"


@dataclass(frozen=True)
class Search:
    """How long to search.

    Attributes:
        population: trees of one generation.
        generations: of one search.
        restarts: searches, each with a seed of its own; their fronts are put together.
        num_samples: samples that a search sees, at most.
        max_length: nodes of a tree.
    """

    population: int = 250
    generations: int = 40
    restarts: int = 2
    num_samples: int = 600
    max_length: int = 25

    def __post_init__(self) -> None:
        check_counts(self, "population", "generations", "restarts", "num_samples", "max_length")


def check_installed() -> None:
    """Raise ConfigError where the libraries are missing, before any work is done."""
    if any(importlib.util.find_spec(name) is None for name in ("pyoperon", "sympy")):
        raise ConfigError(NEEDED)


def search(
    columns: np.ndarray, names: Sequence[str], values: np.ndarray, *, settings: Search, seed: int
) -> list[Expression]:
    """Formulas of the columns for the values, the front of every restart.

    Args:
        columns: [S, C] float.
        names: of the columns, which are the inputs of the formulas.
        values: [S] float, not all the same.
        settings: how long to search.
        seed: of the samples that are chosen, and of the searches.
    """
    chosen = telling(values, settings.num_samples, seed)
    columns, values = columns[chosen].astype(float), values[chosen].astype(float)
    found: list[Expression] = []
    for restart in range(settings.restarts):
        found += _one_search(columns, names, values, settings, seed + restart)
    return found


def telling(values: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of at most so many samples, half of them from the tenth whose values are the farthest from the median.

    Where most values are alike, a few hundred samples drawn evenly would hardly have another.
    """
    order = np.random.default_rng(seed).permutation(len(values))
    if len(order) <= most:
        return order
    distance = np.abs(values - np.median(values))[order]
    is_far = distance >= np.quantile(distance, 0.9)
    far = order[is_far][: most // 2]
    return np.concatenate([far, order[~np.isin(order, far)][: most - len(far)]])


def _one_search(
    columns: np.ndarray, names: Sequence[str], values: np.ndarray, settings: Search, seed: int
) -> list[Expression]:
    from pyoperon.sklearn import SymbolicRegressor

    regressor = SymbolicRegressor(
        allowed_symbols=_SYMBOLS,
        objectives=["mse", "length"],
        optimizer_iterations=5,
        max_length=settings.max_length,
        population_size=settings.population,
        generations=settings.generations,
        max_evaluations=settings.population * settings.generations * 100,  # counts those of constants, too
        n_threads=1,
        random_state=seed % 2**31,
    ).fit(columns, values)
    by_hash = {key: names[int(name[1:]) - 1] for key, name in regressor.variables_.items()}  # X1, X2, ...
    inputs = {name: columns[:, place].astype(np.float32) for place, name in enumerate(names)}
    found = []
    for solution in regressor.pareto_front_:
        tree = _read(solution["tree"].Nodes, by_hash)
        theirs = regressor.evaluate_model(solution["tree"], columns)
        if _is_same(formulas.evaluate(tree, inputs, xp=np), theirs):
            found.append(tree)
    if not found:
        raise ConfigError(
            f"formulas of pyoperon {version('pyoperon')} are not understood: install that of constraints/"
        )
    return found


def _is_same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether a tree was read as the library means it; where large terms cancel, single samples may differ."""
    return bool(np.median(np.abs(ours - theirs) / (1.0 + np.abs(theirs))) < 1e-3)


def _read(nodes: Sequence[Any], names: dict[int, str]) -> Expression:
    """A tree of pyoperon: nodes in postfix order, the first argument the nearest to its function."""
    stack: list[Expression] = []
    for node in nodes:
        if node.IsConstant:
            stack.append(Number(float(node.Value)))
        elif node.IsVariable:  # which has a weight of its own
            stack.append(Call("mul", (Number(float(node.Value)), Input(names[node.HashValue]))))
        else:
            arguments = [stack.pop() for _ in range(node.Arity)]
            stack.append(Call(_CALLS[node.Name], tuple(arguments)))
    (tree,) = stack
    return tree
