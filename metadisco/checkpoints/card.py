"""The card of a portable objective: a README.md that says what it is, where it comes from and what it reached.

What it says of the objective is read from the checkpoint's own document, so that the card cannot say anything else.
Scores of further suites can be shown beside those of the document.
"""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from metadisco.core import moved
from metadisco.core.score_table import Table, by_strength, counted, decimal, markdown, score_table

COLUMNS = ("iqm", "optimality_gap", "cvar", "mean_return", "num_tasks", "num_seeds", "lifetime", "env_steps", "seed")
ZOO_SCORES = "docs/results/zoo.json"  # of every shipped objective, in the repository


def card(document: dict[str, Any], name: str, place: str, scores: Mapping[str, Any], *, is_shipped: bool) -> str:
    """Markdown of a card.

    Args:
        document: of `objective.json`.
        name: title.
        place: what `metadisco.load` is given.
        scores: suite -> agent -> scores, of further suites, which the document does not have.
        is_shipped: whether it comes with metadisco, under its license.
    """
    origin = document["provenance"]
    count = sum(math.prod(leaf["shape"]) for leaf in document["meta_params"].values())
    sections = [
        f"# {name}",
        f"A discovered objective, `{_words(document['objective'])}`, with {count:,} meta-parameters. Load it with",
        f'```python\nimport metadisco\n\ndiscovered = metadisco.load("{place}")\n```',
    ]
    if is_shipped:
        sections.append("It comes with metadisco, under its license, Apache-2.0.")
    if "license" in origin:
        sections.append(f"## License\n\n{_license(origin['license'])}")
    if document["features"]:
        features = ", ".join(f"`{feature}`" for feature in document["features"])
        sections.append(f"## Inputs\n\nIn order: {features}.")
    if "distillation" in origin:
        sections.append(f"## Formulas\n\n{_formulas(origin['distillation'])}")
    if "trainer" in origin:
        sections.append(f"## Training\n\n{_training(origin)}")
    if document["evaluation"]:
        sections.append("## Scores\n\n" + _scores(document["evaluation"]))
    if scores:
        sections.append(f"## Scores on further suites\n\n{_where(name, is_shipped)}\n\n{_scores(scores)}")
    rest = {key: value for key, value in origin.items() if key not in ("trainer", "license", "distillation")}
    for title, content in (("Origin", rest), ("Trainer", origin.get("trainer"))):
        if content:
            sections.append(f"## {title}\n\n```json\n{json.dumps(content, indent=2)}\n```")
    return "\n\n".join(sections) + "\n"


def meta_steps_done(origin: Mapping[str, Any], of_preset: int | None = None) -> str:
    """How many meta-steps were done, and of how many where the run stopped before its last one.

    Args:
        origin: a provenance with `meta_steps`.
        of_preset: meta-steps of the preset as it is; those that the run was asked for count where it is None.

    Example:
        >>> meta_steps_done({"meta_steps": 343, "trainer": {"num_steps": 520}})
        'stopped early, after 343 of 520 meta-steps'
        >>> meta_steps_done({"meta_steps": 520, "trainer": {"num_steps": 520}})
        '520 meta-steps'
    """
    done, asked = origin["meta_steps"], origin.get("trainer", {}).get("num_steps")
    planned = of_preset or asked
    if not isinstance(done, int) or not isinstance(planned, int) or done >= planned:
        return counted(done, "meta-step") if isinstance(done, int) else f"{done} meta-steps"
    return f"stopped early, after {done:,} of {counted(planned, 'meta-step')}{' of its preset' if of_preset else ''}"


def headlines(evaluation: Mapping[str, Any], suites: Collection[str] = ()) -> list[str]:
    """One line for each suite: the score of the objective beside those of the hand-written ones, the strongest first.

    Args:
        evaluation: suite -> agent -> scores.
        suites: only these; all of them by default.

    Example:
        >>> headlines({"grid-tiny": {"a2c": {"iqm": 0.5}, "ppo": {"iqm": 0.7}, "discovered": {"iqm": 0.6}}})
        ['grid-tiny: IQM 0.60 (ppo 0.70, a2c 0.50)']
    """
    lines = []
    for suite, agents in evaluation.items():
        beside = by_strength(agents)
        if "discovered" in agents and beside and (not suites or suite in suites):
            others = ", ".join(f"{name} {decimal(agents[name].get('iqm'), 2)}" for name in beside)
            lines.append(f"{suite}: IQM {decimal(agents['discovered'].get('iqm'), 2)} ({others})")
    return lines


