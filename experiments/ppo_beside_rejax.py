"""Does PPO here reach what an existing JAX PPO reaches? MinAtar beside rejax, at the same budget and settings.

    python experiments/ppo_beside_rejax.py

Both have two networks of 64 tanh units twice on the flattened image, 64 workers, 64 steps, 4 epochs of 8 minibatches,
and a constant rate of Adam. Returns are those of agents at the end of training, 95% intervals are Student's over seeds.
What differs is listed in `benchmarks/ppo.py`.
"""

import argparse
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from rejax import PPO as Rejax  # noqa: N811 - both have a PPO
from rejax.evaluate import evaluate

from experiments.drift_in_rejax import FiveValueSteps
from metadisco import results, stats
from metadisco.agents.networks import MLP, Separate, Tanh
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.learner import Adam, Learner
from metadisco.life import Birth, InnerLoop
from metadisco.objectives.mirror_learning import PPO
from metadisco.provenance import provenance
from metadisco.types import Task

ENVIRONMENTS = ("Breakout-MinAtar", "SpaceInvaders-MinAtar")
WORKERS, STEPS, EPOCHS, MINIBATCHES, RATE = 64, 64, 4, 8, 1e-3
NUM_EPISODES = 64  # by each agent, to see what it has learned


def ours(name: str, num_updates: int, seeds: int) -> np.ndarray:
    """Mean return of each of our agents. [seeds]."""
    env = Gymnax(name)
    adam = Adam(RATE)
    inner = InnerLoop(
        env=env,
        torso=Separate(MLP((64, 64), Tanh()), MLP((64, 64), Tanh())),
        objective=PPO(value_weight=0.5, entropy_weight=0.01),
        learner=Learner(adam, adam, num_epochs=EPOCHS, num_minibatches=MINIBATCHES),
        num_workers=WORKERS,
        num_steps=STEPS,
        num_test_workers=NUM_EPISODES,
    )

    @jax.jit
    def run(keys):
        levels = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (seeds, *leaf.shape)), env.default_level)
        births = Birth(keys, Task(levels, jnp.full(seeds, num_updates, jnp.int32)))
        return inner.live((), births, slots=1)[1].fitness

    return np.asarray(run(jax.random.split(jax.random.key(0), seeds)))


def theirs(name: str, num_updates: int, seeds: int) -> np.ndarray:
    """Mean return of each of rejax's agents. [seeds]."""
    env, params = gymnax.make(name)
    env = FiveValueSteps(env)
    total = num_updates * WORKERS * STEPS
    agent = Rejax.create(
        env=env,
        env_params=params,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
        num_envs=WORKERS,
        num_steps=STEPS,
        num_epochs=EPOCHS,
        num_minibatches=MINIBATCHES,
        learning_rate=RATE,
        max_grad_norm=0.5,
    )

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
    parser.add_argument("--updates", type=int, default=244, help="of 4,096 environment steps [default: 244, a million]")
    parser.add_argument("--seeds", type=int, default=4, help="agents of each [default: 4]")
    parser.add_argument("--out", type=Path, default=Path("docs/results/ppo_beside_rejax.json"))
    known = parser.parse_args()
    if known.seeds < 2 or known.updates < 1:
        parser.error("--seeds must be 2 or more and --updates 1 or more")
    rows: dict = {}
    for name in ENVIRONMENTS:
        rows[name] = {
            "metadisco": as_row(ours(name, known.updates, known.seeds)),
            "rejax": as_row(theirs(name, known.updates, known.seeds)),
        }
        for library, row in rows[name].items():
            print(f"{name} {library}: {row['mean']:.1f} ({row['low']:.1f} to {row['high']:.1f})", flush=True)
        document = {"updates": known.updates, "env_steps": known.updates * WORKERS * STEPS, "rows": rows}
        results.write_json(known.out, document | {"provenance": provenance()})


if __name__ == "__main__":
    main()
