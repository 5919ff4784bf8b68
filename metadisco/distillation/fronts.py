"""One function as formulas: searched for, simplified, refined, and put on a front of length against error."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metadisco.core import formulas
from metadisco.core.formulas import Expression
from metadisco.distillation import regression, simplification
from metadisco.distillation.refinement import Respond, refined

TOO_SMALL = 1e-12  # a variance that is none
NO_ERROR = 1e-7  # below which a longer formula is not worth while
NUM_REFINED = 20_000  # samples by which constants are fitted
WORTH_REFINING = 1.5  # times the error of the best that is no longer


@dataclass(frozen=True, eq=False)
class Function:
    """What is to be put as a formula.

    Attributes:
        name: in tables.
        inputs: of the formulas, by name: [S] float32.
        values: [S] float32, of the function at these inputs.
        held_out: [S] bool, samples of lives that nothing is fitted to.
        respond: what the component makes of a formula.
        columns: what the search sees, as formulas of the inputs, by names that are not those of inputs.
        signs: see `simplification.Signs`.
        active: [S] bool, where a search is to be made once more, alone; None for no such search.
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    values: np.ndarray
    held_out: np.ndarray
    respond: Respond
    columns: Mapping[str, str]
    signs: simplification.Signs = field(default_factory=dict)
    active: np.ndarray | None = None

    def parsed(self, text: str) -> Expression:
        """A formula of the inputs."""
        return formulas.parse(text, tuple(self.inputs))

    def response(self, expression: Expression, chosen: np.ndarray) -> np.ndarray:
        """What the component makes of a formula at some of the samples. [S'] float32."""
        inputs = {name: each[chosen] for name, each in self.inputs.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite counts as an infinite error
            found = self.respond(expression, inputs, formulas.constants_of(expression), np)
        return np.broadcast_to(found, (int(chosen.sum()),))

    def error(self, expression: Expression, chosen: np.ndarray) -> float:
        """Mean squared error as a share of the variance, 1 - R^2; infinite where it is not finite."""
        values = self.values[chosen]
        with np.errstate(over="ignore", invalid="ignore"):
            misses = np.mean(np.square(self.response(expression, chosen) - values, dtype=float))
        spread = float(np.var(values, dtype=float))
        if spread <= TOO_SMALL:
            return 0.0 if misses <= TOO_SMALL else float("inf")
        return float(misses / spread) if np.isfinite(misses) else float("inf")


@dataclass(frozen=True)
class Formula:
    """A point of a front.

    Attributes:
        expression: the formula.
        error: 1 - R^2 on the samples that it was fitted to.
    """

    expression: Expression
    error: float

    @property
    def length(self) -> int:
        """Nodes."""
        return formulas.length(self.expression)

    @property
    def text(self) -> str:
        """As it is written."""
        return formulas.text_of(self.expression)


def front(function: Function, *, search: regression.Search, seed: int) -> list[Formula]:
    """The formulas of a function that no shorter one is as good as, the shortest first."""
    fitted = ~function.held_out
    values = function.values[fitted]
    if np.var(values, dtype=float) <= TOO_SMALL:  # nothing to be searched for
        constant = float(f"{float(np.mean(values)):.4g}")
        return [Formula(formulas.Number(constant), 0.0)]
    candidates = _candidates(function, search, seed)
    measured = _best([Formula(each, function.error(each, fitted)) for each in candidates], slack=WORTH_REFINING)
    return _best([_finished(function, each.expression, seed) for each in measured])


def chosen(front: list[Formula], tolerance: float) -> Formula:
    """The shortest formula whose error is within a tolerance of the smallest; errors are shares of the variance."""
    smallest = min(each.error for each in front)
    return next(each for each in front if each.error <= smallest + tolerance)


def as_data(front: list[Formula]) -> list[dict[str, Any]]:
    """A front as JSON."""
    return [{"formula": each.text, "length": each.length, "error": each.error} for each in front]


def _candidates(function: Function, search: regression.Search, seed: int) -> list[Expression]:
    """What the searches find, as formulas of the inputs, none of them twice, and none too long; and a constant."""
    meanings = {name: function.parsed(text) for name, text in function.columns.items()}
    shape = function.values.shape
    columns = np.stack(
        [np.broadcast_to(formulas.evaluate(each, function.inputs, xp=np), shape) for each in meanings.values()], axis=1
    )
    found: dict[str, Expression] = {}
    for where in (~function.held_out, function.active):
        if where is None or np.var(function.values[where & ~function.held_out]) <= TOO_SMALL:
            continue
        where = where & ~function.held_out
        for tree in regression.search(
            columns[where], list(meanings), function.values[where], settings=search, seed=seed
        ):
            if formulas.length(tree) <= simplification.LONGEST:
                for form in simplification.with_and_without_relu(tree):
                    short = simplification.simplified(form, signs=function.signs, columns=meanings, digits=6)
                    found.setdefault(formulas.text_of(short), short)
    mean = formulas.Number(float(f"{float(np.mean(function.values[~function.held_out])):.4g}"))
    return [mean, *(each for each in found.values() if formulas.length(each) <= search.max_length)]


def _finished(function: Function, expression: Expression, seed: int) -> Formula:
    """The formula with refined constants, of as few digits as cost nothing, and without a term that costs nothing."""
    fitted = ~function.held_out
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(fitted))[:NUM_REFINED]  # evenly, unlike a search
    inputs = {name: each[chosen] for name, each in function.inputs.items()}
    exact = refined(expression, function.respond, inputs, function.values[chosen])
    error = function.error(exact, fitted)
    for form in simplification.without_constant(exact):
        short = refined(form, function.respond, inputs, function.values[chosen])
        if function.error(short, fitted) <= 1.02 * error + NO_ERROR:
            exact = short
    for digits in (2, 3, 4, 6):
        short = simplification.simplified(exact, signs=function.signs, columns={}, digits=digits)
        if function.error(short, fitted) <= 1.02 * error + NO_ERROR:
            break
    return Formula(short, function.error(short, fitted))


def _best(measured: Iterable[Formula], *, slack: float = 0.99) -> list[Formula]:
    """Those whose error is clearly below that of every shorter one; with more slack, up to so many times it."""
    kept: list[Formula] = []
    smallest = float("inf")
    for each in sorted(measured, key=lambda formula: (formula.length, formula.error)):
        if each.error < slack * smallest and (smallest > NO_ERROR or slack > 1.0):
            kept.append(each)
            smallest = min(smallest, each.error)
    return kept
