"""Who is compared with whom, and on what: suites by name, and agents that suit each of their batteries.

A grid suite tests on the agents that the objective was meta-trained with in grid worlds. A suite of another
environment brings its own agents (`metadisco.settings`), and an objective is plugged into them.
"""

from collections.abc import Mapping, Sequence

from metadisco import config, evaluation, settings, suite_lookup, suites
from metadisco.agents.networks import Table
from metadisco.battery import Battery, GridSuite
from metadisco.envs.base import Discrete
from metadisco.envs.gridworld import GridWorld
from metadisco.evaluation import Contestant
from metadisco.gradient_trainer import GradientTrainer
from metadisco.life import InnerLoop
from metadisco.mixed_trainer import MixedTrainer
from metadisco.objectives.drift import DPODrift, Drift, PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.trainer import MetaTrainer

Trainer = MetaTrainer | GradientTrainer | MixedTrainer

FOR_TABLES = {"a2c": evaluation.tuned_a2c, "ppo": evaluation.tuned_ppo, "dpo": evaluation.tuned_dpo}
FOR_NETWORKS: Mapping[str, Drift] = {"ppo": PPODrift(), "dpo": DPODrift()}


def inner_loops(trainer: Trainer) -> tuple[InnerLoop, ...]:
    """How agents live in a meta-training run, for each of its environments."""
    return tuple(arena.inner for arena in trainer.arenas) if isinstance(trainer, MixedTrainer) else (trainer.inner,)


def batteries(name: str, num_levels: int | None = None) -> list[Battery]:
    """Build all that a name stands for, see `metadisco.suite_lookup`.

    Raises:
        config.ConfigError: where there is no such suite, its lifetime is not one, or a library of it is missing.
    """
    return [suite.build(lifetime=lifetime, num_levels=num_levels) for suite, lifetime in suite_lookup.find(name)]


def home_of(suite: suites.Suite) -> InnerLoop | None:
    """The agents that a suite brings along, without building it; None for a grid suite."""
    return None if isinstance(suite, GridSuite) else settings.setting(suite.name).inner


def default_baselines(home: InnerLoop | None, inner: InnerLoop) -> tuple[str, ...]:
    """Hand-written objectives to compare with, where nobody asks for others: those that have settings."""
    if home is not None:
        return ("ppo", "dpo")
    return ("a2c",) if isinstance(inner.torso, Table) else ()


def contestants(
    candidates: Sequence[InnerLoop],
    meta_params: object,
    home: InnerLoop | None,
    baselines: Sequence[str] | None = None,
    *,
    suite: str = "this suite",
) -> dict[str, Contestant]:
    """The discovered objective and hand-written ones, with agents for one battery.

    Args:
        candidates: how agents lived in meta-training, under the objective.
        meta_params: of the objective.
        home: `Battery.inner`: the agents that a suite brings along, or None for a grid suite.
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
        inner, known = settings.plug(candidates[0].objective, home), tuple(FOR_NETWORKS)
    found: dict[str, Contestant] = {}
    for name in default_baselines(home, inner) if baselines is None else baselines:
        if name not in FOR_TABLES:
            raise config.ConfigError(f"unknown baseline {name!r}.{config.nearest(name, FOR_TABLES)}")
        if name not in known:
            raise config.ConfigError(f"{name} is not tuned for the agents of {suite}; use {' or '.join(known)}")
        if home is None:
            found[name] = (FOR_TABLES[name](inner), ())
        else:
            found[name] = (settings.plug(MirrorLearning(FOR_NETWORKS[name]), home), ())
    return found | {"discovered": (inner, meta_params)}


def _on_grids(candidates: Sequence[InnerLoop], suite: str) -> InnerLoop:
    """How agents lived in grid worlds whose observation is an index."""
    for inner in candidates:
        if isinstance(inner.env, GridWorld) and isinstance(inner.env.spec.observation, Discrete):
            return inner
    raise config.ConfigError(
        f"{suite} is for agents of grid worlds whose observation is an index (planes=False), and this objective was "
        f"meta-trained in {candidates[0].env}; test it on one of {', '.join(suites.GROUPS)}"
    )
