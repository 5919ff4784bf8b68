"""What does it cost to choose the levels, and how fast is a meta-step by meta-gradients?

Two trainers that differ in one thing are compiled in one process and take turns, so that a noisy machine is noisy for
both; what is compared are medians over turns. Run it on an otherwise idle machine:

    python -m benchmarks.groove --json docs/results/groove_speed.json

- `gradient`, `evolution`: a meta-step of GROOVE, antagonist included, against the same step on new levels. The buffer
  of 4,000 levels is full from the start, and lives are of all ages.
- `buffer`: its operations alone, against that step.
- `reference`: "8 agents, 64 workers, 20 steps, K = 5, width 256, general grid worlds, evaluation included", which a
  public JAX implementation was measured to take 4.4 s for on a 2-core machine (of 465 GFLOP/s in matrix products).
  Once as it runs (agents are evaluated when their lives end), once with lives of five updates, all of which end, and
  are evaluated, in every meta-step. The comparison is given as it is and scaled by the rates of matrix products.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.meta_step import PEER_GFLOPS, matmul_rate
from metadisco.core.config import replace_fields
from metadisco.curricula.tasks import LogUniformLifetime
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.meta_training.level_scores import Return
from metadisco.objectives.lpg import LPG
from metadisco.presets import registry

PEER_SECONDS = 4.4
ROWS = ("gradient", "evolution", "buffer", "reference", "reference, all evaluated")


def pair(row: str) -> tuple:
    """Trainers on new levels and on chosen ones."""
    if row == "evolution":
        return registry.preset("ta-lpg-grid").trainer, registry.preset("groove-grid-es").trainer
    return registry.preset("lpg-grid-gradient").trainer, registry.preset("groove-grid").trainer


def reference(row: str) -> GradientTrainer:
    """The peer's setting."""
    trainer = registry.preset("lpg-grid-gradient").trainer
    changes = {"inner.objective": LPG(width=256), "inner.num_workers": 64, "inner.num_test_workers": 64, "num_tasks": 8}
    if row != "reference":
        changes["curriculum.tasks.lifetimes"] = LogUniformLifetime(5, 5)
    return replace_fields(trainer, changes)


def fill(trainer, state):
    """The state with every place of the level buffer taken by a level of the base distribution."""
    import jax
    import jax.numpy as jnp

    curriculum = trainer.domains[0].curriculum
    capacity = curriculum.capacity
    keys = jax.random.split(jax.random.key(7), capacity)
    tasks = jax.jit(jax.vmap(curriculum.tasks.sample))(keys)
    buffer = replace(
        state.curricula[0],
        tasks=tasks,
        score=jax.random.normal(jax.random.key(8), (capacity,)),
        born=jnp.zeros(capacity, jnp.int32),
        is_filled=jnp.ones(capacity, bool),
    )
    return replace(state, curricula=(buffer,))


class Runner:
    """A compiled trainer that goes on from where it was."""

    def __init__(self, trainer, *, filled: bool = False) -> None:
        import jax

        state = jax.jit(trainer.init)(jax.random.key(0))
        self.state = fill(trainer, state) if filled else state
        begun = time.perf_counter()
        self.step = jax.jit(trainer.step).lower(jax.random.key(0), self.state).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.count = 0

    def turn(self, num_steps: int) -> float:
        """Seconds per meta-step."""
        import jax

        begun = time.perf_counter()
        for _ in range(num_steps):
            placed = jax.device_put((jax.random.key(self.count), self.state), self.step.input_shardings[0])
            self.state, _ = self.step(*placed)
            self.count += 1
        jax.block_until_ready(self.state)
        return (time.perf_counter() - begun) / num_steps


def take_turns(runners: list, turns: int, num_steps: int) -> list[list[float]]:
    """Seconds per meta-step, turn by turn, after one turn that does not count."""
    seconds = [[runner.turn(num_steps) for runner in runners] for _ in range(turns + 1)]
    return [list(each) for each in zip(*seconds[1:], strict=True)]


