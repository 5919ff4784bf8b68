"""How fast is a meta-step, and what bounds it?

Each row is measured in a process of its own (peak memory is a process's high-water mark), all in one run of this
script, and so is the machine's own matrix-multiply rate. Run it on an otherwise idle machine:

    python benchmarks/meta_step.py --json docs/results/meta_step.json

The row `reference` is the setting "16 candidates, 64 workers, 20 steps, width 256, m = 8, lifetime 250, general
grid worlds, evaluation of 64 workers for one episode", for which a public JAX implementation was measured at 253 s
per meta-step on a 2-core machine (of 465 GFLOP/s in matrix products), 16 agent updates/s. The comparison is given as it
is and scaled by the rates of matrix products of both machines. `--peer SECONDS` replaces that number by one measured on
this machine, where there is nothing to scale.

The row `published` is the setting that was published as "under 3 hours for 2,500 meta-steps on one GPU", 4.3 s each
(arXiv:2402.05828). It is for accelerators, and not among the rows that are measured by default:

    python benchmarks/meta_step.py --rows published --devices 1 --json published.json
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

PEER_SECONDS = 253.0  # per meta-step of the reference setting
PEER_GFLOPS = 465.0  # matrix products of the machine that it was measured on
MATMUL = "matmul"  # a row that is no meta-step

ROWS = {
    # name: width, pairs, workers, shortest and longest lifetime, low rank.
    "width 32": {"width": 32, "pairs": 64, "workers": 64, "lifetimes": (10, 250), "rank": 0},
    "width 256": {"width": 256, "pairs": 8, "workers": 64, "lifetimes": (10, 250), "rank": 0},
    "width 256, low rank": {"width": 256, "pairs": 8, "workers": 64, "lifetimes": (10, 250), "rank": 1},
    "reference": {"width": 256, "pairs": 8, "workers": 64, "lifetimes": (250, 250), "rank": 0},
    "reference, low rank": {"width": 256, "pairs": 8, "workers": 64, "lifetimes": (250, 250), "rank": 1},
    "quickstart": {"width": 16, "pairs": 128, "workers": 32, "lifetimes": (16, 96), "rank": 0},
    "published": {"width": 256, "pairs": 512, "workers": 64, "lifetimes": (10, 250), "rank": 0},
}
FOR_ACCELERATORS = ("published",)


def build(width: int, pairs: int, workers: int, lifetimes: tuple[int, int], rank: int, slots: int | None):
    """The trainer of one row."""
    from metadisco.agents.networks import Table
    from metadisco.curricula.randomization import DomainRandomization
    from metadisco.curricula.tasks import LogUniformLifetime, Tasks
    from metadisco.envs.gridworld.levels import GridLevels
    from metadisco.lives.life import InnerLoop
    from metadisco.meta_optimizers.evolution import Evolution
    from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
    from metadisco.meta_training.evolution_trainer import MetaTrainer
    from metadisco.objectives.lpg import LPG

    levels = GridLevels()
    inner = InnerLoop(levels.env, Table(), LPG(width=width, lifetime_features=True), num_workers=workers)
    optimizer = LowRankEvolution(rank=rank) if rank else Evolution()
    curriculum = DomainRandomization(Tasks(levels, LogUniformLifetime(*lifetimes)))
    return MetaTrainer(inner, curriculum, optimizer, num_tasks=pairs, slots=slots)


def matmul_rate(size: int = 4096, repeats: int = 5) -> float:
    """Fastest of a few square products on one device that uses all cores, in GFLOP/s."""
    import jax

    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds) / 1e9


def network_flops(width: int, num_features: int, num_predictions: int, embedding_width: int) -> int:
    """Multiply-adds, counted as two, of the objective's network for one environment step."""
    gru = 3 * width * (width + num_features)
    out = width * (1 + num_predictions)
    embedding = 2 * embedding_width * (num_predictions + 1)
    return 2 * (gru + out + embedding)


