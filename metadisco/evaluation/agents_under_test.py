"""The plan of a meta-test: from the names of suites to the agents under test of each.

A grid suite tests the agents that an objective was meta-trained with in grid worlds. A suite of another environment has
a reference agent (`metadisco.evaluation.environments`), which is given the objective. Hand-written objectives are
tested beside them. `plan` does not draw levels or train, so mistakes are found before anything runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from metadisco.agents.networks import Table
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.core.types import MetaParams
from metadisco.envs.base import Discrete
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.evaluation import suites
from metadisco.evaluation.environments import as_seen_by, disco_on_grids, with_objective
from metadisco.evaluation.suites import RequestedSuite
from metadisco.evaluation.test_sets import TestSet
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.tuned import (
    TABLE_A2C,
    TABLE_A2C_COUNT,
    TABLE_A2C_COUNT_LEARNER,
    TABLE_A2C_LEARNER,
    TABLE_PPO,
    TABLE_PPO_LEARNER,
)
from metadisco.meta_training.trainer import Trainer
from metadisco.objectives.base import Objective
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.drift import DPODrift, Drift, PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning


@dataclass(frozen=True, eq=False)
class TrainedObjective:
    """An objective to be tested, with the agents of its meta-training.

    Attributes:
        name: in tables.
        inner_loops: those of meta-training with the objective, one for each of its environments.
        meta_params: of the objective.
    """

    name: str
    inner_loops: tuple[InnerLoop, ...]
    meta_params: MetaParams


@dataclass(frozen=True, eq=False)
class AgentUnderTest:
    """How an agent learns on a test set.

    Attributes:
        name: in tables.
        inner: its inner loop; on a grid suite the environment is replaced by the suite's.
        meta_params: of `inner.objective`; () for a hand-written one.
        is_hand_written: whether the objective is a baseline, not a meta-trained one.
    """

    name: str
    inner: InnerLoop
    meta_params: MetaParams = ()
    is_hand_written: bool = False


@dataclass(frozen=True, eq=False)
class PlannedTest:
    """One suite of a meta-test, and the agents that are tested on it: hand-written objectives first.

    Attributes:
        suite: which one.
        agents: who is tested.
        settings: what `with_settings` has replaced in the agents, by its path in an inner loop.
    """

    suite: RequestedSuite
    agents: tuple[AgentUnderTest, ...]
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the suite."""
        return self.suite.name

    def build(self) -> TestSet:
        """Draw the suite; where it has an agent of its own, that has the settings, too."""
        test_set = self.suite.build()
        if test_set.inner is None:
            return test_set
        return replace(test_set, inner=config.replace_fields(test_set.inner, self.settings))


def inner_loops(trainer: Trainer) -> tuple[InnerLoop, ...]:
    """Inner loops of a meta-training run, one for each of its environments."""
    return tuple(domain.inner for domain in trainer.domains)


def trainer_of(discovered: Discovered) -> Trainer:
    """What an objective was meta-trained by. Raises ConfigError where the checkpoint does not say."""
    data = discovered.provenance.get("trainer")
    if data is None:
        raise config.ConfigError(
            "this checkpoint does not say what agents it was meta-trained with: no provenance.trainer"
        )
    return decoded(data)


def decoded(data: object) -> Trainer:
    """A trainer from what `config.to_data` made of it. Raises ConfigError where it is none."""
    trainer = config.from_data(data)
    if not isinstance(trainer, Trainer):
        raise config.ConfigError(
            f"the trainer is a {type(trainer).__name__}, not an EvolutionTrainer, GradientTrainer or "
            "OnlineEvolutionTrainer"
        )
    return trainer


def trained_with(discovered: Discovered) -> tuple[InnerLoop, ...]:
    """Inner loops of the meta-training of an objective, one for each of its environments.

    Of Disco103, which was meta-trained elsewhere, those that are usual for it here.

    Raises:
        config.ConfigError: where the checkpoint does not say.
    """
    if isinstance(discovered.objective, Disco103) and "trainer" not in discovered.provenance:
        return (disco_on_grids(discovered.objective),)
    return tuple(replace(inner, objective=discovered.objective) for inner in inner_loops(trainer_of(discovered)))


def trained_objectives(named: Mapping[str, Discovered]) -> list[TrainedObjective]:
    """Checkpoints by name as what `plan` takes. Raises ConfigError where one does not say what trained it."""
    return [TrainedObjective(name, trained_with(each), each.meta_params) for name, each in named.items()]


