"""How much of a level's score is the level, and how much the luck of one life? Scores of the same levels, twice.

    python -m experiments.score_noise

Each level is lived on twice, with the same lifetime and other random numbers: other agents, rollouts and antagonists.
A curriculum that keeps the levels with the highest scores keeps luck as far as the two scores do not agree. Printed and
written are Pearson's and Spearman's correlations over levels, with 95% intervals by resampling levels. A score that is
the same on all levels has none.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pages import write_json
from metadisco.agents.networks import Table
from metadisco.checkpoints import checkpoint
from metadisco.commands import discovery
from metadisco.core.devices import prepare_jax
from metadisco.core.keys import KeyPurpose
from metadisco.core.provenance import provenance
from metadisco.core.score_table import decimal, interval
from metadisco.core.types import MetaParams, Task
from metadisco.curricula.tasks import LogUniformLifetime, Tasks
from metadisco.envs.gridworld import oracle
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.evaluation import stats
from metadisco.lives.critic import Critic
from metadisco.lives.life import InitialCondition, InnerLoop, only_of_finite
from metadisco.lives.tuned import TABLE_A2C, TABLE_A2C_LEARNER
from metadisco.meta_training.antagonists import TUNED_A2C, Expert, LearningAntagonist
from metadisco.meta_training.level_scores import (
    Evidence,
    L1ValueLoss,
    Learnability,
    LevelScore,
    MaxMC,
    NormalizedScore,
    PositiveValueLoss,
    Regret,
    Return,
    Uniform,
    trained_antagonist,
)

LEVELS, SLOTS, NUM_RESAMPLES = GridLevels(), 4, 2000
ROUNDING = 1e-5  # of returns, which are about 1
PLAIN: dict[str, LevelScore] = {
    "return": Return(),
    "regret, A2C of release 0.1": Regret(LearningAntagonist()),
    "regret, tuned A2C": Regret(TUNED_A2C),
    "optimal regret": Regret(Expert()),
    "L1 value loss": L1ValueLoss(),
    "positive value loss": PositiveValueLoss(),
    "MaxMC": MaxMC(),
    "learnability": Learnability(),
}
SCORES: dict[str, LevelScore] = {
    **PLAIN,
    **{f"{name}, normalized": NormalizedScore(score) for name, score in PLAIN.items()},
    "chance": Uniform(),
}


def agents(name: str) -> tuple[InnerLoop, MetaParams]:
    """The inner loop of an objective of the zoo, or of A2C, with a critic, and the meta-parameters."""
    if name == "a2c":
        inner = InnerLoop(LEVELS.env, Table(), TABLE_A2C, TABLE_A2C_LEARNER, num_workers=32, num_test_workers=32)
        return replace(inner, critic=Critic()), ()
    discovered = checkpoint.load(name)
    inner = discovery.inner_loop(discovered)
    if inner.env != LEVELS.env:
        raise ValueError(f"{name} was meta-trained on {inner.env}; name objectives of the general grid worlds")
    return replace(inner, critic=Critic()), discovered.meta_params


@partial(jax.jit, static_argnums=0)
def live(inner: InnerLoop, meta_params: MetaParams, initials: InitialCondition) -> Evidence:
    """Evidence of whole lives, leading axis M, but for antagonists and the ends of the scale."""
    num = initials.task.lifetime.shape[0]
    population = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *jnp.shape(leaf))), meta_params)
    lives, _ = inner.spend(population, initials, slots=SLOTS)
    returns = only_of_finite(lives, inner.evaluate(lives, slots=SLOTS))
    critic_output = jax.lax.map(
        lambda life: inner.assess(life, inner.perceive(life, inner.act(life, KeyPurpose.VALIDATE)[0])), lives
    )
    return Evidence(lives.key, lives.task, returns, jnp.zeros(num), critic_output)


@partial(jax.jit, static_argnums=0)
def live_as_antagonists(antagonist: InnerLoop, initials: InitialCondition) -> jax.Array:
    """Mean returns of antagonists. [M] float32."""
    return antagonist.live((), initials, slots=SLOTS)[1].fitness


@jax.jit
def ends(tasks: Task) -> tuple[jax.Array, jax.Array]:
    """Returns of the random policy and of the optimum, [M] float32 each."""
    return (
        jax.lax.map(lambda level: oracle.random_return(LEVELS.env, level), tasks.level),
        jax.lax.map(lambda level: oracle.optimal_return(LEVELS.env, level), tasks.level),
    )


def scores_of(inner: InnerLoop, meta_params: MetaParams, initials: InitialCondition) -> dict[str, np.ndarray]:
    """Each score of each level, [M]."""
    lower, upper = ends(initials.task)
    evidence = replace(live(inner, meta_params, initials), random_return=lower, upper_return=upper)
    found, known = {}, {}
    for name, score in SCORES.items():
        antagonist = trained_antagonist(score, inner)
        if antagonist is not None and antagonist not in known:
            known[antagonist] = live_as_antagonists(antagonist, initials)
        theirs = upper if antagonist is None else known[antagonist]
        compared = replace(evidence, antagonist_return=theirs)
        found[name] = np.asarray(jax.jit(jax.vmap(score.score))(compared))
    return found


def correlations(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> dict:
    """Agreement of two scores of the same levels, [M] each; None for a score that is the same on all levels."""
    from scipy.stats import rankdata

    is_finite = np.isfinite(first) & np.isfinite(second)
    pair = np.stack([first, second]).astype(np.float64)[:, is_finite]
    row: dict = {
        "num_levels": int(is_finite.sum()),
        "num_nonfinite": int((~is_finite).sum()),
        "mean": float(pair.mean()),
        "deviation": float(pair.std()),
    }
    if is_constant(pair):
        return row | {"pearson": None, "spearman": None}
    for name, measure in (("pearson", pearson), ("spearman", lambda each: pearson(rankdata(each, axis=1)))):
        resampled = [pair[:, rng.integers(pair.shape[1], size=pair.shape[1])] for _ in range(NUM_RESAMPLES)]
        drawn = [measure(each) for each in resampled if not is_constant(each)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        row[name] = {"point": measure(pair), "low": float(low), "high": float(high)}
    return row


def is_constant(pair: np.ndarray) -> bool:
    """Whether one of two rows is the same everywhere but for rounding, so that they have no correlation."""
    return pair.shape[1] < 2 or bool((np.ptp(pair, axis=1) <= ROUNDING).any())


def pearson(pair: np.ndarray) -> float:
    """Pearson's correlation of two rows."""
    return float(np.corrcoef(pair)[0, 1])