def measure(name: str, devices: int, slots: int | None, repeats: int) -> dict:
    """One row, in this process."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    row = ROWS[name]
    trainer = build(**row, slots=slots)
    objective = trainer.domains[0].inner.objective
    state = trainer.init(jax.random.key(0))
    key = jax.random.key(1)
    begun = time.perf_counter()
    step = jax.jit(trainer.step).lower(key, state).compile()
    compile_seconds = time.perf_counter() - begun
    # A warm-up, whose result also has the sharding that the later steps see.
    shardings = step.input_shardings[0]
    seconds, updates = [], []
    for i in range(repeats + 1):
        state, key = jax.device_put((state, jax.random.fold_in(jax.random.key(1), i)), (shardings[1], shardings[0]))
        begun = time.perf_counter()
        state, metrics = step(key, state)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - begun)
        updates.append(float(metrics["agent_updates"]))
    seconds, updates = sum(seconds[1:]), sum(updates[1:])
    env_steps = updates * row["workers"] * trainer.domains[0].inner.num_steps
    flops = network_flops(row["width"], len(objective.features), objective.num_predictions, objective.embedding_width)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "row": name,
        **row,
        "slots": trainer.num_slots(trainer.domains[0]),
        "devices": jax.device_count(),
        "device": jax.devices()[0].device_kind,
        "compile_seconds": compile_seconds,
        "seconds_per_meta_step": seconds / repeats,
        "agent_updates_per_second": updates / seconds,
        "env_steps_per_second": env_steps / seconds,
        "network_gflops": env_steps * flops / seconds / 1e9,
        "peak_memory_mib": memory.get("peak_bytes_in_use", resident) / 2**20,
    }


def compare(row: dict, rate: float, peer: float | None) -> dict:
    """How many times faster than the peer a row of the reference setting is.

    Args:
        row: of `measure`.
        rate: of matrix products here, in GFLOP/s.
        peer: seconds that the peer takes here; None for what it took elsewhere.

    Returns:
        `times_peer`, and `times_peer_scaled` as if the peer had run on a machine of this one's rate.
    """
    scale = 1.0 if peer is not None else PEER_GFLOPS / rate
    times = (PEER_SECONDS if peer is None else peer) / row["seconds_per_meta_step"]
    return {"times_peer": times, "times_peer_scaled": times * scale}


def run_row(name: str, *options: object) -> dict:
    """One row, in a process of its own, whose complaints go where ours do."""
    command = [sys.executable, __file__, "--row", name, *map(str, options)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure every row in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", nargs="*", default=[name for name in ROWS if name not in FOR_ACCELERATORS], choices=list(ROWS)
    )
    parser.add_argument("--devices", type=int, nargs="*", default=[1, os.cpu_count()], help="host devices to try")
    parser.add_argument(
        "--slots", type=int, nargs="*", default=[0], help="lives side by side on a device [0: as runs choose them]"
    )
    parser.add_argument("--repeats", type=int, default=3, help="meta-steps per row, after one that does not count")
    parser.add_argument("--peer", type=float, help="seconds that the peer takes here for the reference setting")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row == MATMUL:
        print(json.dumps({"gflops": matmul_rate()}))
        return
    if options.row:
        print(json.dumps(measure(options.row, options.devices[0], options.slots[0] or None, options.repeats)))
        return
    rate = run_row(MATMUL)["gflops"]
    print(f"matrix products of this machine: {rate:.0f} GFLOP/s (float32)")
    rows = []
    for name in options.rows:
        for devices in dict.fromkeys(options.devices):
            for slots in options.slots:
                row = run_row(name, "--devices", devices, "--slots", slots, "--repeats", options.repeats)
                row["matmul_fraction"] = row["network_gflops"] / rate
                rows.append(row)
                print(
                    f"{name:20s} devices {row['devices']} slots {slots:3d}: "
                    f"{row['seconds_per_meta_step']:7.2f} s/meta-step "
                    f"{row['agent_updates_per_second']:8.0f} updates/s "
                    f"{row['env_steps_per_second']:11,.0f} env steps/s "
                    f"{row['network_gflops']:6.1f} GFLOP/s ({row['matmul_fraction']:.0%} of the machine's rate) "
                    f"compile {row['compile_seconds']:.0f} s, {row['peak_memory_mib']:.0f} MiB",
                    flush=True,
                )
    peer = PEER_SECONDS if options.peer is None else options.peer
    for row in rows:
        if row["row"].startswith("reference"):  # the other rows are other settings than the peer's
            row |= compare(row, rate, options.peer)
            print(
                f"{row['row']}, {row['devices']} devices, slots {row['slots']}: {row['times_peer']:.1f} times the "
                f"peer's {peer:.0f} s, {row['times_peer_scaled']:.1f} times when scaled by matrix products"
            )
    if options.json:
        from metadisco.core.provenance import provenance  # imports jax, which the rows should have for themselves

        content = {
            "provenance": provenance(),
            "matmul_gflops": rate,
            "peer_seconds": peer,
            "peer_matmul_gflops": rate if options.peer is not None else PEER_GFLOPS,
            "peer_measured_here": options.peer is not None,
            "rows": rows,
        }
        Path(options.json).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
