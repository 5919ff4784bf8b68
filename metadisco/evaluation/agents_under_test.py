"""Who is compared with whom, and on what: suites by name, and agents that suit each of their test sets.

A grid suite tests on the agents that the objective was meta-trained with in grid worlds. A suite of another
environment brings its own agents (`metadisco.evaluation.environments`), and an objective is plugged into them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from metadisco.agents.networks import Table
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.core.types import MetaParams
from metadisco.envs.base import Discrete
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.evaluation import environments, evaluation, suite_lookup, suites
from metadisco.evaluation.evaluation import Contestant
from metadisco.evaluation.test_sets import GridSuite, TestSet
from metadisco.lives.life import InnerLoop
from metadisco.meta_training.trainer import Trainer
from metadisco.objectives.drift import DPODrift, Drift, PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning

Entrant = tuple[Sequence[InnerLoop], MetaParams]
"""How agents lived in meta-training, under an objective, for each of its environments; and its meta-parameters."""
Roster = dict[str, Contestant]
"""Everybody who is compared on one suite, by name: hand-written objectives first."""

FOR_TABLES = {"a2c": evaluation.tuned_a2c, "ppo": evaluation.tuned_ppo, "dpo": evaluation.tuned_dpo}
FOR_NETWORKS: Mapping[str, Drift] = {"ppo": PPODrift(), "dpo": DPODrift()}


def inner_loops(trainer: Trainer) -> tuple[InnerLoop, ...]:
    """How agents live in a meta-training run, for each of its environments."""
    return tuple(domain.inner for domain in trainer.domains)


def trainer_of(discovered: Discovered) -> Trainer:
    """What an objective was meta-trained by. Raises ConfigError where the checkpoint does not say."""
    data = discovered.provenance.get("trainer")
    if data is None:
        raise config.ConfigError(
            "this checkpoint does not say what agents it was meta-trained with: no provenance.trainer"
        )
    trainer = config.from_data(data)
    if not isinstance(trainer, Trainer):
        raise config.ConfigError(
            f"provenance.trainer is a {type(trainer).__name__}, not an EvolutionTrainer or GradientTrainer"
        )
    return trainer


def trained_with(discovered: Discovered) -> tuple[InnerLoop, ...]:
    """How agents lived in the meta-training of an objective, for each environment of it.

    Raises:
        config.ConfigError: where the checkpoint does not say.
    """
    return tuple(replace(inner, objective=discovered.objective) for inner in inner_loops(trainer_of(discovered)))


def find_test_sets(name: str, num_levels: int | None = None) -> list[TestSet]:
    """Build all that a name stands for, see `metadisco.evaluation.suite_lookup`.

    Raises:
        config.ConfigError: where there is no such suite, its lifetime is not one, or a library of it is missing.
    """
    return [suite.build(lifetime=lifetime, num_levels=num_levels) for suite, lifetime in suite_lookup.find(name)]


def home_of(suite: suites.Suite) -> InnerLoop | None:
    """The agents that a suite brings along, without building it; None for a grid suite."""
    return None if isinstance(suite, GridSuite) else environments.setting(suite.name).inner


def default_baselines(home: InnerLoop | None, inner: InnerLoop) -> tuple[str, ...]:
    """Hand-written objectives to compare with, where nobody asks for others: those that have settings."""
    if home is not None:
        return ("ppo", "dpo")
    return ("a2c",) if isinstance(inner.torso, Table) else ()


def contestants(
    candidates: Sequence[InnerLoop],
    meta_params: MetaParams,
    home: InnerLoop | None,
    baselines: Sequence[str] | None = None,
    *,
    suite: str = "this suite",
) -> dict[str, Contestant]:
    """The discovered objective and hand-written ones, with agents for one test set.

    Args:
        candidates: how agents lived in meta-training, under the objective.
        meta_params: of the objective.
        home: `TestSet.inner`: the agents that a suite brings along, or None for a grid suite.
        baselines: names; those of `default_baselines` by default.
        suite: its name, for errors.

    Raises:
        config.ConfigError: for an unknown baseline, or one that has no settings for such agents.
        ValueError: where the objective cannot teach such agents.
    """
    if home is None:
        inner = _on_grids(candidates, suite)
        known: Sequence[str] = tuple(FOR_TABLES)
    else:
        inner, known = environments.plug(candidates[0].objective, home), tuple(FOR_NETWORKS)
    found: dict[str, Contestant] = {}
    for name in default_baselines(home, inner) if baselines is None else baselines:
        if name not in FOR_TABLES:
            raise config.ConfigError(f"unknown baseline {name!r}.{config.nearest(name, FOR_TABLES)}")
        if name not in known:
            raise config.ConfigError(f"{name} is not tuned for the agents of {suite}; use {' or '.join(known)}")
        if home is None:
            found[name] = (FOR_TABLES[name](inner), ())
        else:
            found[name] = (environments.plug(MirrorLearning(FOR_NETWORKS[name]), home), ())
    return found | {"discovered": (inner, meta_params)}


def roster(
    entrants: Mapping[str, Entrant],
    home: InnerLoop | None,
    baselines: Sequence[str] | None = None,
    *,
    suite: str = "this suite",
) -> Roster:
    """Any number of objectives and hand-written ones; the hand-written live as the first of the objectives do.

    Args:
        entrants: by name, at least one.
        home: as the two that follow, see `contestants`.
        baselines: names.
        suite: its name.

    Raises:
        config.ConfigError: as `contestants`, also where an objective cannot teach such agents; says which one.
    """
    found: Roster = {}
    for name, (candidates, meta_params) in entrants.items():
        try:
            each = contestants(candidates, meta_params, home, () if found else baselines, suite=suite)
        except ValueError as error:
            if len(entrants) == 1:
                raise
            raise config.ConfigError(f"{name} cannot be tested on {suite}: {error}") from error
        discovered = each.pop("discovered")
        found |= each | {name: discovered}
    return found


def differences(entrants: Mapping[str, Entrant], rosters: Mapping[str, Roster]) -> list[str]:
    """What makes objectives of one table unequal, a sentence each: budgets and other settings of their agents.

    Args:
        entrants: by name.
        rosters: suite -> who is compared on it.
    """
    found = []
    for suite, everybody in rosters.items():
        inners = {name: everybody[name][0] for name in entrants}
        budgets = {
            name: f"{each.num_workers} workers x {each.num_steps} steps an update" for name, each in inners.items()
        }
        if len(set(budgets.values())) > 1:
            hand_written = [name for name in everybody if name not in entrants]
            as_first = f"; {' and '.join(hand_written)} as {next(iter(entrants))}" if hand_written else ""
            found.append(f"budgets differ on {suite}: {_told(budgets)}{as_first}")
        for part in ("torso", "learner"):
            settings_of = {name: getattr(each, part) for name, each in inners.items()}
            if len(set(settings_of.values())) > 1:
                found.append(f"{part}s of agents differ on {suite}: {_told(settings_of)}")
    return found


def _told(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _on_grids(candidates: Sequence[InnerLoop], suite: str) -> InnerLoop:
    """How agents lived in grid worlds whose observation is an index."""
    for inner in candidates:
        if isinstance(inner.env, GridWorld) and isinstance(inner.env.spec.observation, Discrete):
            return inner
    raise config.ConfigError(
        f"{suite} is for agents of grid worlds whose observation is an index (planes=False), and this objective was "
        f"meta-trained in {candidates[0].env}; test it on one of {', '.join(suites.GROUPS)}"
    )
