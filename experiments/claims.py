"""The page of claims: what was found here, in five sentences with their numbers, made of the files of results.

    python -m experiments.claims

Writes docs/results/index.md and the same sentences into README.md. Nothing is measured. Whether a sentence says ahead,
level or behind is decided by the interval of the difference, so a page cannot say more than its numbers.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.pages import write_between
from metadisco.core.score_table import decimal, interval

RESULTS = Path("docs/results")
PAGE, FRONT = RESULTS / "index.md", Path("README.md")
BEGIN, END = "<!-- written by experiments/claims.py -->", "<!-- end of claims -->"
GENERAL = ("grid-heldout@16", "grid-heldout@64", "grid-heldout@256")
PLAIN, WITH_BONUS = ("a2c", "ppo", "dpo"), ("a2c-count", "ppo-count")
Row = Mapping[str, Any]


class Claim(NamedTuple):
    """One sentence or two, in Markdown, and where they come from."""

    title: str
    text: str
    command: str
    page: str  # beside `PAGE`, with the anchor


def read(name: str) -> Any:
    """A file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def ahead_of(rows: Iterable[Row], suite: str, measure: str, others: Iterable[str]) -> Row:
    """The row of the strongest of the others on a suite."""
    found = [row for row in rows if (row["suite"], row["measure"]) == (suite, measure) and row["other"] in others]
    return max(found, key=lambda row: row["of other"])


def verdict(low: float, high: float) -> str:
    """What an interval of a difference allows to say."""
    return "ahead" if low > 0 else "behind" if high < 0 else "level"


def lead(row: Row) -> str:
    """`0.018 (0.013 to 0.024)`."""
    return f"{decimal(row['difference'])} ({interval(row['low'], row['high'])})"