def _formulas(told: dict[str, Any]) -> str:
    """The formulas of a rule that was distilled, and how well they stand for it."""
    head, rows = ["", "formula", "length", "R²"], []
    for each in told["parts"]:
        rows.append([each["name"], f"`{each['formula']}`", str(each["length"]), decimal(each["r2"])])
    of = f"Distilled from `{told['of']['name']}`, whose meta-parameters have the SHA-256 `{told['of']['sha256']}`."
    text = (
        "R² is the share of the variance that a formula explains where agents are, on lives that it was not fitted to."
    )
    return f"{of} {text}\n\n{markdown(Table(head, rows))}"


def _license(said: dict[str, str]) -> str:
    """License of meta-parameters that are others' work, whom to name, and what was changed."""
    lines = [f"The meta-parameters are under [{said['name']}]({said['url']})."]
    return "\n\n".join([*lines, said["attribution"], said["changes"], said["disclaimer"]])


def _training(origin: dict[str, Any]) -> str:
    """What it was trained on, and for how long."""
    trainer = moved.current(origin["trainer"])
    domains = trainer["domains"]
    lines = []
    if "command" in origin:
        lines.append(f"    {origin['command']}\n")
    budget = [meta_steps_done(origin)] if "meta_steps" in origin else []
    budget += [f"{counted(sum(domain.get('num_tasks', 0) for domain in domains), 'task')} each"]
    budget += [
        f"{counted(round(origin['minutes']), 'minute')} with the meta-test" for key in ("minutes",) if key in origin
    ]
    budget += [f"on {origin['hardware']}" for key in ("hardware",) if key in origin]
    lines.append(f"- budget: {', '.join(budget)}")
    lines += [f"- {key}: {origin[key]}" for key in ("seed", "commit") if key in origin]
    if "start" in origin:
        lines.append(f"- begun at: {_ancestors(origin['start'])}")
    for domain in domains:
        inner = domain["inner"]
        lines.append(f"- environment: `{_words(inner['env'])}`")
        lines.append(f"  - tasks: `{_words(domain['curriculum'])}`")
        size = f"{inner['num_workers']} workers, {inner['num_steps']} steps an update"
        lines.append(f"  - agents: `{_words(inner['torso'])}`, {size}, `{_words(inner['learner'])}`")
    lines.append(f"- improved by: `{_words(trainer['meta_optimizer'])}`")
    return "\n".join(lines)


def _ancestors(start: dict[str, Any]) -> str:
    """Whose meta-parameters a run began with, and whose these did."""
    told = [f"{key.replace('_', '-')} {start[key]}" for key in ("preset", "seed", "meta_steps") if key in start]
    words = ", ".join([*told, f"sha256 {start['sha256'][:16]}"])
    before = f", begun at {_ancestors(start['start'])}" if "start" in start else ""
    return f"{start['name']} ({words}){before}"


def _words(data: Any) -> str:
    """A component as one would write it, from its JSON."""
    if isinstance(data, dict) and "class" in data:
        fields = ", ".join(f"{key}={_words(value)}" for key, value in data.items() if key != "class")
        return f"{data['class'].rpartition(':')[2]}({fields})"
    if isinstance(data, dict):
        return "{" + ", ".join(f"{key}: {_words(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        inside = ", ".join(map(_words, data))
        return f"({inside},)" if len(data) == 1 else f"({inside})"
    return repr(data)


def _where(name: str, is_shipped: bool) -> str:
    """Where every statistic of the further suites is kept."""
    text = "`objective.json` has the numbers of the tables above; those below are in this card alone."
    if is_shipped:
        text = f"The tables above are in `objective.json`, too. Every statistic of those below is in `{ZOO_SCORES}`, "
        text += f"where this objective is called `{name}`."
    return text


def _scores(evaluation: Mapping[str, Any]) -> str:
    """A table for each suite; what is no table is shown as JSON."""
    return "\n\n".join(f"{suite}\n\n{_table(agents)}" for suite, agents in evaluation.items())


def _table(agents: Any) -> str:
    if not isinstance(agents, dict) or not all(isinstance(scores, dict) for scores in agents.values()):
        return f"```json\n{json.dumps(agents, indent=2)}\n```"
    return markdown(score_table(agents, COLUMNS))
