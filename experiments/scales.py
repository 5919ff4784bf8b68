"""Measure the score anchors of `metadisco/evaluation/environments.py`, and what PPO needs to get there.

    python experiments/scales.py

Agents of PPO in the usual settings, at the usual budget: 0 is what they get before they learn, 1 what they get at the
end. The numbers in `environments.py` are rounded from these.
"""

import argparse
from pathlib import Path

from metadisco.core.devices import prepare_jax
from metadisco.core.provenance import provenance
from metadisco.evaluation import environments, evaluation, results, stats, suites


def measure(name: str, num_seeds: int, seed: int, slots: int) -> dict:
    """Learning curve of PPO on one environment, with Student's interval at its end."""
    test_set = suites.suite(name).build()
    evaluated = evaluation.evaluate(test_set.inner, (), test_set, seed=seed, num_seeds=num_seeds, slots=slots)
    end = stats.mean_interval(evaluated.returns[-1, 0])
    return {
        "lifetime": test_set.lifetime,
        "env_steps": evaluated.env_steps,
        "before": float(evaluated.returns[0].mean()),
        "after": end.point,
        "low": end.low,
        "high": end.high,
        "curve": evaluated.returns.mean(axis=(1, 2)).tolist(),
        "by_seed": evaluated.returns[-1, 0].tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="environments [default: all that are written in JAX]")
    parser.add_argument("--out", type=Path, default=Path("docs/results/scales.json"), help="where the numbers go")
    parser.add_argument("--seeds", type=int, default=4, help="agents [default: 4]")
    parser.add_argument("--seed", type=int, default=500, help="of the agents [default: 500]")
    parser.add_argument("--slots", type=int, default=4, help="agents side by side on one device [default: 4]")
    known = parser.parse_args()
    unknown = set(known.names) - set(environments.NAMES)
    if unknown or known.seeds < 2:
        parser.error(
            f"unknown: {sorted(unknown)}; there are {', '.join(environments.NAMES)}; --seeds must be 2 or more"
        )
    prepare_jax()
    rows = {}
    for name in known.names or [name for name in environments.NAMES if name not in environments.HOSTED]:
        rows[name] = measure(name, known.seeds, known.seed, known.slots)
        row = rows[name]
        print(f"{name}: {row['before']:.2f} to {row['after']:.2f} ({row['low']:.2f} to {row['high']:.2f})", flush=True)
        document = {"seeds": known.seeds, "seed": known.seed, "rows": rows, "provenance": provenance()}
        results.write_json(known.out, document)


if __name__ == "__main__":
    main()
