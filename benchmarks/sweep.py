"""Seeds in one program against the same seeds one after the other: how many times faster?

    python benchmarks/sweep.py --json docs/results/sweep.json

Both are compiled before the clock starts and take turns in one process, on one device per core.
"""

import argparse
import json
import statistics
import time
from pathlib import Path


def measure(name: str, num_seeds: int, num_steps: int, turns: int) -> dict:
    """Seconds for `num_steps` meta-steps of every seed, both ways, and their ratio."""
    import jax

    from metadisco.meta_training.batched_seeds import BatchedSeeds
    from metadisco.presets import registry
    from metadisco.runs.compiled_steps import compile_chunk, first_key

    trainer, seeds = registry.preset(name).trainer, tuple(range(num_seeds))
    together = BatchedSeeds(trainer, seeds)
    begun = time.perf_counter()
    advance_all, all_at = compile_chunk(together)
    compile_together, begun = time.perf_counter() - begun, time.perf_counter()
    advance, at = compile_chunk(trainer)
    compile_alone = time.perf_counter() - begun
    roots = [jax.random.key(seed) for seed in seeds]
    states = [jax.device_put(jax.jit(trainer.init)(first_key(root)), at) for root in roots]
    packed = jax.device_put(together.init(roots[0]), all_at)
    alone, at_once = [], []
    for _ in range(turns + 1):  # the first does not count
        begun = clocks()
        states = [advance(seed, state, num_steps)[0] for seed, state in zip(seeds, states)]
        alone.append([now - before for now, before in zip(clocks(), begun)])
        begun = clocks()
        packed = advance_all(seeds[0], packed, num_steps)[0]
        at_once.append([now - before for now, before in zip(clocks(), begun)])
    pairs = list(zip(alone[1:], at_once[1:]))
    return {
        "preset": name,
        "seeds": num_seeds,
        "devices": jax.device_count(),
        "device": jax.devices()[0].device_kind,
        "compile_seconds": {"together": compile_together, "alone": compile_alone},
        "seconds": {"together": [now for now, _ in at_once[1:]], "alone": [now for now, _ in alone[1:]]},
        "ratio": statistics.median(first[0] / second[0] for first, second in pairs),
        "cpu_ratio": statistics.median(first[1] / second[1] for first, second in pairs),
    }


def clocks() -> tuple[float, float]:
    """Seconds on the wall, and of CPU time."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=["smoke", "quickstart"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="meta-steps of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    from metadisco.core import devices
    from metadisco.core.provenance import provenance

    devices.prepare_jax()
    rows = []
    for name in options.presets:
        rows.append(measure(name, options.seeds, options.steps, options.turns))
        row = rows[-1]
        print(f"{name}: {options.seeds} seeds in one program are {row['ratio']:.2f} times as fast as in turn", end=", ")
        print(f"by CPU time {row['cpu_ratio']:.2f} times", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps({"provenance": provenance(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