def measure(name: str, known: argparse.Namespace) -> dict:
    """Rows of all scores of one objective."""
    inner, meta_params = agents(name)
    tasks = Tasks(LEVELS, LogUniformLifetime(known.shortest, known.longest))
    task_key, *life_keys = jax.random.split(jax.random.key(known.seed), 3)
    drawn = jax.jit(jax.vmap(tasks.sample))(jax.random.split(task_key, known.levels))
    first, second = (  # the second time nothing is compiled
        scores_of(inner, meta_params, InitialCondition(jax.random.split(key, known.levels), drawn)) for key in life_keys
    )
    rng = np.random.default_rng(known.seed)
    return {score: correlations(first[score], second[score], rng) for score in SCORES}


def cell(found: dict | None) -> str:
    """A correlation with its interval, as in tables."""
    if found is None:
        return "constant"
    known = stats.Interval(**found)
    return f"{decimal(known.point)} {interval(known.low, known.high)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "objectives",
        nargs="*",
        default=["a2c", "scheduled-a2c-quick"],
        help="a2c or names of the zoo [default: a2c scheduled-a2c-quick]",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/score_noise.json"), help="where the numbers go")
    parser.add_argument("--levels", type=int, default=64, help="of the general distribution [default: 64]")
    parser.add_argument("--shortest", type=int, default=16, help="shortest lifetime [default: 16]")
    parser.add_argument("--longest", type=int, default=256, help="longest lifetime [default: 256]")
    parser.add_argument("--seed", type=int, default=0, help="of levels and lives [default: 0]")
    known = parser.parse_args()
    if known.levels < 4:
        parser.error("--levels must be 4 or more: correlations of fewer say nothing")
    prepare_jax()
    rows: dict = {}
    for name in known.objectives:
        rows[name] = measure(name, known)
        print(f"{name}: correlation of two scores of each of {known.levels} levels")
        for score, row in rows[name].items():
            print(f"  {score:40} Pearson {cell(row['pearson']):24} Spearman {cell(row['spearman'])}", flush=True)
        document = {
            "seed": known.seed,
            "levels": known.levels,
            "lifetimes": [known.shortest, known.longest],
            "rows": rows,
            "provenance": provenance(),
        }
        write_json(known.out, document)


if __name__ == "__main__":
    main()
