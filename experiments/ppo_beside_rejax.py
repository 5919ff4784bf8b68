"""Does PPO here reach what an existing JAX PPO reaches? MinAtar and brax beside rejax, at the same budget and settings.

    python -m experiments.ppo_beside_rejax

Both have two networks of 64 tanh units twice, on the flattened image where there is one, 64 workers, 4 epochs of 8
minibatches, and a constant rate of Adam; in brax both normalise observations and rewards. Returns are those of agents
at the end of training, 95% intervals are Student's over seeds. What differs is listed in `benchmarks/ppo.py`; besides,
rejax takes a time-out for the end of the world.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from rejax import PPO as Rejax  # noqa: N811 - both have a PPO
from rejax.evaluate import evaluate

from benchmarks.ppo import brax_for_rejax
from experiments.drift_in_rejax import FiveValueSteps
from metadisco.agents.networks import MLP, Separate, Tanh
from metadisco.agents.optimizers import Adam
from metadisco.core.provenance import provenance
from metadisco.core.types import Task
from metadisco.envs.brax_adapter import Brax
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.evaluation import results, stats
from metadisco.lives.learner import Learner
from metadisco.lives.life import InitialCondition, InnerLoop
from metadisco.lives.normalization import Normalizer
from metadisco.objectives.mirror_learning import PPO

WORKERS, EPOCHS, MINIBATCHES = 64, 4, 8
NUM_EPISODES = 64  # by each agent, to see what it has learned


@dataclass(frozen=True)
class Row:
    """What both are asked to do in one environment."""

    num_steps: int
    num_updates: int
    rate: float
    gamma: float
    entropy_weight: float
    normalizes: bool

    @property
    def env_steps(self) -> int:
        """A million."""
        return WORKERS * self.num_steps * self.num_updates


ROWS = {
    "Breakout-MinAtar": Row(64, 244, 1e-3, 0.99, 0.01, False),
    "SpaceInvaders-MinAtar": Row(64, 244, 1e-3, 0.99, 0.01, False),
    "brax-inverted_pendulum": Row(32, 488, 3e-4, 0.97, 0.0, True),
    "brax-reacher": Row(32, 488, 3e-4, 0.97, 0.0, True),
}


def ours(name: str, row: Row, seeds: int) -> np.ndarray:
    """Mean return of each of our agents. [seeds]."""
    bare = name.removeprefix("brax-")
    env = Gymnax(name) if bare == name else Brax(bare)
    adam = Adam(row.rate)
    inner = InnerLoop(
        env=env,
        torso=Separate(MLP((64, 64), Tanh()), MLP((64, 64), Tanh())),
        objective=PPO(gamma=row.gamma, value_weight=0.5, entropy_weight=row.entropy_weight),
        learner=Learner(adam, adam, num_epochs=EPOCHS, num_minibatches=MINIBATCHES),
        num_workers=WORKERS,
        num_steps=row.num_steps,
        num_test_workers=NUM_EPISODES,
        max_test_steps=1024,
        normalizer=Normalizer(gamma=row.gamma) if row.normalizes else None,
    )

    @jax.jit
    def run(keys):
        levels = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (seeds, *leaf.shape)), env.default_level)
        initials = InitialCondition(keys, Task(levels, jnp.full(seeds, row.num_updates, jnp.int32)))
        return inner.live((), initials, slots=1)[1].fitness

    return np.asarray(run(jax.random.split(jax.random.key(0), seeds)))


def theirs(name: str, row: Row, seeds: int) -> np.ndarray:
    """Mean return of each of rejax's agents. [seeds]."""
    bare = name.removeprefix("brax-")
    if bare == name:
        env, params = gymnax.make(name)
        env = FiveValueSteps(env)
    else:
        env, params = brax_for_rejax(bare)
    agent = Rejax.create(
        env=env,
        env_params=params,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        total_timesteps=row.env_steps,
        eval_freq=row.env_steps,
        skip_initial_evaluation=True,
        num_envs=WORKERS,
        num_steps=row.num_steps,
        num_epochs=EPOCHS,
        num_minibatches=MINIBATCHES,
        learning_rate=row.rate,
        gamma=row.gamma,
        ent_coef=row.entropy_weight,
        max_grad_norm=0.5,
        normalize_observations=row.normalizes,
        normalize_rewards=row.normalizes,
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
            rows[name][library] = as_row(run(name, row, known.seeds))
            found = rows[name][library]
            print(f"{name} {library}: {found['mean']:.1f} ({found['low']:.1f} to {found['high']:.1f})", flush=True)
        results.write_json(known.out, {"rows": rows, "provenance": provenance()})


if __name__ == "__main__":
    main()
