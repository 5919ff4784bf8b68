"""Meta-test: objectives and hand-written algorithms on the same lives, and tables of the results.

An objective alone is called `discovered`, also in the files of a run. Several are called by their names, and no table
has objectives whose agents had different budgets, or that were trained for other lifetimes, without saying so.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.checkpoints.disco103 import DISCO103, as_discovered, load_by_reference
from metadisco.core import config, devices, score_table, trees
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.score_table import counted
from metadisco.curricula.tasks import DrawsTasks, FixedLifetime, LogUniformLifetime, TaskMixture, Tasks
from metadisco.evaluation import agents_under_test, any_environment, duration, evaluation, results, suites
from metadisco.evaluation.agents_under_test import FOR_TABLES, PlannedTest, TrainedObjective
from metadisco.evaluation.catalog import UPPER_ANCHORS
from metadisco.evaluation.environments import as_seen_by
from metadisco.evaluation.results import Results
from metadisco.meta_training import memory_estimate
from metadisco.runs.progress import Bars, Ticker, clock, is_live

Checkpoint = Discovered | str | os.PathLike
RESERVED = ("random", *UPPER_ANCHORS, *FOR_TABLES)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results of a meta-test."""

    results: Results
    tests: list[PlannedTest]  # the plan
    differences: list[str]  # between the agents of several objectives, a sentence each


def load_all(references: Sequence[str]) -> dict[str, Discovered]:
    """Load checkpoints by name: each a name in the zoo, a folder, `disco103:PATH`, or `NAME=` and one of them.

    One alone is called `discovered` unless it is given a name. Of several, each has its name in the zoo or that of its
    folder; of `RUN/objective` that of the run's.

    Raises:
        config.ConfigError: where two have one name, or a name is taken.
        CheckpointError: as `checkpoint.load`.
    """
    found: dict[str, Discovered] = {}
    for reference in references:
        given, equals, place = reference.partition("=")
        if not equals or Path(reference).exists():
            given, place = "" if len(references) > 1 else "discovered", reference
        name = given or _name_of(place)
        if name in found:
            raise config.ConfigError(f"two checkpoints are called {name!r}: give one a name of its own, mine={place}")
        if name in RESERVED:
            raise config.ConfigError(f"a checkpoint cannot be called {name!r}: give it another name, mine={place}")
        found[name] = load_by_reference(place)
    return found


@own_defaults
def meta_test(
    discovered: Checkpoint | Mapping[str, Checkpoint],
    suite_names: str | Sequence[str] = ("grid-unseen",),
    *,
    num_seeds: int = 2,
    seed: int = 0,
    num_levels: int | None = None,
    baselines: str | Sequence[str] | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
    console: Any = None,
) -> Results:
    """Test discovered objectives next to baselines.

    Grid suites test the tabular agents of meta-training, other suites their own reference agents.

    Args:
        discovered: from `metadisco.load`, or what it takes: a name or a path; or several of them by the names that they
            are to have in tables. One alone is called `discovered`.
        suite_names: one, or several, of suites or groups of them, such as `NAME`, `NAME@LIFETIME`, `NAME@x4` or
            `horizons:NAME`.
        num_seeds: agents per task.
        seed: of the agents.
        num_levels: only the first so many tasks of each suite.
        baselines: names of hand-written objectives; by default those that are usual for each suite.
        settings: of all agents, by their paths, such as `{"inner.num_workers": 16}`; what baselines were tuned for and
            scales were measured with are the usual ones.
        console: `rich` console for progress and the table.

    Returns:
        The results, which show themselves as a table; `records()` and `to_frame()` are for further work.

    Raises:
        ValueError: for numbers that are none.
        config.ConfigError: for unknown suites or baselines, or a checkpoint that does not say what agents it was
            trained with.
    """
    config.check_seed(seed)
    config.check_whole("num_seeds", num_seeds, 1)
    if num_levels is not None:
        config.check_whole("num_levels", num_levels, 1)
    given = discovered if isinstance(discovered, Mapping) else {"discovered": discovered}
    return run(
        {name: as_discovered(each) for name, each in given.items()},
        [suite_names] if isinstance(suite_names, str) else suite_names,
        num_seeds=num_seeds,
        seed=seed,
        num_levels=num_levels,
        baselines=[baselines] if isinstance(baselines, str) else baselines,
        settings=settings,
        console=console,
    ).results


