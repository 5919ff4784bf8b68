"""Write the table of all suites in `docs/suites.md`, from the code.

    python experiments/suite_table.py

A test fails where the page is not what this writes.
"""

from dataclasses import fields
from pathlib import Path

from metadisco.agents.networks import MLP, Separate, Torso
from metadisco.core import score_table
from metadisco.core.config import class_name
from metadisco.envs.host import Hosted
from metadisco.evaluation import environments, suites
from metadisco.evaluation.catalog import UPPER_ANCHORS
from metadisco.evaluation.test_sets import GridSuite

PAGE = Path(__file__).parents[1] / "docs" / "suites.md"
BEGIN, END = "<!--suites-begin-->\n", "<!--suites-end-->\n"
HEAD = (
    "suite",
    "group",
    "environment",
    "lifetime",
    "rollout",
    "environment steps",
    "network",
    "test episodes",
    "0 is the random policy",
    "1 is",
)


def table() -> str:
    """All suites, in the order of the code (Markdown)."""
    rows = [_grid_row(suite) for suite in suites.SUITES.values() if isinstance(suite, GridSuite)]
    rows += [_row(name) for name in environments.NAMES]
    return score_table.markdown(score_table.Table(list(HEAD), [list(row) for row in rows])) + "\n"


def written(page: str) -> str:
    """The page with the table as it must be. Raises ValueError where the page has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} must hold the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table() + END + after


def _grid_row(suite: GridSuite) -> tuple[str, ...]:
    seed = f", seed {suite.seed}" if suite.seed else ""
    levels = f"{suite.num_levels} levels{seed}"
    home = "as trained"
    return (
        suite.name,
        "",
        levels,
        str(suite.lifetime),
        home,
        home,
        home,
        home,
        "exact",
        f"{UPPER_ANCHORS['optimal']}, exact",
    )


def _row(name: str) -> tuple[str, ...]:
    chosen = environments.environment(name)
    inner = chosen.inner
    env = inner.env.source if isinstance(inner.env, Hosted) else inner.env
    return (
        name,
        next(group for group, members in suites.GROUPS.items() if name in members),
        _call(env),
        str(chosen.lifetime),
        f"{inner.num_workers} x {inner.num_steps}",
        f"{chosen.lifetime * inner.num_workers * inner.num_steps:,}",
        _network(inner.torso),
        str(inner.num_test_workers),
        f"{chosen.random_return:g}",
        f"{UPPER_ANCHORS[chosen.upper_anchor]}, {chosen.upper_return:g}",
    )


def _call(component: object) -> str:
    """Its class with the fields that are not the defaults."""
    changed = [
        repr(getattr(component, field.name))
        for field in fields(component)
        if getattr(component, field.name) != field.default
    ]
    return f"`{class_name(component).partition(':')[2]}({', '.join(changed)})`"


def _network(torso: Torso) -> str:
    if isinstance(torso, Separate):
        return f"two of {_network(torso.policy)}"
    if isinstance(torso, MLP):
        return f"MLP {'-'.join(map(str, torso.widths))} {type(torso.activation).__name__.lower()}"
    kind = type(torso).__name__
    return f"{kind} {'-'.join(map(str, torso.channels))}, dense {'-'.join(map(str, torso.widths))}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
