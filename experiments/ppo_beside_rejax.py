"""Does PPO here reach what an existing JAX PPO reaches? MinAtar and brax beside rejax, at the same budget and settings.

    python -m experiments.ppo_beside_rejax

Both have two networks of 64 tanh units twice, on the flattened image where there is one, 64 workers, 4 epochs of 8
minibatches, and a constant rate of Adam; in brax both normalise observations and rewards. Returns are those of agents
at the end of training, 95% intervals are Student's over seeds. What differs is listed in `benchmarks/ppo_harness.py`.
"""

import argparse
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rejax.evaluate import evaluate

from benchmarks import ppo_harness
from benchmarks.ppo_harness import Training
from metadisco.core.provenance import provenance
from metadisco.evaluation import results, stats

NUM_EPISODES = 64  # by each agent, to see what it has learned

_MINATAR = partial(Training, num_workers=64, num_steps=64, num_updates=244, num_minibatches=8, rate=1e-3)
_BRAX = partial(
    Training,
    num_workers=64,
    num_steps=32,
    num_updates=488,
    num_minibatches=8,
    gamma=0.97,
    entropy_weight=0.0,
    normalizes=True,
)
ROWS = {  # a million environment steps each
    row.env: row
    for row in (
        _MINATAR("Breakout-MinAtar"),
        _MINATAR("SpaceInvaders-MinAtar"),
        _BRAX("brax-inverted_pendulum"),
        _BRAX("brax-reacher"),
    )
}


def ours(row: Training, seeds: int) -> np.ndarray:
    """Mean return of each of our agents. [seeds]."""
    inner = ppo_harness.inner_loop(row, num_test_workers=NUM_EPISODES)

    @jax.jit
    def run(keys):
        return inner.live((), ppo_harness.initials(row, inner.env, keys), slots=1)[1].fitness

    return np.asarray(run(jax.random.split(jax.random.key(0), seeds)))


def theirs(row: Training, seeds: int) -> np.ndarray:
    """Mean return of each of rejax's agents. [seeds]."""
    agent, env, params = ppo_harness.rejax_agent(row)

    def returns(algorithm, state, key):
        act = algorithm.make_act(state)
        return evaluate(act, key, env, params, NUM_EPISODES, params.max_steps_in_episode)[1].mean()

    train = jax.jit(agent.replace(eval_callback=returns).train)
    return np.array([np.ravel(train(jax.random.PRNGKey(seed))[1])[-1] for seed in range(seeds)])


def as_row(values: np.ndarray) -> dict:
    interval = stats.mean_interval(values)
    return {"mean": interval.point, "low": interval.low, "high": interval.high, "by_seed": values.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--updates", type=int, help="instead of those that make a million environment steps")
    parser.add_argument("--seeds", type=int, default=4, help="agents of each [default: 4]")
    parser.add_argument("--out", type=Path, default=Path("docs/results/ppo_beside_rejax.json"))
    known = parser.parse_args()
    if known.seeds < 2 or (known.updates is not None and known.updates < 1):
        parser.error("--seeds must be 2 or more and --updates 1 or more")
    rows: dict = {}
    for name in known.environments:
        row = ROWS[name] if known.updates is None else replace(ROWS[name], num_updates=known.updates)
        rows[name] = asdict(row) | {"env_steps": row.env_steps}
        for library, run in (("metadisco", ours), ("rejax", theirs)):
            rows[name][library] = as_row(run(row, known.seeds))
            found = rows[name][library]
            print(f"{name} {library}: {found['mean']:.1f} ({found['low']:.1f} to {found['high']:.1f})", flush=True)
        results.write_json(known.out, {"rows": rows, "provenance": provenance()})


if __name__ == "__main__":
    main()