@own_defaults
def run(
    named: Mapping[str, Discovered],
    suite_names: Sequence[str],
    *,
    num_seeds: int = 2,
    seed: int = 0,
    num_levels: int | None = None,
    baselines: Sequence[str] | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
    console: Any = None,
) -> Comparison:
    """As `meta_test`, with the plan and the differences between the objectives."""
    tests = plan(agents_under_test.trained_objectives(named), suite_names, num_levels, baselines)
    tests = agents_under_test.with_settings(tests, settings)
    if console is not None:
        for test in tests:
            if settings or any_environment.is_named_so(test.name):
                console.print(_agents_in_words(test), markup=False, highlight=False, soft_wrap=True)
    unequal = _lifetimes_differ(named) + agents_under_test.differences(tests)
    outcome = run_tests(tests, num_seeds=num_seeds, seed=seed, console=console)
    if console is not None:
        show(results.table(outcome), console)
        _show_improvement(outcome, console)
        for sentence in unequal:
            console.print(f"[bold]Note:[/bold] {sentence}", highlight=False)
    return Comparison(outcome, tests, unequal)


def _agents_in_words(test: PlannedTest) -> str:
    """How the agents of a test learn, where that was not chosen for it."""
    inner = test.agents[-1].inner
    return (
        f"Agents on {test.name}: {inner.torso}, {inner.num_workers} workers x {inner.num_steps} steps an update, "
        f"{inner.learner}. Any of it is changed by its path, as in --inner.num_workers 16."
    )


def plan(
    objectives: Sequence[TrainedObjective],
    suite_names: Sequence[str],
    num_levels: int | None = None,
    baselines: Sequence[str] | None = None,
) -> list[PlannedTest]:
    """`agents_under_test.plan` for names of suites, see `metadisco.evaluation.suites.find`."""
    requested = [each for name in suite_names for each in suites.find(name, num_levels)]
    return agents_under_test.plan(objectives, requested, baselines)


