"""Tune A2C on the validation levels: the settings that `metadisco.evaluation.tuned_a2c` uses come from here.

    python experiments/tune_a2c.py --out docs/results/tune_a2c.json

Every setting lives the same lives; the best has the highest IQM of normalized scores.
"""

import argparse
import itertools
from pathlib import Path

import jax

from metadisco import results
from metadisco.agents.networks import Table
from metadisco.discovery import battery
from metadisco.evaluation import evaluate
from metadisco.learner import SGD, Learner
from metadisco.life import InnerLoop
from metadisco.objectives.actor_critic import A2C
from metadisco.population import num_usable_cores
from metadisco.provenance import provenance

POLICY_RATES = (10.0, 40.0, 160.0, 640.0)
PREDICTION_RATES = (4.0, 40.0, 200.0)
ENTROPY_WEIGHTS = (0.0, 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="grid-validation", help="NAME or NAME@LIFETIME; never a test suite")
    parser.add_argument("--levels", type=int, help="the first ones of the suite only")
    parser.add_argument("--seeds", type=int, default=1, help="lives per level")
    parser.add_argument("--seed", type=int, default=0, help="of the lives")
    parser.add_argument("--workers", type=int, default=32, help="parallel environments of one agent")
    parser.add_argument("--out", type=Path, default=Path("tune_a2c.json"))
    known = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", num_usable_cores())
    levels = battery(known.suite, num_levels=known.levels)
    known.out.parent.mkdir(parents=True, exist_ok=True)
    settings = []
    for policy, prediction, entropy in itertools.product(POLICY_RATES, PREDICTION_RATES, ENTROPY_WEIGHTS):
        learner = Learner(policy=SGD(policy), prediction=SGD(prediction))
        objective = A2C(entropy_weight=entropy)
        inner = InnerLoop(levels.env, Table(), objective, learner, num_workers=known.workers)
        row = results.summarize(evaluate(inner, (), levels, seed=known.seed, num_seeds=known.seeds, num_points=1))
        chosen = {"policy_rate": policy, "prediction_rate": prediction, "entropy_weight": entropy}
        settings.append(chosen | row)
        print(f"{chosen}: {row['iqm']:.3f} ({row['iqm_low']:.3f} to {row['iqm_high']:.3f})", flush=True)
        document = {
            "suite": levels.name,
            "best": max(settings, key=lambda entry: entry["iqm"]),
            "settings": settings,
            "provenance": provenance(seed=known.seed, workers=known.workers),
        }
        results.write_json(known.out, document)
    print(f"best: {document['best']}")


if __name__ == "__main__":
    main()