def buffer_operations(trainer):
    """A program of nothing but a proposal and an observation, as a trainer."""
    import jax
    import jax.numpy as jnp

    (domain,) = trainer.domains
    curriculum, num_tasks = domain.curriculum, domain.num_tasks

    class Operations:
        init = trainer.init

        @staticmethod
        def step(key, state):
            propose_key, observe_key = jax.random.split(key)
            buffer, proposal = curriculum.propose(propose_key, state.curricula[0], num_tasks)
            scores = jax.random.normal(key, (num_tasks,))
            finished = jnp.ones(num_tasks, bool)
            buffer, metrics = curriculum.observe(observe_key, buffer, proposal, scores, finished)
            return replace(state, curricula=(buffer,)), metrics

    Operations.domains = trainer.domains
    return Operations


def measure(row: str, devices: int, turns: int, num_steps: int) -> dict:
    """One row, in this process."""
    import jax

    from metadisco.meta_training import memory_estimate

    jax.config.update("jax_num_cpu_devices", devices)
    if row.startswith("reference"):
        trainer = reference(row)
        runner = Runner(trainer)
        (seconds,) = take_turns([runner], turns, num_steps)
        result = {"seconds_per_meta_step": statistics.median(seconds), "turns": [seconds]}
        result["compile_seconds"] = runner.compile_seconds
        result["estimated_memory_mib"] = memory_estimate.estimate(trainer) / 2**20
    else:
        plain, groove = pair(row)
        if row == "buffer":
            plain = replace_fields(groove, {"score": Return()})
            # Only the curriculum differs: new levels are drawn either way.
            ours = [Runner(buffer_operations(groove), filled=True), Runner(groove, filled=True)]
        else:
            ours = [Runner(groove, filled=True), Runner(plain)]
        seconds = take_turns(ours, turns, num_steps)
        medians = [statistics.median(each) for each in seconds]
        result = {"seconds": medians, "ratio": medians[0] / medians[1], "turns": seconds}
        result["compile_seconds"] = max(each.compile_seconds for each in ours)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"row": row, "devices": devices, "steps_per_turn": num_steps, "peak_memory_mib": peak, **result}


def run_row(name: str, *options: object) -> dict:
    """One row, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.groove", "--row", name, *map(str, options)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def describe(row: dict, rate: float) -> str:
    """One line; adds the comparison with the peer to the row."""
    if "ratio" in row:
        ours, theirs = (1e3 * each for each in row["seconds"])
        return f"{row['row']:26s} {ours:8.1f} ms against {theirs:8.1f} ms: {row['ratio']:.3f}"
    row["times_peer"] = PEER_SECONDS / row["seconds_per_meta_step"]
    row["times_peer_scaled"] = row["times_peer"] * PEER_GFLOPS / rate
    return (
        f"{row['row']:26s} {row['seconds_per_meta_step']:8.3f} s: {row['times_peer']:.1f} times the peer's "
        f"{PEER_SECONDS} s, {row['times_peer_scaled']:.1f} times when scaled by matrix products; "
        f"{row['peak_memory_mib']:.0f} MiB, of which {row['estimated_memory_mib']:.0f} for lives and their gradients"
    )


def main() -> None:
    """Measure every row and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--devices", type=int, default=2, help="host devices [default: 2]")
    parser.add_argument("--turns", type=int, default=7, help="after one that does not count [default: 7]")
    parser.add_argument("--steps", type=int, help="meta-steps per turn [default: 20, 2 under evolution]")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.row, options.devices, options.turns, options.steps)))
        return
    rate, rows = matmul_rate(), []
    print(f"matrix products of this machine: {rate:.0f} GFLOP/s (float32)")
    for name in options.rows:
        num_steps = options.steps or (2 if name == "evolution" else 20)
        rows.append(run_row(name, "--devices", options.devices, "--turns", options.turns, "--steps", num_steps))
        print(describe(rows[-1], rate), flush=True)
    if options.json:
        from metadisco.core.provenance import provenance

        content = {
            "provenance": provenance(),
            "matmul_gflops": rate,
            "peer_seconds": PEER_SECONDS,
            "peer_matmul_gflops": PEER_GFLOPS,
            "rows": rows,
        }
        Path(options.json).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