def plan(
    objectives: Sequence[TrainedObjective], requested: Sequence[RequestedSuite], baselines: Sequence[str] | None = None
) -> list[PlannedTest]:
    """Plan a meta-test; nothing is drawn or trained.

    Args:
        objectives: one or more, of different names.
        requested: from `suites.find`.
        baselines: names of hand-written objectives, for all suites; None for those that are usual on each. They have
            the agents of the first objective.

    Returns:
        A test for each suite, in this order.

    Raises:
        config.ConfigError: for a suite that comes twice, an unknown baseline, one that is not tuned for such agents, or
            an objective that cannot be tested on a suite.
        ValueError: where the only objective cannot teach the agents of a suite.
    """
    names = [each.name for each in requested]
    if len(set(names)) < len(names):
        raise config.ConfigError(f"each suite can be tested once, got {', '.join(names)}; leave the repeated one out")
    return [PlannedTest(each, _agents(objectives, each.suite, baselines)) for each in requested]


def with_settings(tests: Sequence[PlannedTest], settings: Mapping[str, object]) -> list[PlannedTest]:
    """The tests with settings of all agents replaced.

    Args:
        tests: from `plan`.
        settings: value, or its text, by path: `inner.num_workers`, `inner.learner.policy.learning_rate`, ...

    Raises:
        config.ConfigError: for a path that does not begin with `inner`, is about the objective or the environment, or
            that an agent does not have.
        ValueError: whatever the components' own checks raise.
    """
    fields: dict[str, object] = {}
    for path, value in settings.items():
        place, _, within = path.partition(".")
        if place != "inner" or not within:
            raise config.ConfigError(f"unknown setting {path!r}: those of agents begin with inner: --inner.num_workers")
        if within.partition(".")[0] in ("objective", "env"):
            raise config.ConfigError(f"{path} cannot be set: it is what is tested, or what it is tested on")
        fields[within] = value

    def changed(agent: AgentUnderTest) -> AgentUnderTest:
        try:
            return replace(agent, inner=config.replace_fields(agent.inner, fields))
        except config.ConfigError as error:
            raise config.ConfigError(f"the agents of {agent.name}: {error}") from error

    return [
        replace(test, agents=tuple(changed(agent) for agent in test.agents), settings={**test.settings, **fields})
        for test in tests
    ]


def differences(tests: Sequence[PlannedTest]) -> list[str]:
    """Differences between the agents of several learned objectives (budgets, hyper-parameters), a sentence each."""
    found = []
    for test in tests:
        inners = {agent.name: agent.inner for agent in test.agents if not agent.is_hand_written}
        budgets = {
            name: f"{each.num_workers} workers x {each.num_steps} steps an update" for name, each in inners.items()
        }
        if len(set(budgets.values())) > 1:
            hand_written = [agent.name for agent in test.agents if agent.is_hand_written]
            as_first = f"; {' and '.join(hand_written)} as {next(iter(inners))}" if hand_written else ""
            found.append(f"budgets differ on {test.name}: {_listed(budgets)}{as_first}")
        parts: dict[str, dict[str, object]] = {
            "torso": {name: each.torso for name, each in inners.items()},
            "learner": {name: each.learner for name, each in inners.items()},
        }
        for part, values in parts.items():
            if len(set(values.values())) > 1:
                found.append(f"{part}s of agents differ on {test.name}: {_listed(values)}")
    return found


def tuned_a2c(inner: InnerLoop) -> InnerLoop:
    """The inner loop with A2C and its tuned hyper-parameters for tables, found by `experiments/tune.py`.

    Raises:
        ValueError: where the agents are not tables; the settings would be far off.
    """
    return _tuned("A2C", inner, TABLE_A2C, TABLE_A2C_LEARNER)


def tuned_a2c_count(inner: InnerLoop) -> InnerLoop:
    """The inner loop with A2C and a bonus of counts, tuned for tables where rewards are near and where they are far.

    Raises:
        ValueError: where the agents are not tables.
    """
    return _tuned("A2C with a bonus of counts", inner, TABLE_A2C_COUNT, TABLE_A2C_COUNT_LEARNER)