def joined(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def in_words(rows: list[Row]) -> str:
    """Verdicts in the order of the rows, lifetimes with the same one together: `ahead at 16, level at 64 and 256`."""
    moments: dict[str, list[str]] = {}
    for row in rows:
        moments.setdefault(verdict(row["low"], row["high"]), []).append(row["suite"].partition("@")[2])
    if len(moments) == 1:
        return f"**{next(iter(moments))}** at all of them"
    return ", ".join(f"**{word}** at {joined(those)}" for word, those in moments.items())


def general(rows: list[Row]) -> Claim:
    """On grid worlds, beside what has no bonus and what has one."""
    plain, bonus = ([ahead_of(rows, suite, "iqm", others) for suite in GENERAL] for others in (PLAIN, WITH_BONUS))
    worst = [ahead_of(rows, suite, "cvar", WITH_BONUS) for suite in GENERAL]
    ours = joined(decimal(row["discovered"]) for row in plain)
    return Claim(
        "Grid worlds that nothing was chosen on",
        f"The quickstart's rule has an IQM of {ours} after 16, 64 and 256 updates, mean of {plain[0]['runs']} runs of "
        f"meta-training. Beside the best of tuned A2C, PPO and DPO it is {in_words(plain)}: "
        f"{joined(map(lead, plain))}. Beside the best by hand with a bonus of counts it is {in_words(bonus)}; in the "
        f"worst tenth of the levels {in_words(worst)}.",
        "python -m experiments.compare_exploration experiments/campaigns/exploring/quickstart/seed*",
        "grid-worlds.md#exploration-by-hand-and-discovered",
    )


def far(rows: list[Row]) -> Claim:
    """In labyrinths and mazes."""
    parts = []
    for suite, called in (("labyrinths@16", "labyrinths after 16 updates"), ("mazes@250", "mazes after 250")):
        plain, bonus = (ahead_of(rows, suite, "iqm", others) for others in (PLAIN, WITH_BONUS))
        parts.append(
            f"in {called} {decimal(plain['discovered'])}, where the best of A2C, PPO and DPO has "
            f"{decimal(plain['of other'])}, and the best with a bonus {decimal(bonus['of other'])} (the rule is "
            f"{verdict(bonus['low'], bonus['high'])}, {lead(bonus)})"
        )
    return Claim(
        "Rewards that are far away",
        f"{joined(parts)[0].upper()}{joined(parts)[1:]}. So most of it is the bonus for what is rare, which A2C lacks.",
        "python -m experiments.compare_exploration experiments/campaigns/exploring/quickstart/seed*",
        "grid-worlds.md#exploration-by-hand-and-discovered",
    )


def networks(scores: Mapping[str, Mapping[str, Row]], tuned: Row) -> Claim:
    """A schedule for PPO, beside PPO at its usual settings and tuned for short lives."""
    here = scores["Acrobot-v1@16"]
    runs = [row["iqm"] for name, row in here.items() if name.startswith("seed")]
    lowest, highest, usual, best = (
        decimal(value, 2) for value in (min(runs), max(runs), here["ppo"]["iqm"], tuned["iqm"]["16"])
    )
    return Claim(
        "Networks: nothing is ahead of PPO that is tuned",
        f"A schedule for PPO that never saw Acrobot has {lowest} to {highest} there after 16 updates ({len(runs)} runs,"
        f" so no interval), PPO with its usual settings {usual}, and PPO tuned for such short lives **{best}**.",
        "python -m experiments.campaign experiments/campaigns/networks.toml",
        "networks.md#ppo-by-a-schedule-for-networks",
    )


def drifts(together: Mapping[str, Mapping[str, Row]]) -> Claim:
    """Learned drifts at three lifetimes."""
    names = ("PPO", "lpo-quick", "ta-lpo-quick")
    cells = {updates: [decimal(rows[name]["iqm"], 2) for name in names] for updates, rows in together.items()}
    said = joined(f"{ppo}, {lpo} and {ta_lpo} after {updates} updates" for updates, (ppo, lpo, ta_lpo) in cells.items())
    return Claim(
        "Learned drifts are level with PPO at its usual budget, and behind in short lives",
        f"PPO, LPO and TA-LPO have {said}, over Acrobot, Pendulum and brax's inverted pendulum.",
        "python -m experiments.compare_drifts lpo-quick ta-lpo-quick",
        "networks.md#at-several-horizons",
    )


def curricula(scores: Mapping[str, Row]) -> Claim:
    """GROOVE beside new levels."""
    new, groove = (scores[name] for name in ("lpg-grid-gradient", "groove-grid"))
    cells = (f"{decimal(row['iqm'], 2)} ({interval(row['iqm_low'], row['iqm_high'], 2)})" for row in (groove, new))
    ours, theirs = cells
    return Claim(
        "Environment design has not paid here",
        f"Algorithmic regret chooses levels on which meta-gradients reach {ours}, new levels {theirs}, at equal "
        f"environment steps, {len(new['by_seed'])} runs each: a fiftieth of the published budget.",
        "python -m experiments.compare_scores",
        "curricula.md#scores-of-levels-at-equal-environment-steps",
    )


def claims() -> list[Claim]:
    """All of them, the best news first."""
    rows = read("exploration")["rows"]
    return [
        general(rows),
        far(rows),
        networks(read("networks")["scores"], read("tune_ppo_acrobot")["best"]),
        drifts(read("compare_drifts")["together"]),
        curricula(read("compare_scores")["scores"]["grid-unseen"]),
    ]


def page(found: list[Claim]) -> str:
    """With commands and links, for the page of results."""
    numbered = enumerate(found, 1)
    parts = (f"**{i}. {each.title}.** {each.text} [More]({each.page}).\n\n    {each.command}" for i, each in numbered)
    return "\n\n".join(parts)


def front(found: list[Claim]) -> str:
    """In short, for the README."""
    return "\n".join(f"- **{each.title}.** {each.text} [More]({RESULTS}/{each.page})." for each in found)


def main() -> None:
    written: dict[Path, Callable[[list[Claim]], str]] = {PAGE: page, FRONT: front}
    for path, text in written.items():
        write_between(path, BEGIN, END, text(claims()))


if __name__ == "__main__":
    main()
