"""The cost model (`benchmarks/cost_model.py`) held against the programs, and what it predicts for many accelerators.

    python benchmarks/scaling.py --json docs/results/scaling.json   # a minute or two on 2 CPU cores
    python benchmarks/scaling.py --page docs/scaling.md              # put its tables into the page, measure nothing

Arithmetic is read from the traced programs and from XLA's own count, memory and communication from the compiled ones,
so none of these has to run. Only the rows of seconds do.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cost_model import Machine, Net, Workload, predict, update_flops
from metadisco.meta_training.domain import Domain

# Of the makers' data sheets, per device: NVIDIA H100 SXM (dense TF32, HBM3, NVLink in one direction), Google Cloud TPU
# v5e (bfloat16, HBM2, interchip links). Achieved shares and latencies are assumptions.
H100 = Machine("NVIDIA H100", peak=495e12, achieved=0.1, bandwidth=3.35e12, link=450e9, latency=4e-6, memory=80e9)
V5E = Machine("TPU v5e", peak=197e12, achieved=0.2, bandwidth=819e9, link=200e9, latency=2e-6, memory=16e9)
NUM_DEVICES = (1, 8, 64, 512)
LOG_UNIFORM_MEAN = 240 / math.log(25)  # of lifetimes 10 to 250

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MEASURED, MEASURED_GRADIENT = RESULTS / "meta_step.json", RESULTS / "groove_speed.json"
SORTED_BYTES = 2 * 4 * 100  # of a general grid world: walls, then objects, are the first in an order of its cells
OUTCOME_NUMBERS = 10  # of a life, that are sent back: fitness, score, updates and seven metrics
ITEM_SIZES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


def net(width: int) -> Net:
    """The net of the objectives that are measured here."""
    return Net(width=width)


def trainer(kind: str, width: int, num_tasks: int, num_workers: int, num_steps: int, lifetime: int, slots: int):
    """A trainer of the general grid worlds whose lives all have one lifetime."""
    from metadisco.agents.networks import Table
    from metadisco.curricula.randomization import DomainRandomization
    from metadisco.curricula.tasks import LogUniformLifetime, Tasks
    from metadisco.envs.gridworld.levels import GridLevels
    from metadisco.lives.critic import Critic
    from metadisco.lives.life import InnerLoop
    from metadisco.meta_optimizers.evolution import Evolution
    from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
    from metadisco.meta_training.evolution_trainer import MetaTrainer
    from metadisco.meta_training.gradient_trainer import GradientTrainer
    from metadisco.meta_training.truncation import Unroll
    from metadisco.objectives.lpg import LPG

    levels = GridLevels()
    is_gradient = kind == "gradient"
    inner = InnerLoop(
        levels.env,
        Table(),
        LPG(width=width, lifetime_features=True),
        num_workers=num_workers,
        num_steps=num_steps,
        num_test_workers=num_workers,
        critic=Critic() if is_gradient else None,
    )
    curriculum = DomainRandomization(Tasks(levels, LogUniformLifetime(lifetime, lifetime)))
    if is_gradient:
        unroll = Unroll(num_updates=lifetime)
        return GradientTrainer((Domain(inner, curriculum, num_tasks, slots=slots),), unroll=unroll)
    optimizer = LowRankEvolution(rank=1) if kind == "low rank" else Evolution()
    return MetaTrainer(inner, curriculum, optimizer, num_tasks=num_tasks, slots=slots)


def workload(kind: str, width: int, num_tasks: int, num_workers: int, num_steps: int, lifetime: float) -> Workload:
    """What `trainer` does in a meta-step, for the cost model."""
    return Workload(
        net=net(width),
        num_tasks=num_tasks,
        replicas=1 if kind == "gradient" else 2,
        updates=lifetime,
        longest=math.ceil(lifetime),
        num_steps=num_steps,
        num_workers=num_workers,
        rank=int(kind == "low rank"),
        is_gradient=kind == "gradient",
    )


def traced_product_flops(jaxpr) -> int:
    """FLOPs of all matrix products of a traced program: a scan counts as often as it runs, a while loop once."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * traced_product_flops(inner)
    return total


