"""How fast does an agent learn by PPO here, and in rejax?

Both train the same networks in the same environment with the same numbers of workers, steps, epochs and minibatches, in
one process; they take turns, so that a noisy machine is noisy for both, and what is compared are medians over turns.
Nothing is evaluated while the clock runs. What differs: rejax clips gradients entry by entry and initialises its
weights otherwise, and brax's own wrappers, which it uses, return to a first state that they keep, where this library
draws a new one. Run it on an otherwise idle machine, with rejax installed:

    python -m benchmarks.ppo --json docs/results/ppo_speed.json

Then the same with 16 agents side by side.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from metadisco.agents.networks import MLP, Separate, Tanh
from metadisco.agents.optimizers import Adam
from metadisco.core.provenance import provenance
from metadisco.core.types import Task
from metadisco.evaluation import results
from metadisco.lives.learner import Learner
from metadisco.lives.life import InitialCondition, InnerLoop
from metadisco.objectives.mirror_learning import PPO

NUM_AGENTS = 16


@dataclass(frozen=True)
class Row:
    """What both libraries are asked to do.

    Attributes:
        env: name in gymnax, or brax-NAME.
        num_workers: B.
        num_steps: T.
        num_updates: of one turn.
        num_epochs: of an update.
        num_minibatches: of an epoch.
    """

    env: str
    num_workers: int
    num_steps: int
    num_updates: int
    num_epochs: int = 4
    num_minibatches: int = 4

    @property
    def env_steps(self) -> int:
        """Of one agent in one turn."""
        return self.num_workers * self.num_steps * self.num_updates


ROWS = {
    row.env: row
    for row in (
        Row("CartPole-v1", 16, 64, 100),
        Row("Breakout-MinAtar", 64, 64, 20),
        Row("brax-reacher", 64, 32, 40),
    )
}


def of_metadisco(row: Row, num_agents: int):
    """A function of a key that trains agents with this library."""
    import jax
    import jax.numpy as jnp

    from metadisco.envs.brax_adapter import Brax
    from metadisco.envs.gymnax_adapter import Gymnax

    name = row.env.removeprefix("brax-")
    env = Gymnax(name) if name == row.env else Brax(name)
    adam = Adam(3e-4)
    inner = InnerLoop(
        env=env,
        torso=Separate(MLP((64, 64), Tanh()), MLP((64, 64), Tanh())),
        objective=PPO(value_weight=0.5, entropy_weight=0.01),
        learner=Learner(adam, adam, num_epochs=row.num_epochs, num_minibatches=row.num_minibatches),
        num_workers=row.num_workers,
        num_steps=row.num_steps,
    )
    lifetime = jnp.full(num_agents, row.num_updates, jnp.int32)
    levels = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_agents, *leaf.shape)), env.default_level)

    def train(key):
        initials = InitialCondition(jax.random.split(key, num_agents), Task(levels, lifetime))
        return inner.spend((), initials, slots=num_agents)[0].agent_params

    return train


def of_rejax(row: Row, num_agents: int):
    """The same with rejax."""
    import gymnax
    import jax
    import rejax

    from experiments.drift_in_rejax import FiveValueSteps

    if row.env.startswith("brax-"):
        env, params = brax_for_rejax(row.env.removeprefix("brax-"))
    else:
        env, params = gymnax.make(row.env)
        env = FiveValueSteps(env)
    agent = rejax.PPO.create(
        env=env,
        env_params=params,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        total_timesteps=row.env_steps,
        eval_freq=row.env_steps,
        skip_initial_evaluation=True,
        num_envs=row.num_workers,
        num_steps=row.num_steps,
        num_epochs=row.num_epochs,
        num_minibatches=row.num_minibatches,
        learning_rate=3e-4,
        max_grad_norm=0.5,
    )
    agent = agent.replace(eval_callback=lambda algorithm, state, key: jax.numpy.zeros(()))

    def train(key):
        keys = jax.random.split(key, num_agents)
        if num_agents == 1:
            return agent.train(keys[0])[0].actor_ts.params
        return jax.vmap(lambda key: agent.train(key)[0].actor_ts.params)(keys)

    return train


def brax_for_rejax(name: str):
    """brax with its own wrappers, as rejax 0.1.3 has it, but without gymnax 1.0, whose step returns another tuple."""
    import jax
    from brax import envs
    from flax import struct
    from gymnax.environments import spaces

    @struct.dataclass
    class Params:
        max_steps_in_episode: int = 1000

    class Env:
        """What rejax asks of an environment."""

        def __init__(self):
            self.env = envs.create(name, backend="spring", episode_length=1000)
            self.default_params = Params()

        def __deepcopy__(self, memo):
            return self

        def reset(self, key, params):
            state = self.env.reset(key)
            return state.obs, state

        def step(self, key, state, action, params):
            state = self.env.step(state, action)
            return state.obs, state, state.reward, state.done.astype(bool), {}

        def action_space(self, params):
            return spaces.Box(low=-1, high=1, shape=(self.env.action_size,))

        def observation_space(self, params):
            return spaces.Box(low=-jax.numpy.inf, high=jax.numpy.inf, shape=(self.env.observation_size,))

    return Env(), Params()


class Runner:
    """A compiled training run."""

    def __init__(self, make, row: Row, num_agents: int = 1) -> None:
        import jax

        # brax's wrappers only take keys of the old kind.
        self.key = jax.random.PRNGKey(0) if make is of_rejax else jax.random.key(0)
        train = make(row, num_agents)  # which imports and builds the environment
        begun = time.perf_counter()
        self.train = jax.jit(train).lower(self.key).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.steps = row.env_steps * num_agents

    def turn(self) -> float:
        """Environment steps per second."""
        import jax

        begun = time.perf_counter()
        jax.block_until_ready(self.train(self.key))
        return self.steps / (time.perf_counter() - begun)


def measure(row: Row, turns: int) -> dict:
    """One row, in this process."""
    makers = {"metadisco": of_metadisco, "rejax": of_rejax}
    result: dict = {"row": row.env, "env_steps": row.env_steps}
    for num_agents in (1, NUM_AGENTS):
        runners = {name: Runner(make, row, num_agents) for name, make in makers.items()}
        rates = [{name: runner.turn() for name, runner in runners.items()} for _ in range(turns + 1)][1:]
        result[str(num_agents)] = {
            name: {
                "env_steps_per_second": statistics.median(rate[name] for rate in rates),
                "turns": [rate[name] for rate in rates],
                "compile_seconds": runner.compile_seconds,
            }
            for name, runner in runners.items()
        }
    return result


def run_row(name: str, turns: int) -> dict:
    """One row, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ppo", "--row", name, "--turns", str(turns)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def describe(result: dict) -> str:
    """Lines of one row; adds the ratios to it."""
    lines = []
    for num_agents in (1, NUM_AGENTS):
        ours, theirs = (result[str(num_agents)][name] for name in ("metadisco", "rejax"))
        ratio = ours["env_steps_per_second"] / theirs["env_steps_per_second"]
        result[str(num_agents)]["ratio"] = ratio
        lines.append(
            f"{result['row']:18s} {num_agents:2d} agents: {ours['env_steps_per_second']:9,.0f} steps/s "
            f"(compiled in {ours['compile_seconds']:.0f} s), rejax {theirs['env_steps_per_second']:9,.0f} "
            f"({theirs['compile_seconds']:.0f} s): {ratio:.2f} times"
        )
    one, many = (result[str(n)]["metadisco"]["env_steps_per_second"] for n in (1, NUM_AGENTS))
    result["speedup_of_many"] = many / one
    lines.append(f"{'':18s} {NUM_AGENTS} agents side by side: {many / one:.1f} times the throughput of one")
    return "\n".join(lines)


def main() -> None:
    """Measure every row and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--turns", type=int, default=5, help="after one that does not count [default: 5]")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turns < 1:
        parser.error(f"--turns must be at least 1, got {options.turns}")
    if options.row:
        print(json.dumps(measure(ROWS[options.row], options.turns)))
        return
    rows = []
    for name in options.rows:
        rows.append(run_row(name, options.turns))
        print(describe(rows[-1]), flush=True)
        if options.json:  # after each row, so that one that fails does not take the others along
            results.write_json(options.json, {"provenance": provenance(), "rows": rows})


if __name__ == "__main__":
    main()
