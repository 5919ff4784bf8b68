"""Description of a checkpoint in text and tables, for a terminal of 100 columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.card import meta_steps_done
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.score_table import counted
from metadisco.evaluation import meta_test
from metadisco.objectives.base import learned_optimizer
from metadisco.objectives.drift import verdicts, violations
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.reports.inspection import formulas
from metadisco.reports.inspection.measures import INPUTS, LIFETIMES, LIVED, NUM_POINTS, Inspection
from metadisco.reports.inspection.pictures import is_scheduled

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 100  # columns
SHOWN = (0, 5, 10)  # of the fractions of a schedule: beginning, middle and end of a life
WORDS = {  # feature -> what it is
    "reward": "reward of the step",
    "finished": "whether an episode ended with it",
    "gamma": "a constant, the discount",
    "prob": "probability that the policy gave to the action taken",
    "embedded_y": "the agent's prediction y, as one number",
    "embedded_next_y": "its prediction at the next observation; 0 after termination",
    "fraction_of_lifetime": "n/N, how much of the agent's life is over",
    "log_lifetime": "log N, how long this life is",
    "mean_reward": "mean reward per step of late; as the next two in units of the largest |reward| of the life so far",
    "reward_trend": "the mean of late less that of about eight updates: whether rewards grow",
    "best_mean_reward": "highest mean reward of a rollout so far",
    "reward_density": "share of the steps with a reward",
    "reward_seen": "whether there has been any reward",
    "entropy": "entropy of the policy, from −1 to 1 (uniform)",
    "value_error": "size of the errors of the value, as a logarithm",
    "episode_length": "mean length of the agent's episodes so far, as a logarithm",
    "longest_episode": "length of its longest episode so far, as a logarithm",
    "novelty": "how new what the agent meets is: −1 all met often, 1 all for the first time",
    "l": "l = log r, where r = π/π_old is how far the policy has moved since it acted",
    "e": "e = 1 − r",
    "A": "A, the advantage, normalised: how much better the action was than expected",
    "n/N": "n/N, how much of the agent's life is over",
    "r": "r = π/π_old, how far the policy has moved since it acted",
    "t": "t = n/N, how much of the agent's life is over",
    "advantage": "generalised advantage by the agent's own values",
    "td_error": "reward and discounted value of what followed, less the value: the one-step error of the value",
    "value": "the agent's own value of the observation",
}


def explain(discovered: Discovered, found: Inspection | None, console: Any, *, scores: bool = True) -> None:
    """Print what a checkpoint is, what it conditions on, what was measured of it, and its scores.

    Args:
        discovered: from `metadisco.load`.
        found: what `inspect` measured of it.
        console: of rich.
        scores: whether to print its scores, a table for each suite.
    """
    console.print(_identity(discovered), width=WIDTH)
    console.print(_conditions(discovered), width=WIDTH)
    if isinstance(discovered.objective, MirrorLearning):
        console.print(_mirror_learning(discovered), width=WIDTH)
    if (distilled := formulas.section(discovered)) is not None:
        console.print(distilled, width=WIDTH)
    if found is None:
        console.print("Not measured: the objective does not take discrete actions, which the probes have.", width=WIDTH)
    else:
        for part in (_sensitivity(found), _credit(discovered, found), _schedule(found), _entropy(found)):
            if part is not None:
                console.print(part, width=WIDTH)
    if scores:
        meta_test.show(discovered.evaluation, console)


def _table(*columns: str) -> "Table":
    """Numbers on the right, what they are of on the left."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def _section(title: str, table: "Table", note: str = "") -> Any:
    """A table between its title and what is to be known of it."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[Any] = [Text(f"\n{title}", style="bold"), table]
    return Group(*parts, Padding(Text(note, style="dim"), (0, 2))) if note else Group(*parts)


def _facts(rows: Sequence[tuple[str, str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def _identity(discovered: Discovered) -> "Table":
    import jax

    origin = discovered.provenance
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(discovered.meta_params)]
    rows = [("objective", repr(discovered.objective))]
    optimizer = learned_optimizer(discovered.objective)
    if optimizer is not None:
        learned = jax.tree.leaves(discovered.objective.optimizer_params(discovered.meta_params))  # type: ignore[attr-defined]
        size = sum(np.size(leaf) for leaf in learned)
        rows.append(
            (
                "learned optimizer",
                f"{type(optimizer).__name__}, {size:,} of the meta-parameters: it decides how far each parameter of an "
                "agent moves. What is measured below is the loss alone; entropies are of agents that it moves.",
            )
        )
    rows.append(("meta-parameters", f"{sum(sizes):,} numbers in {len(sizes)} arrays"))
    for name in ("preset", "seed", "meta_steps", "minutes", "command", "date", "commit", "hardware"):
        if name in origin:
            told = meta_steps_done(origin) if name == "meta_steps" else str(origin[name])
            rows.append((name.replace("_", "-"), told))
    return _facts(rows)


def _conditions(discovered: Discovered) -> Any:
    from rich.text import Text

    features = checkpoint.features(discovered.objective)
    table = _table("input", "what it is")
    table.columns[1].justify, table.columns[1].no_wrap = "left", False
    if not features:
        table.add_row("—", "none: a hand-written formula")
    is_drift = "l^2" in features
    parts = [part for part in ("l", "e", "A", "n/N") if any(part in feature.split() for feature in features)]
    for name in parts if is_drift else features:
        table.add_row(Text(name), WORDS.get(name, _of_optimizer(name)))
    if is_drift:
        once_more = "; each once more, times n/N" if "n/N" in parts else ""
        table.add_row("all", Text(", ".join(name for name in features if not name.startswith("n/N")) + once_more))
    return _section("What it conditions on", table)


def _of_optimizer(name: str) -> str:
    of, _, what = name.partition(":")
    return f"{what.replace('_', ' ')}, seen by the optimizer" if of == "optimizer" else "an input of its own"


def _mirror_learning(discovered: Discovered) -> Any:
    table = _table("condition", "verdict")
    found = violations(discovered.drift_rule, discovered.meta_params)
    for condition, verdict in verdicts(found).items():
        table.add_row(condition, verdict)
    note = "Measured for log r and A from −3 to 3 at n/N = 0, ½ and 1."
    return _section("Is it a drift of mirror learning?", table, note)


def _sensitivity(found: Inspection) -> Any:
    table = _table("input", "policy", "", "predictions", "")
    table.columns[2].justify = table.columns[4].justify = "left"
    for name, (push, pull) in sorted(found.sensitivity.items(), key=lambda item: -item[1][0]):
        table.add_row(INPUTS[name], _percent(push), _bar(push), _percent(pull), _bar(pull))
    return _section(
        "What each input is worth",
        table,
        "Share of the variance that is left if only this input is unknown (total effect, Jansen 1999), on independent "
        "random draws; in sum more than 100% where inputs act jointly. Policy: the push on the action taken, "
        "which reads as an advantage. Predictions: where the agent's other outputs are pulled.",
    )


def _percent(share: float) -> str:
    return "0" if share == 0.0 else "<0.1%" if share < 1e-3 else f"{100 * share:.1f}%"


def _bar(share: float, width: int = 5) -> str:
    return "█" * round(share * width)


def _credit(discovered: Discovered, found: Inspection) -> Any:
    if isinstance(discovered.objective, MirrorLearning):
        return None  # advantages are by its estimator, and normalised
    back = range(0, found.credit.shape[1], 2)
    table = _table("", *("at once" if steps == 0 else f"{steps} steps before" for steps in back))
    for name, row in zip(("reward +1", "reward −1"), found.credit):
        table.add_row(name, *(_number(row[steps]) for steps in back))
    return _section(
        "What a reward does to the push on its action, and on those before it",
        table,
        "Mean change beside no reward, in the middle of a life of 64 updates. The push on random experience has the "
        f"size {_number(found.size)} (root mean square).",
    )


def _schedule(found: Inspection) -> Any:
    from rich.text import Text

    if not is_scheduled(found):
        line = Text("\nSchedule over the lifetime\n\n", style="bold")
        return line.append(
            "  None: its outputs are the same at every update of lives of any length.\n", style="not bold"
        )
    table = _table("at n/N = 0 → ½ → 1", *(f"N = {lifetime}" for lifetime in LIFETIMES))
    rows = {"size of the push": found.schedule.push_size, "gain of entropy, nats": found.schedule.entropy}
    for name, values in rows.items():
        table.add_row(name, *(" → ".join(_number(row[i]) for i in SHOWN) for row in values))
    return _section(
        "Schedule over the lifetime",
        table,
        f"The same experience at other moments: a push changes by {found.schedule.change:.0%} of its usual size. Gain "
        "of entropy: where nothing is rewarded or predicted, for a unit step on the logits.",
    )


def _entropy(found: Inspection) -> Any:
    if found.entropy is None:
        return None
    places = (0, NUM_POINTS // 4, NUM_POINTS // 2, NUM_POINTS)
    table = _table("nats", *(f"n/N = {place / NUM_POINTS:g}" for place in places))
    for lifetime, row in zip(LIVED, found.entropy):
        table.add_row(f"lives of {counted(lifetime, 'update')}", *(f"{row[place]:.2f}" for place in places))
    return _section(
        "What it does to entropy",
        table,
        f"Of the policy over whole lives on small grid worlds, where uniform is {np.log(5):.2f}. Where nothing is "
        f"rewarded or predicted, a unit step on the logits changes it by {_number(found.schedule.entropy[1, 5])}.",
    )


def _number(value: float) -> str:
    text = f"{value:.2g}" if 1e-4 <= abs(value) < 1e4 or value == 0.0 else f"{value:.0e}"
    return text.replace("-", "−")
