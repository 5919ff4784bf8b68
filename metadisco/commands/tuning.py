"""`metadisco tune`: the scale of an environment, from PPO at the best of several rates of learning.

Rates are tried from the usual one in steps of a factor of three, until the best has a worse neighbor on either side, so
that what has the score 1 is a PPO that was tuned there. What has the score 0 is the same agent before it learns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metadisco.core import config, devices
from metadisco.core.score_table import counted, decimal
from metadisco.evaluation import any_environment, environments, evaluation, scales, suites
from metadisco.evaluation.duration import cost, in_words
from metadisco.evaluation.scales import Scale

FACTOR = 3.0
MOST = 4  # steps away from the usual rate


@dataclass(frozen=True)
class Tried:
    """What PPO got at one rate. Returns: mean over agents, and the standard error of it."""

    factor: float  # of the usual rate
    before: float
    after: float
    error: float


def tune(name: str, *, num_seeds: int = 4, updates: int | None = None, seed: int = 0, console: Any = None) -> Scale:
    """Measure the scale of an environment and keep it, see `metadisco.evaluation.scales`.

    Args:
        name: as `metadisco.evaluation.any_environment` takes it.
        num_seeds: agents for each rate.
        updates: the usual budget, agent updates; `any_environment.LIFETIME` by default.
        seed: of the agents.
        console: of rich.

    Raises:
        config.ConfigError: where there is no such environment, it has a scale of its own, or PPO does not get above
            what it began at.
    """
    if not any_environment.is_named_so(name):
        raise config.ConfigError(
            f"{name!r}: an environment to tune is LIBRARY:NAME with {', '.join(any_environment.LIBRARIES)}, or "
            "my_module:make_env; suites of metadisco have their scales"
        )
    config.check_whole("--seeds", num_seeds, 2)
    if updates is not None:
        config.check_whole("--updates", updates, 1)
    known = any_environment.environment(name)
    if known == environments.reference_of(known.inner.env):
        raise config.ConfigError(f"{name} has a scale of its own: evaluate on it as it is")
    env = known.inner.env
    usual, lifetime = any_environment.default_agent(env), updates or any_environment.LIFETIME
    test_set = replace(suites.suite(name).build(lifetime=lifetime), inner=usual)

    def say(text: str) -> None:
        if console is not None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    expected = cost(env, usual, lifetime, num_seeds)
    about = "" if expected is None else f", {in_words(expected)} a rate on this machine"
    say(
        f"PPO on {name}: {counted(num_seeds, 'agent')} for {counted(lifetime, 'update')} at three rates or more{about}."
    )

    def run(factor: float) -> Tried:
        inner = replace(usual, learner=any_environment.at_rate(usual.learner, factor))
        found = evaluation.evaluate(
            inner, (), replace(test_set, inner=inner), seed=seed, num_seeds=num_seeds, num_points=1
        )
        before, after = found.returns[0, 0], found.returns[-1, 0]
        tried = Tried(factor, float(before.mean()), float(after.mean()), float(after.std(ddof=1) / num_seeds**0.5))
        said = f"{decimal(tried.before)} before, {decimal(tried.after)} ± {decimal(tried.error)} after"
        say(f"rate x {factor:.3g}: {said}")
        devices.forget_if_many()
        return tried

    best = climb(run)
    try:
        scale = Scale(best.before, best.after, lifetime, best.factor, num_seeds)
    except ValueError as error:
        raise config.ConfigError(f"{name}: {error} (--updates)") from error
    scales.keep(name, scale)
    say(f"{name}: 0 is {decimal(best.before)}, 1 is {decimal(best.after)}; kept in {scales.path()}")
    return scale


def climb(run: Callable[[float], Tried]) -> Tried:
    """The best rate: the usual one and its two neighbors, and on where the best is at an end."""
    tried = {place: run(FACTOR**place) for place in (0, -1, 1)}
    while True:
        best = max(tried, key=lambda place: _worth(tried[place]))
        missing = [place for place in (best - 1, best + 1) if place not in tried and abs(place) <= MOST]
        if not missing:
            return tried[best]
        tried |= {place: run(FACTOR**place) for place in missing}


def _worth(tried: Tried) -> float:
    return tried.after if np.isfinite(tried.after) else -np.inf
