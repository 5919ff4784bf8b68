"""How fast does an agent learn by PPO here, and in rejax?

Both train the same networks in the same environment with the same numbers of workers, steps, epochs and minibatches
(`benchmarks/ppo_harness.py`, which also says what differs), in one process; they take turns, so that a noisy machine is
noisy for both, and what is compared are medians over turns. Nothing is evaluated while the clock runs. Run it on an
otherwise idle machine, with rejax installed:

    python -m benchmarks.ppo --json docs/results/ppo_speed.json

Then the same with 16 agents side by side.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks import ppo_harness
from benchmarks.ppo_harness import Training
from metadisco.core.provenance import provenance
from metadisco.evaluation import results

NUM_AGENTS = 16


ROWS = {
    row.env: row
    for row in (
        Training("CartPole-v1", 16, 64, 100),
        Training("Breakout-MinAtar", 64, 64, 20),
        Training("brax-reacher", 64, 32, 40),
    )
}


def of_metadisco(row: Training, num_agents: int):
    """A function of a key that trains agents with this library."""
    import jax

    inner = ppo_harness.inner_loop(row)

    def train(key):
        initials = ppo_harness.initials(row, inner.env, jax.random.split(key, num_agents))
        return inner.spend((), initials, slots=num_agents)[0].agent_params

    return train


def of_rejax(row: Training, num_agents: int):
    """The same with rejax."""
    import jax

    agent, _, _ = ppo_harness.rejax_agent(row)
    agent = agent.replace(eval_callback=lambda algorithm, state, key: jax.numpy.zeros(()))

    def train(key):
        keys = jax.random.split(key, num_agents)
        if num_agents == 1:
            return agent.train(keys[0])[0].actor_ts.params
        return jax.vmap(lambda key: agent.train(key)[0].actor_ts.params)(keys)

    return train


class Runner:
    """A compiled training run."""

    def __init__(self, make, row: Training, num_agents: int = 1) -> None:
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


def measure(row: Training, turns: int) -> dict:
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
