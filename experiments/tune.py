"""Tune hand-written algorithms on the validation levels: the settings in `metadisco.lives.tuned` come from here.

    python experiments/tune.py a2c --out docs/results/tune_a2c.json
    python experiments/tune.py ppo --levels 32 --out docs/results/tune_ppo.json

Every setting lives the same lives; the best has the highest IQM of normalized scores.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax

from metadisco.agents.networks import Table
from metadisco.agents.optimizers import SGD
from metadisco.core.provenance import provenance
from metadisco.core.sharding import num_usable_cores
from metadisco.evaluation import results, suites
from metadisco.evaluation.evaluation import evaluate
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.tuned import TUNED_FOR_TABLES
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.base import Objective
from metadisco.objectives.mirror_learning import PPO

Setting = tuple[dict[str, float], Objective, Learner]


def a2c_settings() -> Iterator[Setting]:
    for policy, prediction, entropy in itertools.product(*TUNED_FOR_TABLES["a2c"].grid.values()):
        chosen = {"policy_rate": policy, "prediction_rate": prediction, "entropy_weight": entropy}
        yield chosen, A2C(entropy_weight=entropy), Learner(SGD(policy), SGD(prediction))


def ppo_settings() -> Iterator[Setting]:
    for policy, epochs, minibatches, anneal in itertools.product(*TUNED_FOR_TABLES["ppo"].grid.values()):
        chosen = {"policy_rate": policy, "epochs": epochs, "minibatches": minibatches, "anneal": anneal}
        learner = Learner(SGD(policy, anneal=anneal), SGD(4.0), epochs, minibatches)
        yield chosen, PPO(entropy_weight=0.0), learner


SETTINGS = {"a2c": a2c_settings, "ppo": ppo_settings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=SETTINGS)
    parser.add_argument("--suite", default="grid-validation", help="NAME or NAME@LIFETIME; never a test suite")
    parser.add_argument("--levels", type=int, help="the first ones of the suite only")
    parser.add_argument("--seeds", type=int, default=1, help="lives per level")
    parser.add_argument("--seed", type=int, default=0, help="of the lives")
    parser.add_argument("--workers", type=int, default=32, help="parallel environments of one agent")
    parser.add_argument("--out", type=Path, help="a JSON file [default: tune_ALGORITHM.json]")
    known = parser.parse_args()
    out = known.out or Path(f"tune_{known.algorithm}.json")
    jax.config.update("jax_num_cpu_devices", num_usable_cores())
    (levels,) = suites.build(known.suite, known.levels)
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = []
    for chosen, objective, learner in SETTINGS[known.algorithm]():
        inner = InnerLoop(levels.env, Table(), objective, learner, num_workers=known.workers)
        row = results.summarize(evaluate(inner, (), levels, seed=known.seed, num_seeds=known.seeds, num_points=1))
        settings.append(chosen | row)
        print(f"{chosen}: {row['iqm']:.3f} ({row['iqm_low']:.3f} to {row['iqm_high']:.3f})", flush=True)
        document = {
            "suite": levels.name,
            "best": max(settings, key=lambda entry: entry["iqm"]),
            "settings": settings,
            "provenance": provenance(seed=known.seed, workers=known.workers),
        }
        results.write_json(out, document)
    print(f"best: {document['best']}")


if __name__ == "__main__":
    main()