def run_tests(tests: Sequence[PlannedTest], *, num_seeds: int, seed: int, console: Any = None) -> Results:
    """Run planned tests, showing progress: all levels are drawn and solved first, then agents are trained on them.

    Where no bar can be redrawn, a line is printed every minute.
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    def say(text: str) -> None:
        if console is not None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    _check_memory(tests, num_seeds)
    if tests:
        what = f"{counted(sum(len(test.agents) for test in tests), 'agent')} on {counted(len(tests), 'suite')}"
        say(f"Testing {what}: {duration.in_words(duration.seconds(tests, num_seeds))} here.")
    test_sets = [test.build() for test in tests]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    found = Results()
    begun, at = time.monotonic(), ["drawing levels"]
    ticker = Ticker(
        lambda: say(f"{at[0]} · elapsed {clock(time.monotonic() - begun)}"),
        is_on=console is not None and not is_live(console),
    )
    with ticker, Bars(console, *columns, is_shown=console is not None) as bars:
        places = {
            (test.name, agent.name): bars.add(f"{test.name}: {agent.name}", 1.0, start=False)
            for test in tests
            for agent in test.agents
        }

        def advance(suite: str, agent: str, fraction: float) -> None:
            at[0] = f"{suite}: {agent} {fraction:.0%}"
            bars.update(places[suite, agent], fraction)

        for test, test_set in zip(tests, test_sets, strict=True):
            found[test.name] = evaluation.compare(
                test.agents, test_set, seed=seed, num_seeds=num_seeds, on_progress=partial(advance, test.name)
            )
            devices.forget_if_many()
    return found


def _check_memory(tests: Sequence[PlannedTest], num_seeds: int) -> None:
    """Refuse a test whose agents cannot fit. Raises ConfigError, before anything is drawn."""
    available = memory_estimate.available_bytes()
    for test in tests:
        num_lives = test.suite.size * num_seeds
        for agent in test.agents:
            inner = agent.inner
            if test.suite.suite.inner is None:
                inner = replace(inner, env=as_seen_by(inner, test.suite.suite.env))
            size = trees.num_bytes(jax.eval_shape(inner.agent.init, jax.random.key(0)))
            if 3 * size * num_lives > available:  # parameters, those of the optimizer, and a copy of both on the way
                raise config.ConfigError(
                    f"{test.name} with {counted(test.suite.size, 'level')} and {counted(num_seeds, 'seed')} has "
                    f"{num_lives:,} agents, which need about {3 * size * num_lives / 2**30:,.0f} GiB; there are "
                    f"{available / 2**30:.0f} GiB. Lower --seeds or --levels."
                )


def show(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], console: Any) -> None:
    """Print a table for each suite; rows of an older version lack some statistics."""
    for suite, agents in scores.items():
        first = next(iter(agents.values()), {})
        of = [f" of {counted(first['num_tasks'], 'level')}"] if "num_tasks" in first else []
        of += [f" at lifetime {first['lifetime']}"] if "lifetime" in first else []
        what = "normalised score" if results.are_scaled(agents) else "return"
        title = f"{suite}: {what}{''.join(of)}"
        score_table.show(_narrow(agents), title, console)
    for sentence in results.remarks(scores):
        console.print(sentence, highlight=False, markup=False)


def _narrow(agents: Mapping[str, Mapping[str, Any]]) -> score_table.Table:
    """Columns for a terminal of a hundred: the interval of the IQM only."""
    others = ("optimality_gap", "cvar", "mean_score", "mean_return")
    head = ["agent", "IQM", "95% interval", "opt. gap", "worst 10%", "mean", "mean return"]
    rows = [
        [
            agent,
            score_table.decimal(row.get("iqm")),
            score_table.interval(row.get("iqm_low"), row.get("iqm_high")),
            *(score_table.decimal(row.get(name)) for name in others),
        ]
        for agent, row in agents.items()
    ]
    return score_table.Table(head, rows)


def improvement_table(improvement: Mapping[str, Mapping[str, Any]]) -> score_table.Table:
    """Of `results.improvement`: each pair once, the later agent first, since objectives come after the baselines."""
    agents = list(improvement)
    pairs = [(agents[i], agents[j], improvement[agents[i]][agents[j]]) for i in range(len(agents)) for j in range(i)]
    rows = [
        [first, second, score_table.decimal(each["probability"]), score_table.interval(each["low"], each["high"])]
        for first, second, each in pairs
    ]
    return score_table.Table(["a run of", "scores more than one of", "P", "95% interval"], rows)


def _show_improvement(outcome: Results, console: Any) -> None:
    for suite, agents in outcome.items():
        table = improvement_table(results.improvement(agents))
        if table.rows:
            score_table.show(table, f"{suite}: probability of improvement", console, num_names=2)


def trained_lifetimes(discovered: Discovered) -> str:
    """The lifetimes that an objective was meta-trained on, in words; `unknown` where it does not say."""
    if "trainer" not in discovered.provenance:
        return "unknown"
    found = []
    for domain in agents_under_test.trainer_of(discovered).domains:
        curriculum = domain.curriculum
        tasks = curriculum.tasks if isinstance(curriculum, DrawsTasks) else curriculum
        found += [_lifetimes_of(part) for part in (tasks.parts if isinstance(tasks, TaskMixture) else (tasks,))]
    return " and ".join(dict.fromkeys(found))


def _lifetimes_of(tasks: object) -> str:
    """The lifetimes of a distribution of tasks, in words."""
    match tasks.lifetimes if isinstance(tasks, Tasks) else None:
        case FixedLifetime(num_updates):
            return str(num_updates)
        case LogUniformLifetime(shortest, longest):
            return f"{shortest} to {longest}"
        case None:
            return f"those of {tasks}"
        case other:
            return str(other)


def _lifetimes_differ(named: Mapping[str, Discovered]) -> list[str]:
    by_name = {name: trained_lifetimes(each) for name, each in named.items()}
    if len(set(by_name.values())) < 2:
        return []
    words = [f"{name} {each}" + " updates" * (each != "unknown") for name, each in by_name.items()]
    return ["trained lifetimes differ: " + ", ".join(words)]


def _name_of(place: str) -> str:
    if place.startswith(DISCO103):
        return DISCO103.removesuffix(":")
    if place in checkpoint.zoo_names():
        return place
    path = Path(place).absolute()
    return path.parent.name if path.name == "objective" else path.name
