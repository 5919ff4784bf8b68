"""Any number of objectives and hand-written algorithms on the same lives: the meta-test, and what it says.

An objective alone is called `discovered`, also in the files of a run. Several are called by their names, and no table
has objectives whose agents had different budgets, or that were trained for other lifetimes, without saying so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config, devices
from metadisco.curricula.tasks import FixedLifetime, LogUniformLifetime
from metadisco.evaluation import agents_under_test, evaluation, results, suite_lookup
from metadisco.evaluation.agents_under_test import FOR_TABLES, Entrant, Roster
from metadisco.evaluation.results import Results
from metadisco.evaluation.test_sets import TOPS, GridSuite, TestSet
from metadisco.runs.progress import Bars

RESERVED = ("random", *TOPS, *FOR_TABLES)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came of a meta-test."""

    results: Results
    rosters: dict[str, Roster]  # suite -> who was compared on it
    differences: list[str]  # what makes objectives of one table unequal, a sentence each


def load_all(references: Sequence[str]) -> dict[str, Discovered]:
    """Load checkpoints by name: each a name in the zoo, a folder, or `NAME=` and one of them.

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
        found[name] = checkpoint.load(place)
    return found


def meta_test(
    discovered: Discovered | Mapping[str, Discovered],
    suite_names: Sequence[str] = ("grid-unseen",),
    *,
    num_seeds: int = 2,
    seed: int = 0,
    num_levels: int | None = None,
    baselines: Sequence[str] | None = None,
    console: Any = None,
) -> Results:
    """Test discovered objectives next to baselines.

    Grid suites test on the tabular agents that an objective was meta-trained with, others on networks of their own.

    Args:
        discovered: from `metadisco.load`; or several by name. One alone is called `discovered`.
        suite_names: of suites or groups of them, such as `NAME`, `NAME@LIFETIME`, `NAME@x4` or `horizons:NAME`.
        num_seeds: agents per task.
        seed: of the agents.
        num_levels: only the first so many tasks of each suite.
        baselines: names of hand-written objectives; by default those that are usual for each suite.
        console: `rich` console for progress and the table.

    Raises:
        config.ConfigError: for unknown suites or baselines, or a checkpoint that does not say what agents it was
            trained with.
    """
    named = {"discovered": discovered} if isinstance(discovered, Discovered) else discovered
    return run(
        named,
        suite_names,
        num_seeds=num_seeds,
        seed=seed,
        num_levels=num_levels,
        baselines=baselines,
        console=console,
    ).results


def run(
    named: Mapping[str, Discovered],
    suite_names: Sequence[str],
    *,
    num_seeds: int = 2,
    seed: int = 0,
    num_levels: int | None = None,
    baselines: Sequence[str] | None = None,
    console: Any = None,
) -> Comparison:
    """As `meta_test`, with who was compared and in what they differ."""
    entrants = {name: (agents_under_test.trained_with(each), each.meta_params) for name, each in named.items()}
    check_suites(entrants, suite_names, baselines)
    test_sets = [each for name in suite_names for each in agents_under_test.find_test_sets(name, num_levels)]
    rosters = _line_up(entrants, test_sets, baselines)
    unequal = _lifetimes_differ(named) + agents_under_test.differences(entrants, rosters)
    outcome = compare(entrants, test_sets, num_seeds=num_seeds, seed=seed, baselines=baselines, console=console)
    if console is not None:
        show(results.table(outcome), console)
        _show_improvement(outcome, console)
        for sentence in unequal:
            console.print(f"[bold]Note:[/bold] {sentence}", highlight=False)
    return Comparison(outcome, rosters, unequal)


def compare(
    entrants: Mapping[str, Entrant],
    test_sets: Sequence[TestSet],
    *,
    num_seeds: int,
    seed: int,
    baselines: Sequence[str] | None = None,
    console: Any = None,
) -> Results:
    """Evaluate objectives and baselines on the same lives, showing progress."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    rosters = _line_up(entrants, test_sets, baselines)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(console, *columns, is_shown=console is not None) as bars:
        places = {
            (suite, agent): bars.add(f"{suite}: {agent}", 1.0, start=False)
            for suite, roster in rosters.items()
            for agent in roster
        }

        def advance(suite: str, agent: str, fraction: float) -> None:
            bars.update(places[suite, agent], fraction)

        found: Results = {}
        for each in test_sets:
            found |= evaluation.compare(
                rosters[each.name], [each], seed=seed, num_seeds=num_seeds, num_points=8, on_progress=advance
            )
            devices.forget_if_many()
        return found


