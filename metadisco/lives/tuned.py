"""Tuned hyper-parameters of hand-written algorithms: baselines and antagonists."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from metadisco.agents.optimizers import SGD, RMSProp
from metadisco.lives.learner import Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.count_bonus import WithCountBonus
from metadisco.objectives.mirror_learning import PPO

# Of release 0.1: antagonists, and agents in the meta-training of drifts. Stored runs and checkpoints were made with
# these, so they stay; baselines are stronger.
ANTAGONIST_A2C = A2C(entropy_weight=0.0)
ANTAGONIST_LEARNER = Learner(policy=SGD(160.0), prediction=SGD(4.0))
DRIFT_TABLE_PPO = PPO(entropy_weight=0.0)
DRIFT_TABLE_LEARNER = Learner(policy=SGD(10.0), prediction=SGD(4.0), num_epochs=4, num_minibatches=4)

# Found by experiments/tune.py, see the records below. A step of RMSProp is as large for observations that are rare as
# for common ones, which is worth more in a table than any other setting.
TABLE_A2C = A2C(gamma=0.95, gae_lambda=0.98, entropy_weight=0.01)
TABLE_A2C_LEARNER = Learner(policy=RMSProp(0.4), prediction=RMSProp(0.05))
TABLE_A2C_COUNT = WithCountBonus(A2C(gamma=0.98, gae_lambda=0.98, entropy_weight=0.01), bonus=0.1, power=1.0)
TABLE_A2C_COUNT_LEARNER = TABLE_A2C_LEARNER
TABLE_PPO = PPO(gamma=0.98, gae_lambda=0.8, entropy_weight=0.005)
TABLE_PPO_LEARNER = Learner(policy=RMSProp(0.1), prediction=RMSProp(0.025), num_epochs=2, num_minibatches=4)


@dataclass(frozen=True)
class Tuning:
    """How a baseline for tables was tuned: steps to better neighbors on ladders of values (experiments/tune.py).

    Attributes:
        grid: the ladder of each hyper-parameter; all neighbors of what was chosen were tried.
        chosen: values of the baseline, the best of all that were tried in the mean of IQMs over the lifetimes.
        num_tried: settings that were tried.
        suites: test sets for tuning, never one that results are reported on.
        num_levels: number of levels of each, from the first.
        lifetimes: agent updates.
        num_workers: parallel environments of one agent.
        note: remarks.
    """

    grid: Mapping[str, tuple[float, ...]]
    chosen: Mapping[str, float]
    num_tried: int
    suites: tuple[str, ...]
    num_levels: int
    lifetimes: tuple[int, ...]
    num_workers: int
    note: str


_LADDERS = {
    "policy_rate": (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
    "prediction_rate": (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8),
    "entropy_weight": (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04),
    "gamma": (0.9, 0.95, 0.98, 0.99, 0.995),
    "gae_lambda": (0.6, 0.8, 0.9, 0.95, 0.98, 1.0),
    "anneal": (0.0, 1.0),
}
_A2C = Tuning(
    grid=_LADDERS,
    chosen={
        "policy_rate": 0.4,
        "prediction_rate": 0.05,
        "entropy_weight": 0.01,
        "gamma": 0.95,
        "gae_lambda": 0.98,
        "anneal": 0.0,
    },
    num_tried=49,
    suites=("grid-validation",),
    num_levels=64,
    lifetimes=(16, 64, 256),
    num_workers=32,
    note="one gradient step on each rollout, by RMSProp",
)
_A2C_COUNT = replace(
    _A2C,
    grid=_LADDERS | {"bonus": (0.01, 0.03, 0.1, 0.3, 1.0), "power": (0.5, 1.0, 2.0)},
    chosen={**_A2C.chosen, "gamma": 0.98, "bonus": 0.1, "power": 1.0},
    num_tried=56,
    suites=("grid-validation", "labyrinths-validation"),
    note="A2C with a bonus of counts; one gradient step on each rollout, by RMSProp",
)
_PPO = replace(
    _A2C,
    chosen={
        "policy_rate": 0.1,
        "prediction_rate": 0.025,
        "entropy_weight": 0.005,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "anneal": 0.0,
    },
    num_tried=41,
    lifetimes=(16, 64),
    note="two epochs of four minibatches, by RMSProp",
)
TUNED_FOR_TABLES: Mapping[str, Tuning] = MappingProxyType(
    {
        "a2c": _A2C,
        "a2c-count": _A2C_COUNT,
        "ppo": _PPO,
        "dpo": replace(_PPO, note="settings of ppo, which were tuned with ppo alone"),
    }
)
FOR_NETWORKS_NOTE = "usual settings of public PPO, chosen with PPO alone on this very environment; no grid is kept"
