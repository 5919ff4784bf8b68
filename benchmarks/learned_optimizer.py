"""How long does an update of PPO take with a learned optimizer, beside Adam?

Networks of 64 x 64, the settings of `benchmarks/ppo.py` on CartPole, one rollout given: 16 gradient steps. All take
turns in one process; what is compared are medians and least times of the processor, which other work disturbs less.

    python -m benchmarks.learned_optimizer --json docs/results/learned_optimizer_speed.json
"""

import argparse
import statistics
import time
from dataclasses import replace

import jax

from benchmarks import ppo, ppo_harness
from metadisco.agents.learned_optimizer import OPEN, ResidualOPEN
from metadisco.core.provenance import provenance
from metadisco.evaluation import results
from metadisco.objectives.with_optimizer import WithOptimizer

OPTIMIZERS = {"adam": None, "open": OPEN(), "residual": ResidualOPEN(), "small": ResidualOPEN(width=4, hidden=8)}


def updates() -> dict:
    """Compiled updates by optimizer, each with its arguments."""
    row = ppo.ROWS["CartPole-v1"]
    usual = ppo_harness.inner_loop(row)
    compiled = {}
    for name, optimizer in OPTIMIZERS.items():
        objective = usual.objective if optimizer is None else WithOptimizer(usual.objective, optimizer)
        inner = replace(usual, objective=objective)
        initials = ppo_harness.initials(row, inner.env, jax.random.split(jax.random.key(0), 1))
        life = inner.begin(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], initials.task))
        given = objective.init(jax.random.key(0)), life, jax.jit(inner.act)(life)[0]
        compiled[name] = jax.jit(inner.learn_from).lower(*given).compile(), given
    return compiled


def measure(turns: int) -> dict:
    """Seconds of the processor by optimizer, and their ratios to Adam's."""
    compiled = updates()
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for turn in range(turns + 1):
        for name, (update, given) in compiled.items():
            begun = time.process_time()
            jax.block_until_ready(update(*given))
            if turn:
                seconds[name].append(time.process_time() - begun)
    rows = {name: {"median": statistics.median(each), "least": min(each)} for name, each in seconds.items()}
    for row in rows.values():
        row["ratio_of_medians"] = row["median"] / rows["adam"]["median"]
        row["ratio_of_least"] = row["least"] / rows["adam"]["least"]
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20, help="after one that does not count [default: 20]")
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    if options.turns < 1:
        parser.error(f"--turns must be at least 1, got {options.turns}")
    rows = measure(options.turns)
    for name, row in rows.items():
        print(
            f"{name:10s} {1e3 * row['median']:7.1f} ms (least {1e3 * row['least']:.1f}): "
            f"{row['ratio_of_medians']:.2f} times Adam's (of least {row['ratio_of_least']:.2f})"
        )
    if options.json:
        results.write_json(options.json, {"provenance": provenance(), "rows": rows})


if __name__ == "__main__":
    main()