def check_suites(entrants: Mapping[str, Entrant], names: Sequence[str], baselines: Sequence[str] | None = None) -> None:
    """Mistakes are known before levels are solved. Raises ValueError where agents do not fit a suite."""
    for suite in (suite for name in names for suite, _ in suite_lookup.find(name)):
        roster = agents_under_test.roster(entrants, agents_under_test.home_of(suite), baselines, suite=suite.name)
        if isinstance(suite, GridSuite):
            for inner, _ in roster.values():
                replace(inner, env=suite.env)  # raises where the agent does not fit


def show(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], console: Any) -> None:
    """Print a table for each suite; rows of an older version lack some statistics."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    for suite, agents in scores.items():
        first = next(iter(agents.values()))
        title = f"{suite}: normalised score of {first['num_tasks']} levels at lifetime {first['lifetime']}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("agent", overflow="fold")
        for column in ("IQM", "95% interval", "opt. gap", "worst 10%", "mean", "mean return"):
            table.add_column(column, justify="right", no_wrap=True)
        for agent, row in agents.items():
            interval = f"{row['iqm_low']:.3f} to {row['iqm_high']:.3f}"
            others = [_decimal(row.get(name)) for name in ("optimality_gap", "cvar", "mean_score", "mean_return")]
            table.add_row(agent, f"{row['iqm']:.3f}", interval, *others)
        console.print(table)


def _show_improvement(outcome: Results, console: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    for suite, agents in outcome.items():
        ordered = pairs(results.improvement(agents))
        if ordered:
            table = Table(
                title=f"{suite}: probability of improvement",
                title_justify="left",
                box=SIMPLE_HEAD,
                pad_edge=False,
                padding=(0, 1, 0, 0),
            )
            table.add_column("a run of", overflow="fold")
            table.add_column("scores more than one of", overflow="fold")
            for column in ("P", "95% interval"):
                table.add_column(column, justify="right", no_wrap=True)
            for first, second, each in ordered:
                interval = f"{each['low']:.3f} to {each['high']:.3f}"
                table.add_row(first, second, f"{each['probability']:.3f}", interval)
            console.print(table)


def trained_lifetimes(discovered: Discovered) -> str:
    """The lifetimes that an objective was meta-trained on, in words."""
    found = []
    for domain in agents_under_test.trainer_of(discovered).domains:
        tasks = getattr(domain.curriculum, "tasks", None)
        match getattr(tasks, "lifetimes", None):
            case FixedLifetime(num_updates):
                found.append(str(num_updates))
            case LogUniformLifetime(shortest, longest):
                found.append(f"{shortest} to {longest}")
            case None:
                found.append(f"those of {tasks}")
            case other:
                found.append(str(other))
    return " and ".join(dict.fromkeys(found))


def pairs(improvement: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, Mapping[str, float]]]:
    """Each pair once, the later agent first: objectives come after the baselines."""
    agents = list(improvement)
    return [(agents[i], agents[j], improvement[agents[i]][agents[j]]) for i in range(len(agents)) for j in range(i)]


def _line_up(
    entrants: Mapping[str, Entrant], test_sets: Sequence[TestSet], baselines: Sequence[str] | None
) -> dict[str, Roster]:
    names = [each.name for each in test_sets]
    if len(set(names)) < len(names):
        raise config.ConfigError(f"each suite can be tested once, got {', '.join(names)}; leave the repeated one out")
    return {each.name: agents_under_test.roster(entrants, each.inner, baselines, suite=each.name) for each in test_sets}


def _lifetimes_differ(named: Mapping[str, Discovered]) -> list[str]:
    told = {name: trained_lifetimes(each) for name, each in named.items()}
    if len(set(told.values())) < 2:
        return []
    return ["trained lifetimes differ: " + ", ".join(f"{name} {each} updates" for name, each in told.items())]


def _name_of(place: str) -> str:
    if place in checkpoint.zoo_names():
        return place
    path = Path(place).absolute()
    return path.parent.name if path.name == "objective" else path.name


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