def flops_row(kind: str, width: int, num_workers: int, num_steps: int) -> dict:
    """Products of one update as traced, and everything as XLA counts it where T = 1 leaves no loop."""
    import jax

    from metadisco.core.lowrank import LowRank
    from metadisco.lives.life import InitialCondition
    from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution

    chosen = trainer(kind, width, 1, num_workers, num_steps, 1, 1)
    inner, key = chosen.inner, jax.random.key(0)
    tasks = chosen.curriculum.propose(key, chosen.curriculum.init(key), 1)[1].tasks
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    meta_params = inner.objective.init(key)
    life = inner.begin(key, InitialCondition(key, task).task)
    if kind == "gradient":
        unroll_state = chosen.unroll.begin(inner, key, task)

        def run(meta_params, unroll_state):
            return jax.grad(lambda each: chosen.unroll.advance(inner, each, unroll_state)[0])(meta_params)

        arguments = (meta_params, unroll_state)
    else:
        if kind == "low rank":
            optimizer = LowRankEvolution(rank=1)
            noise = optimizer._draw(key, meta_params, 1)
            population = optimizer._population(meta_params, noise, 0.1)

            def member(leaf):
                if isinstance(leaf, LowRank):
                    return LowRank(leaf.base, leaf.left[0], leaf.right[0], leaf.scale[0])
                return leaf[0]

            meta_params = jax.tree.map(member, population, is_leaf=lambda leaf: isinstance(leaf, LowRank))
        run, arguments = inner.update, (meta_params, life)
    traced = traced_product_flops(jax.make_jaxpr(run)(*arguments).jaxpr)
    work = workload(kind, width, 1, num_workers, num_steps, 1)
    row = {"kind": kind, "width": width, "B": num_workers, "T": num_steps}
    row |= {"predicted": update_flops(work), "traced": traced}
    if num_steps == 1 and kind == "evolution":
        counted = jax.jit(run).lower(*arguments).compile().cost_analysis()
        row["net"] = row["predicted"] + num_workers * work.net.elementwise
        row["counted_by_xla"] = counted["flops"]
    return row


def program_row(kind: str, width: int, num_tasks: int, num_workers: int, slots: int, num_devices: int) -> dict:
    """Memory and communication of a compiled meta-step, which is not run."""
    import jax

    jax.config.update("jax_num_cpu_devices", num_devices)
    from metadisco.meta_training import memory_estimate

    lifetime = 2
    chosen = trainer(kind, width, num_tasks, num_workers, 5, lifetime, slots)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(chosen.init, key)
    compiled = jax.jit(chosen.step).lower(key, state).compile()
    found = compiled.memory_analysis()
    work = workload(kind, width, num_tasks, num_workers, 5, lifetime)
    sent = communicated(compiled.as_text())
    return {
        "kind": kind,
        "width": width,
        "N": num_tasks,
        "B": num_workers,
        "slots": slots,
        "devices": num_devices,
        "predicted_bytes": memory_estimate.estimate(chosen) / num_devices,
        "compiled_bytes": found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes,
        "predicted_collective_bytes": collective_bytes(work, num_devices),
        "compiled_collective_bytes": sum(sent.values()),
        "collectives": sent,
    }


def collective_bytes(work: Workload, num_devices: int) -> float:
    """What the results of all collectives of a meta-step hold, as a device sees them.

    Under evolution the outcomes of M lives. By meta-gradients one gradient, and for each new level what its cells are
    sorted by, since XLA does not divide sorts.
    """
    if num_devices == 1:
        return 0.0
    if work.is_gradient:
        return 4.0 * work.net.num_params + float(work.num_tasks * SORTED_BYTES)
    return 4.0 * work.num_lives * OUTCOME_NUMBERS


def communicated(program: str) -> dict[str, int]:
    """Bytes of the results of collectives in a compiled program, by kind."""
    found: dict[str, int] = {}
    for line in program.splitlines():
        match = COLLECTIVE.search(line)
        if match:
            for dtype, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", match[1]):
                size = math.prod(int(side) for side in shape.split(",") if side) * ITEM_SIZES.get(dtype, 4)
                found[match[2]] = found.get(match[2], 0) + size
    return found


def add_agents(rows: list[dict]) -> None:
    """FLOPs of agent, optimizer and environment in one update, from the first row that XLA counted; added to all."""
    counted = [row for row in rows if "counted_by_xla" in row]
    agent = counted[0]["counted_by_xla"] - counted[0]["net"]
    for row in counted:
        row["predicted_all"], row["is_calibration"] = row["net"] + agent, row is counted[0]


