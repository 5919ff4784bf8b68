"""Tune hand-written algorithms: tables on the validation levels (`metadisco.lives.tuned` has what is found), networks.

    python -m experiments.tune a2c --out docs/results/tune_a2c.json
    python -m experiments.tune ppo --epochs 2 --minibatches 4 --out docs/results/tune_ppo.json
    python -m experiments.tune a2c-count --suite grid-validation labyrinths-validation
    python -m experiments.tune ppo --epochs 4 --minibatches 4 --optimizer adam --suite CartPole-v1 --lifetimes 32 128

Every hyper-parameter has a ladder of values. From the first setting the search steps to the best of all settings that
differ in one hyper-parameter by one rung, as long as that is better, so the last one has been compared with its
neighbors on both sides, wherever the ladder has both. A setting is as good as the mean, over the lifetimes, of the IQM
of normalized scores; every setting lives the same lives. All settings that were tried are stored.

An environment with a reference agent keeps its network, rollouts and normalizer; its learner is what is tuned. The
agents here have other seeds than those of the result pages.

Hyper-parameters are traced, as meta-parameters are, so that all settings share one compiled program.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pages import write_json
from metadisco.agents.agent import Agent
from metadisco.agents.networks import Table
from metadisco.agents.optimizers import SGD, Adam, RMSProp
from metadisco.core.devices import prepare_jax
from metadisco.core.provenance import provenance
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.evaluation import stats, suites
from metadisco.evaluation.environments import with_objective
from metadisco.evaluation.evaluation import evaluate
from metadisco.evaluation.test_sets import TestSet
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.tuned import TUNED_FOR_TABLES
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import Objective, ObjectiveState, Predictions, Targets
from metadisco.objectives.count_bonus import WithCountBonus
from metadisco.objectives.drift import DPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning

ALGORITHMS: dict[str, Objective] = {
    "a2c": A2C(),
    "ppo": PPO(),
    "dpo": MirrorLearning(DPODrift()),
    "a2c-count": WithCountBonus(A2C()),
    "ppo-count": WithCountBonus(PPO()),
}
OPTIMIZERS = {"rmsprop": RMSProp, "adam": Adam, "sgd": SGD}
_NORMALIZED = TUNED_FOR_TABLES["a2c"].grid
LADDERS = {
    "rmsprop": _NORMALIZED,
    "adam": _NORMALIZED,
    "networks": {
        **_NORMALIZED,
        "policy_rate": (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2),
        "prediction_rate": (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2),
    },
    "sgd": {
        **_NORMALIZED,
        "policy_rate": (2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0),
        "prediction_rate": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    },
}
OF_BONUS = {"bonus": (0.01, 0.03, 0.1, 0.3, 1.0), "power": (0.5, 1.0, 2.0)}
START = {"bonus": 0.1, "power": 1.0, "entropy_weight": 0.01, "gamma": 0.98, "gae_lambda": 0.95, "anneal": 0.0}
RATES = {
    ("rmsprop", 1): {"policy_rate": 0.2, "prediction_rate": 0.1},
    ("rmsprop", 8): {"policy_rate": 0.1, "prediction_rate": 0.025},
    ("adam", 1): {"policy_rate": 0.4, "prediction_rate": 0.1},
    ("adam", 8): {"policy_rate": 0.1, "prediction_rate": 0.025},
    ("networks", 1): {"policy_rate": 8e-3, "prediction_rate": 8e-3},
    ("networks", 8): {"policy_rate": 1e-3, "prediction_rate": 1e-3},
    ("sgd", 1): {"policy_rate": 640.0, "prediction_rate": 4.0},
    ("sgd", 8): {"policy_rate": 10.0, "prediction_rate": 4.0},
}

Values = dict[str, float]


@dataclass(frozen=True)
class Tunable:
    """A hand-written objective whose hyper-parameters are meta-parameters; rates are factors of an optimizer's 1."""

    objective: Any

    def heads(self, spec: EnvSpec) -> Heads:
        """See `Objective`."""
        return self.objective.heads(spec)

    def init(self, key: Key) -> MetaParams:
        """Their names and shapes; a search gives the values."""
        del key
        return {name: jnp.float32(0.5) for name in (*_NORMALIZED, *OF_BONUS)}

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> ObjectiveState:
        """See `Objective`."""
        return self.objective.init_state(key, agent, agent_params, num_workers)

    def targets(
        self,
        meta_params: MetaParams,
        state: ObjectiveState,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[Targets, ObjectiveState]:
        """Those of the objective, and the factors of both rates."""
        found, state = self._with(meta_params).targets((), state, predictions, trajectory, progress)
        remaining = 1.0 - meta_params["anneal"] * progress.fraction
        factors = {group: meta_params[f"{group}_rate"] * remaining for group in ("policy", "prediction")}
        shape = trajectory.reward.shape
        return (found, jax.tree.map(lambda factor: jnp.broadcast_to(factor, shape), factors)), state

    def loss(
        self, meta_params: MetaParams, targets: Targets, outputs: Outputs, trajectory: Trajectory, progress: Progress
    ) -> tuple[jax.Array, Metrics]:
        """That of the objective."""
        return self._with(meta_params).loss((), targets[0], outputs, trajectory, progress)

    def step_factors(self, targets: Targets) -> dict[str, jax.Array]:
        """Both rates."""
        return {group: factor[0, 0] for group, factor in targets[1].items()}

    def _with(self, values: MetaParams) -> Any:
        """The objective with traced settings, which its constructor would want to compare with numbers."""
        return _set(self.objective, values)


def _set(objective: Any, values: MetaParams) -> Any:
    """An objective, and the one inside it, with these of the settings that they have."""
    found = object.__new__(type(objective))
    inside = {"objective": _set(objective.objective, values)} if hasattr(objective, "objective") else {}
    known = {name: value for name, value in values.items() if name in vars(objective)}
    found.__dict__.update(vars(objective) | known | inside)
    return found


def inner_loop(test_set: TestSet, algorithm: str, optimizer: str, epochs: int, minibatches: int) -> InnerLoop:
    """Agents with rates of 1: those of the suite where it has some, tabular ones otherwise."""
    learner = Learner(OPTIMIZERS[optimizer](1.0), OPTIMIZERS[optimizer](1.0), epochs, minibatches)
    if test_set.inner is not None:
        inner = with_objective(ALGORITHMS[algorithm], test_set.inner)
        return replace(inner, objective=Tunable(inner.objective), learner=learner)
    return InnerLoop(test_set.env, Table(), Tunable(ALGORITHMS[algorithm]), learner, num_workers=32)


def as_meta_params(values: Values) -> MetaParams:
    """Of `Tunable`."""
    return {name: jnp.float32(value) for name, value in values.items()}


def assess(inner: InnerLoop, values: Values, levels: dict[str, TestSet], seed: int, num_seeds: int) -> dict:
    """IQM and mean of the worst tenth by lifetime (SUITE@LIFETIME of several suites), and the mean of IQMs."""
    meta_params = as_meta_params(values)
    row: dict = {"values": values, "iqm": {}, "cvar": {}}
    for key, test_set in levels.items():
        agents = inner if test_set.inner is not None else replace(inner, env=test_set.env)
        found = evaluate(agents, meta_params, test_set, seed=seed, num_seeds=num_seeds, num_points=1)
        row["iqm"][key] = float(stats.iqm(found.scores[-1]))
        row["cvar"][key] = float(stats.cvar(found.scores[-1]))
    return row | {"mean": float(np.mean(list(row["iqm"].values())))}


def neighbors(values: Values, ladders: Mapping[str, tuple[float, ...]]) -> list[Values]:
    """All settings that differ in one hyper-parameter by one rung."""
    found = []
    for name, ladder in ladders.items():
        rung = ladder.index(values[name])
        found += [values | {name: ladder[at]} for at in (rung - 1, rung + 1) if 0 <= at < len(ladder)]
    return found


def climb(start: Values, ladders: Mapping[str, tuple[float, ...]], assess: Callable[[Values], dict]) -> list[dict]:
    """All rows that were tried; the best of them is no worse than any neighbor of it."""
    rows = [assess(start)]
    while True:
        best = max(rows, key=lambda row: row["mean"])
        tried = [row["values"] for row in rows]
        left = [each for each in neighbors(best["values"], ladders) if each not in tried]
        if not left:
            return rows
        rows += [assess(each) for each in left]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="rmsprop")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--minibatches", type=int, default=1)
    parser.add_argument("--suite", nargs="+", default=["grid-validation"], help="never a test suite")
    parser.add_argument("--lifetimes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--levels", type=int, help="the first ones of the suite only")
    parser.add_argument("--seeds", type=int, default=1, help="lives per level")
    parser.add_argument("--seed", type=int, default=0, help="of the lives")
    parser.add_argument("--out", type=Path, help="a JSON file [default: tune_ALGORITHM.json]")
    known = parser.parse_args()
    out = known.out or Path(f"tune_{known.algorithm}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    prepare_jax()
    levels = {
        str(lifetime) if len(known.suite) == 1 else f"{suite}@{lifetime}": suites.build(
            f"{suite}@{lifetime}", known.levels
        )[0]
        for suite in known.suite
        for lifetime in known.lifetimes
    }
    first = next(iter(levels.values()))
    inner = inner_loop(first, known.algorithm, known.optimizer, known.epochs, known.minibatches)
    kind = known.optimizer
    if inner.torso != Table():
        kind = "networks"  # and a test set with agents of its own takes no others:
        levels = {key: replace(test_set, inner=inner) for key, test_set in levels.items()}
    ladders = LADDERS[kind] | (OF_BONUS if known.algorithm.endswith("-count") else {})
    steps = inner.learner.num_gradient_steps
    rates = RATES[kind, 1 if steps == 1 else 8]

    def assessed(values: Values) -> dict:
        row = assess(inner, values, levels, known.seed, known.seeds)
        by_lifetime = "  ".join(f"@{key} {row['iqm'][key]:.3f}, {row['cvar'][key]:.2f}" for key in row["iqm"])
        print(f"{row['mean']:.4f}  {by_lifetime}  {values}", flush=True)
        return row

    start = START | rates
    rows = climb({name: start[name] for name in ladders}, ladders, assessed)
    best = max(rows, key=lambda row: row["mean"])
    document = {
        "algorithm": known.algorithm,
        "suite": " ".join(known.suite),
        "num_levels": first.num_tasks,
        "optimizer": known.optimizer,
        "epochs": known.epochs,
        "minibatches": known.minibatches,
        "ladders": dict(ladders),
        "best": best,
        "best_by_lifetime": {key: max(rows, key=lambda row, key=key: row["iqm"][key]) for key in best["iqm"]},
        "tried": rows,
        "provenance": provenance(seed=known.seed, lives_per_level=known.seeds, workers=inner.num_workers),
    }
    write_json(out, document)
    print(f"best of {len(rows)}: {best}")


if __name__ == "__main__":
    main()
