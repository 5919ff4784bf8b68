"""An objective whose agents are moved by a learned optimizer, so that loss and optimizer are discovered together.

A hand-written objective has no meta-parameters, so with it the optimizer alone is discovered. The learner
(`metadisco.lives.learner.Learner`) asks any objective for a learned optimizer; all that knows meta-parameters knows
those of this one, and nothing else changes.
"""

from dataclasses import dataclass

import jax

from metadisco.agents.agent import Agent
from metadisco.agents.learned_optimizer import LearnedOptimizer, ResidualOPEN
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.objectives.base import (
    NamedInputs,
    Objective,
    ObjectiveState,
    Predictions,
    Regularized,
    Targets,
    learned_optimizer,
    step_factors,
)
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.mirror_learning import PPO


@own_defaults
@dataclass(frozen=True)
class WithOptimizer:
    """An objective, and a learned optimizer of its agents.

    The loss is that of the objective. The optimizer is told what the learner's own optimizers propose, and decides;
    factors of an objective that scales steps apply to what it decides.

    Attributes:
        objective: the learning rule, hand-written or learned. Not `Disco103`, which is defined with its own optimizer.
        optimizer: the learned optimizer.

    Example:
        >>> from metadisco.objectives.actor_critic import A2C
        >>> rule = WithOptimizer(A2C(), ResidualOPEN(width=4))
        >>> sorted(rule.init(jax.random.key(0)))
        ['objective', 'optimizer']
    """

    objective: Objective = PPO()
    optimizer: LearnedOptimizer = ResidualOPEN()

    def __post_init__(self) -> None:
        if isinstance(self.objective, Disco103):
            raise ValueError(
                "Disco103 does not take a learned optimizer: it is defined with its own, DiscoAdam, whose clipped "
                "steps its targets rely on; use A2C, PPO, MirrorLearning or LPG"
            )
        if learned_optimizer(self.objective) is not None:
            raise ValueError(
                f"WithOptimizer.objective has a learned optimizer already, {self.objective}; give the objective itself"
            )
        lacking = [name for name in ("features", "init", "init_state", "update") if not hasattr(self.optimizer, name)]
        if lacking:
            raise ValueError(
                f"WithOptimizer.optimizer must be a learned optimizer such as OPEN() or ResidualOPEN(), got "
                f"{self.optimizer}, which has no {' and no '.join(lacking)}; SGD, Adam and RMSProp go into Learner"
            )

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the objective, then those of the optimizer."""
        learned = tuple(self.objective.features) if isinstance(self.objective, NamedInputs) else ()
        return learned + tuple(f"optimizer:{name}" for name in self.optimizer.features)

    def heads(self, spec: EnvSpec) -> Heads:
        """Those of the objective."""
        return self.objective.heads(spec)

    def init(self, key: Key) -> MetaParams:
        """Of the objective and of the optimizer."""
        objective_key, optimizer_key = jax.random.split(key)
        return {"objective": self.objective.init(objective_key), "optimizer": self.optimizer.init(optimizer_key)}

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> ObjectiveState:
        """That of the objective. The optimizer's is kept by the learner."""
        return self.objective.init_state(key, agent, agent_params, num_workers)

    def targets(
        self,
        meta_params: MetaParams,
        state: ObjectiveState,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[Targets, ObjectiveState]:
        """Those of the objective."""
        return self.objective.targets(meta_params["objective"], state, predictions, trajectory, progress)

    def loss(
        self, meta_params: MetaParams, targets: Targets, outputs: Outputs, trajectory: Trajectory, progress: Progress
    ) -> tuple[jax.Array, Metrics]:
        """That of the objective."""
        return self.objective.loss(meta_params["objective"], targets, outputs, trajectory, progress)

    def regularizers(self, targets: Targets, outputs: Outputs) -> dict[str, jax.Array]:
        """See `metadisco.objectives.base.Regularized`; {} where the objective has none."""
        return self.objective.regularizers(targets, outputs) if isinstance(self.objective, Regularized) else {}

    def step_factors(self, targets: Targets) -> dict[str, jax.Array]:
        """See `metadisco.objectives.base.ScalesSteps`; {} where the objective does not scale steps."""
        return step_factors(self.objective, targets)

    def optimizer_params(self, meta_params: MetaParams) -> MetaParams:
        """See `metadisco.objectives.base.HasOptimizer`."""
        return meta_params["optimizer"]