def speed_rows(measured: list[dict], gradient: dict) -> list[dict]:
    """Agent updates per second as measured by other benchmarks, and what the model makes of them.

    An update takes FLOPs / rate + T B cost. Both constants come from two rows on one device, the narrowest training net
    and the published setting; devices divide the work.

    Args:
        measured: rows of `benchmarks/meta_step.py`.
        gradient: the row "reference" of `benchmarks/groove.py`.
    """
    import numpy as np

    def terms(work: Workload) -> list[float]:
        return [update_flops(work), float(work.num_steps * work.num_workers)]

    works = [Workload(net=Net(row["width"]), num_workers=row["workers"], rank=row["rank"]) for row in measured]
    ends = [i for i, row in enumerate(measured) if row["row"] in CALIBRATED and row["devices"] == 1]
    seconds = [1.0 / measured[i]["agent_updates_per_second"] for i in ends]
    constants = np.linalg.solve(np.array([terms(works[i]) for i in ends]), np.array(seconds))
    # 8 lives of 5 updates each.
    rate = 8 * 5 / gradient["seconds_per_meta_step"]
    last = {"row": "reference, meta-gradients", "devices": gradient["devices"], "agent_updates_per_second": rate}
    return [
        {"row": row["row"], "width": work.net.width, "workers": work.num_workers, "devices": row["devices"]}
        | {
            "predicted": float(row["devices"] / np.dot(terms(work), constants)),
            "measured": row["agent_updates_per_second"],
            "is_calibration": i in ends,
            "gflops": 1e-9 / float(constants[0]),
            "nanoseconds_per_env_step": 1e9 * float(constants[1]),
        }
        for i, (row, work) in enumerate(zip([*measured, last], [*works, Workload(is_gradient=True)], strict=True))
    ]


FLOPS = [
    (kind, width, workers, steps)
    for kind in ("evolution", "low rank", "gradient")
    for width, workers, steps in ((16, 4, 5), (64, 16, 20), (256, 64, 20))
] + [("evolution", width, 16, 1) for width in (16, 64, 256)]
PROGRAMS = [
    (kind, width, num_tasks, 16, slots, devices)
    for kind in ("evolution", "low rank", "gradient")
    for width, num_tasks, slots, devices in ((32, 16, 4, 1), (32, 16, 4, 2))
] + [("evolution", 64, 32, 16, 8, 2)]
CALIBRATED = ("width 32", "reference")  # rows of meta_step.json
PARTS = {"flops": (flops_row, FLOPS), "programs": (program_row, PROGRAMS)}


def run_part(part: str) -> list[dict]:
    """All rows of a part, in a process for each number of devices, which is chosen before JAX begins."""
    sizes = PARTS[part][1]
    devices = [each[-1] if part == "programs" else 1 for each in sizes]
    rows: dict[int, dict] = {}
    for num_devices in dict.fromkeys(devices):
        indices = [i for i, each in enumerate(devices) if each == num_devices]
        command = [sys.executable, __file__, "--rows", part, *map(str, indices)]
        # Memory and communication are settled before machine code is made, so that need not be good.
        flags = "--xla_backend_optimization_level=0" if part == "programs" else ""
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        rows |= zip(indices, map(json.loads, done.stdout.splitlines()[-len(indices) :]))
    return [rows[i] for i in range(len(sizes))]