def tuned_ppo(inner: InnerLoop) -> InnerLoop:
    """The inner loop with PPO and its tuned hyper-parameters for tables, found by `experiments/tune.py`.

    Raises:
        ValueError: where the agents are not tables, or rollouts cannot be split into as many minibatches.
    """
    return _tuned("PPO", inner, TABLE_PPO, TABLE_PPO_LEARNER)


def tuned_dpo(inner: InnerLoop) -> InnerLoop:
    """The inner loop with DPO and the hyper-parameters of the tuned PPO for tables.

    Raises:
        ValueError: as for `tuned_ppo`.
    """
    return _tuned("DPO", inner, replace(TABLE_PPO, drift=DPODrift()), TABLE_PPO_LEARNER)


FOR_TABLES: Mapping[str, Callable[[InnerLoop], InnerLoop]] = {
    "a2c": tuned_a2c,
    "a2c-count": tuned_a2c_count,
    "ppo": tuned_ppo,
    "dpo": tuned_dpo,
}
FOR_REFERENCE_AGENTS: Mapping[str, Drift] = {"ppo": PPODrift(), "dpo": DPODrift()}


def _agents(
    objectives: Sequence[TrainedObjective], suite: suites.Suite, baselines: Sequence[str] | None
) -> tuple[AgentUnderTest, ...]:
    """The agents under test of one suite."""
    learned = []
    for objective in objectives:
        try:
            inner = _inner_on(suite, objective.inner_loops)
        except ValueError as error:
            if len(objectives) == 1:
                raise
            raise config.ConfigError(f"{objective.name} cannot be tested on {suite.name}: {error}") from error
        learned.append(AgentUnderTest(objective.name, inner, objective.meta_params))
    first = learned[0].inner
    names = _default_baselines(suite, first) if baselines is None else baselines
    hand_written = [AgentUnderTest(name, _baseline(name, suite, first), is_hand_written=True) for name in names]
    return (*hand_written, *learned)


def _inner_on(suite: suites.Suite, candidates: Sequence[InnerLoop]) -> InnerLoop:
    """Inner loop of an objective on a suite; `candidates` are those of its meta-training."""
    if suite.inner is not None:
        return with_objective(candidates[0].objective, suite.inner)
    for inner in candidates:
        sees_planes = isinstance(inner.objective, Disco103)
        if isinstance(inner.env, GridWorld) and (sees_planes or isinstance(inner.env.spec.observation, Discrete)):
            replace(inner, env=as_seen_by(inner, suite.env))  # raises ValueError where the agent does not fit
            return inner
    raise config.ConfigError(
        f"{suite.name} is for agents of grid worlds whose observation is an index (planes=False), and this objective "
        f"was meta-trained in {candidates[0].env}; test it on one of {', '.join(suites.GROUPS)}"
    )


def _default_baselines(suite: suites.Suite, inner: InnerLoop) -> tuple[str, ...]:
    """All hand-written objectives that are tuned for the agents of a suite and fit their rollouts."""
    if suite.inner is not None:
        return tuple(FOR_REFERENCE_AGENTS)
    return tuple(name for name, tuned in FOR_TABLES.items() if _fits(tuned, inner))


def _fits(tuned: Callable[[InnerLoop], InnerLoop], inner: InnerLoop) -> bool:
    try:
        tuned(inner)
    except ValueError:
        return False
    return True


def _baseline(name: str, suite: suites.Suite, inner: InnerLoop) -> InnerLoop:
    """Inner loop of a hand-written objective on a suite, beside agents with `inner`."""
    if name not in FOR_TABLES:
        raise config.ConfigError(f"unknown baseline {name!r}.{config.nearest(name, FOR_TABLES)}")
    if suite.inner is None:
        return FOR_TABLES[name](inner)
    if name not in FOR_REFERENCE_AGENTS:
        raise config.ConfigError(
            f"{name} is not tuned for the agents of {suite.name}; use {' or '.join(FOR_REFERENCE_AGENTS)}"
        )
    return with_objective(MirrorLearning(FOR_REFERENCE_AGENTS[name]), suite.inner)


def _tuned(name: str, inner: InnerLoop, objective: Objective, learner: Learner) -> InnerLoop:
    if not isinstance(inner.torso, Table):
        raise ValueError(f"{name} is tuned for Table agents, got {inner.torso}; tune it for these first")
    return replace(inner, objective=objective, learner=learner, critic=None)


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
