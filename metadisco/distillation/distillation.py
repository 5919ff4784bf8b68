"""Distill a learned rule into short formulas: sample lives, search, choose, and put the formulas in its place."""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config, formulas
from metadisco.core.jax_defaults import own_defaults
from metadisco.distillation import fronts, regression, rules, sampling, simplification
from metadisco.distillation.fronts import Formula, Function
from metadisco.distillation.sampling import Place, Samples
from metadisco.evaluation import agents_under_test, suites
from metadisco.evaluation.environments import as_seen_by
from metadisco.objectives.drift import DPODrift, Drift, PPODrift, verdicts, violations
from metadisco.objectives.mirror_learning import MirrorLearning

MOST_SAMPLES = 60_000
SYMBOLS = {"A": "A", "r": "r", "l": r"\log r", "t": "n/N"}  # of inputs in LaTeX; others are words


@dataclass(frozen=True)
class Settings:
    """How a rule is distilled.

    Attributes:
        num_lives: agents that live in each environment; a fourth of them is held out.
        tolerance: the formula that is chosen is the shortest whose error, 1 - R^2, is at most this above the best.
        seed: of lives and searches.
        search: how long to search.
    """

    num_lives: int = 16
    tolerance: float = 0.01
    seed: int = 0
    search: regression.Search = field(default_factory=regression.Search)

    def __post_init__(self) -> None:
        sampling.check_lives(self.num_lives)
        config.check_seed(self.seed)
        if not 0.0 <= self.tolerance < 1.0:
            raise ValueError(f"Settings.tolerance must be in [0, 1), got {self.tolerance}")


@dataclass(frozen=True, eq=False)
class Part:
    """One function of a rule, distilled."""

    name: str
    front: list[Formula]
    chosen: Formula
    r2: float  # on lives that nothing was fitted to
    spread: tuple[float, float]  # of the function's values there: the fifth and the ninety-fifth percentile

    def as_data(self) -> dict[str, Any]:
        """As JSON, in a checkpoint's provenance."""
        inputs = formulas.inputs_of(self.chosen.expression)
        words = {name: SYMBOLS.get(name, r"\mathrm{" + name.replace("_", r"\_") + "}") for name in inputs}
        return {
            "name": self.name,
            "formula": self.chosen.text,
            "length": self.chosen.length,
            "latex": simplification.latex(self.chosen.expression, words),
            "r2": self.r2,
            "values_5_to_95": list(self.spread),
            "front": fronts.as_data(self.front),
        }


def places(discovered: Discovered, named: Sequence[str], settings: Settings) -> list[Place]:
    """Where agents are to live: on the tasks of suites, or on those of the meta-training where none is named.

    Raises:
        config.ConfigError: where a suite is unknown, or the checkpoint does not say what trained it.
    """
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)
    if not named:
        domains = agents_under_test.trainer_of(discovered).domains
        return sampling.places_of(domains, agents_under_test.trained_with(discovered), key, settings.num_lives)
    requested = [suite for each in named for suite in suites.find(each)]
    planned = agents_under_test.plan(agents_under_test.trained_objectives({"rule": discovered}), requested, [])
    found = []
    for test in planned:
        (agent,) = test.agents
        built = test.suite.build()
        chosen = np.arange(settings.num_lives) % built.num_tasks
        tasks = jax.tree.map(lambda leaf: leaf[chosen], built.tasks)  # noqa: B023
        inner = replace(agent.inner, env=as_seen_by(agent.inner, built.env))
        found.append(Place(test.name, inner, tasks))
    return found


@own_defaults
def distill(
    discovered: Discovered,
    where: Sequence[Place],
    settings: Settings | None = None,
    *,
    name: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Discovered, list[Part]]:
    """Put formulas in the place of what a rule has learned.

    Args:
        discovered: the rule.
        where: environments in which agents live by it, from `places`.
        settings: how.
        name: what the rule is called, for the provenance.
        say: told what is being done.

    Returns:
        The rule with formulas, whose provenance has the fronts as `distillation`, and each of its functions.

    Raises:
        config.ConfigError: where the objective is of a kind that is not distilled, or a library is missing.
    """
    regression.check_installed()
    settings = settings or Settings()
    rule = rules.of(discovered)
    say(f"living in {', '.join(place.name for place in where)}")
    ready = [Place(place.name, rule.prepare(place.inner), place.tasks) for place in where]
    key = jax.random.fold_in(jax.random.key(settings.seed), 2)
    samples = sampling.collect(ready, discovered.meta_params, rule.watch, key)
    samples = sampling.thinned(samples, MOST_SAMPLES, settings.seed)
    parts = []
    for function in rule.functions(samples):
        parts.append(_distilled(function, settings))
        say(f"{function.name} = {parts[-1].chosen.text}, R² {parts[-1].r2:.3f}")
    objective, meta_params = rule.component({part.name: part.chosen.expression for part in parts})
    found = Discovered(objective, meta_params)
    origin = {key: value for key, value in discovered.provenance.items() if key in ("trainer", "preset")}
    told: dict[str, Any] = {
        "of": {"name": name, "sha256": checkpoint.digest(discovered)},
        "sampled": {place.name: int(place.tasks.lifetime.shape[0]) for place in where},
        "num_samples": len(samples),
        "held_out": int(samples.held_out.sum()),
        "tolerance": settings.tolerance,
        "seed": settings.seed,
        "libraries": {each: importlib.metadata.version(each) for each in ("pyoperon", "sympy")},
        "parts": [part.as_data() for part in parts],
    }
    if isinstance(objective, MirrorLearning):
        told |= _of_drift(discovered, found, samples)
    return Discovered(objective, meta_params, origin | {"distillation": told}), parts


def _distilled(function: Function, settings: Settings) -> Part:
    front = fronts.front(function, search=settings.search, seed=settings.seed)
    chosen = fronts.chosen(front, settings.tolerance)
    low, high = np.quantile(function.values[function.held_out], (0.05, 0.95))
    error = function.error(chosen.expression, function.held_out)
    return Part(function.name, front, chosen, 1.0 - error, (float(low), float(high)))


def _of_drift(original: Discovered, found: Discovered, samples: Samples) -> dict[str, Any]:
    """What is to be known of a drift besides: R^2 of its slope, of PPO's and DPO's drifts, and the conditions."""
    samples = rules.usual(samples)
    told = [samples.columns[name][samples.held_out] for name in ("l", "A", "t")]
    theirs, ours = (rules.slopes(each.drift_rule, each.meta_params, *told) for each in (original, found))
    values = rules.penalties(original.drift_rule, original.meta_params, *told)
    beside: dict[str, Drift] = {"PPO": PPODrift(), "DPO": DPODrift()}
    return {
        "r2_of_slope": r_squared(theirs, ours),
        "r2_beside": {name: r_squared(values, rules.penalties(each, (), *told)) for name, each in beside.items()},
        "conditions": verdicts(violations(found.drift_rule, found.meta_params)),
    }


def r_squared(values: np.ndarray, estimates: np.ndarray) -> float:
    """The share of the variance that estimates explain; 1 where there is none to explain."""
    spread = float(np.var(values, dtype=float))
    return 1.0 - float(np.mean(np.square(estimates - values, dtype=float))) / spread if spread > 0.0 else 1.0