def predictions() -> list[dict]:
    """Meta-steps at the published setting, and of populations that grow with the machine."""
    rows = []
    for machine in (H100, V5E):
        for kind in ("evolution", "low rank", "gradient"):
            for scaling in ("fixed", "grows"):
                for num_devices in NUM_DEVICES if scaling == "fixed" else NUM_DEVICES[1:]:
                    num_tasks = 512 * (num_devices if scaling == "grows" else 1)
                    updates = 5 if kind == "gradient" else LOG_UNIFORM_MEAN
                    work = replace(workload(kind, 256, num_tasks, 64, 20, updates), longest=5 if updates == 5 else 250)
                    sent = collective_bytes(work, num_devices)
                    found = predict(work, machine, num_devices, sent)
                    row = {"machine": machine.name, "kind": kind, "scaling": scaling, "devices": num_devices}
                    fits = found.gib_per_device * 2**30 <= machine.memory
                    rows.append(row | {"N": num_tasks, **asdict(found), "bound": found.bound, "fits": fits})
    return rows


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown, numbers to the right."""
    lines = [columns, ["---" if i == 0 else "---:" for i in range(len(columns))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def error(predicted: float, found: float) -> str:
    """How far a prediction is off, in percent of what was found."""
    return f"{100 * (predicted - found) / found:+.1f}%" if found else ("0%" if not predicted else "all")


def tables(content: dict) -> dict[str, str]:
    """The tables of docs/scaling.md by name."""
    rows = content["flops"]
    flops = [
        [r["kind"], f"{r['width']}", f"{r['B']}", f"{r['T']}", f"{r['predicted']:,.0f}", f"{r['traced']:,}",
         error(r["predicted"], r["traced"])]
        for r in rows
    ]  # fmt: skip
    counted = [
        [f"{r['width']}", f"{r['B']}", f"{r['predicted_all']:,.0f}", f"{r['counted_by_xla']:,.0f}",
         "calibrated" if r["is_calibration"] else error(r["predicted_all"], r["counted_by_xla"])]
        for r in rows if "counted_by_xla" in r
    ]  # fmt: skip
    programs = [
        [r["kind"], f"{r['width']}", f"{r['N']}", f"{r['slots']}", f"{r['devices']}",
         f"{r['predicted_bytes'] / 2**20:.2f}", f"{r['compiled_bytes'] / 2**20:.2f}",
         error(r["predicted_bytes"], r["compiled_bytes"]), f"{r['predicted_collective_bytes']:,.0f}",
         f"{r['compiled_collective_bytes']:,}",
         error(r["predicted_collective_bytes"], r["compiled_collective_bytes"])]
        for r in content["programs"]
    ]  # fmt: skip
    speed = [
        [r["row"], f"{r['width']}", f"{r['workers']}", f"{r['devices']}", f"{r['predicted']:,.0f}",
         f"{r['measured']:,.0f}", "calibrated" if r["is_calibration"] else error(r["predicted"], r["measured"])]
        for r in content["speed"]
    ]  # fmt: skip
    future = [
        [r["machine"], r["kind"], f"{r['devices']}", f"{r['N']:,}", f"{r['seconds']:.3f}",
         f"{r['updates_per_second']:,.0f}", r["bound"],
         f"{r['gib_per_device']:.2f}" + ("" if r["fits"] else ": too much")]
        for r in content["predictions"]
    ]  # fmt: skip
    sizes = ["kind", "width", "B", "T"]
    return {
        "flops": table([*sizes, "predicted", "traced", "error"], flops),
        "counted": table(["width", "B", "predicted", "counted by XLA", "error"], counted),
        "programs": table(
            ["kind", "width", "N", "slots", "devices", "MiB predicted", "MiB compiled", "error",
             "collective bytes predicted", "compiled", "error"],
            programs,
        ),
        "speed": table(["row", "width", "B", "devices", "updates/s predicted", "updates/s measured", "error"], speed),
        "predictions": table(
            ["machine", "kind", "devices", "N", "s per meta-step", "agent updates/s", "bound by", "GiB of candidates"],
            future,
        ),
    }  # fmt: skip


def with_tables(page: str, content: dict) -> str:
    """A page with what stands between `<!-- table NAME -->` and `<!-- end -->` replaced by the tables."""
    for name, text in tables(content).items():
        begin, end = f"<!-- table {name} -->\n", "<!-- end -->"
        before, mark, rest = page.partition(begin)
        if mark:
            page = before + begin + text + "\n" + end + rest.partition(end)[2]
    return page


def main() -> None:
    """Measure every row in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="docs/results/scaling.json", help="the file of all numbers")
    parser.add_argument("--page", help="put the tables of the file of numbers into this page, measure nothing")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS), help="others stay as they are")
    parser.add_argument("--rows", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows:
        measure, sizes = PARTS[options.rows[0]]
        for index in options.rows[1:]:
            print(json.dumps(measure(*sizes[int(index)])), flush=True)
        return
    path = Path(options.json)
    content = json.loads(path.read_text()) if path.exists() else {}
    if options.page:
        page = Path(options.page)
        page.write_text(with_tables(page.read_text(), content))
        return
    for part in options.parts:
        content[part] = run_part(part)
    add_agents(content["flops"])
    gradient = next(row for row in json.loads(MEASURED_GRADIENT.read_text())["rows"] if row["row"] == "reference")
    content["speed"] = speed_rows(json.loads(MEASURED.read_text())["rows"], gradient)
    content["predictions"] = predictions()
    from metadisco.core.provenance import provenance

    content["provenance"] = provenance()
    for name, text in tables(content).items():
        print(f"\n{name}\n\n{text}")
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
