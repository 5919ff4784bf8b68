"""Several seeds of one trainer in one program.

Seeds differ in numbers only, so their meta-steps are one vmapped meta-step, and their lives are one population
(`metadisco.meta_training.domain`): S small populations fill a wide device as one large one does, and on a CPU no
device idles while the last lives of one seed finish. Random numbers of a seed are those of its own run, so results are
the same up to the order of reductions.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Key, MetaParams, Metrics
from metadisco.meta_training.trainer import Trainer
from metadisco.runs import trackers
from metadisco.runs.compiled_steps import first_key, step_key
from metadisco.runs.run_folder import Row


@struct.dataclass
class SeedStates:
    """The train states of several seeds."""

    step: jax.Array  # [] int32, meta-steps done
    states: Any  # of the trainer, leading axis S


@own_defaults
@dataclass(frozen=True)
class BatchedSeeds:
    """Several seeds of one trainer, as a trainer.

    Attributes:
        trainer: an evolution trainer, whose lives last for one meta-step.
        seeds: of the runs, all different.
    """

    trainer: Trainer
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"BatchedSeeds.seeds must be different and at least one, got {self.seeds}")
        if not self.trainer.lives_end_with_the_meta_step:
            raise ValueError(
                f"BatchedSeeds.trainer must spend whole lives in a meta-step, got a {type(self.trainer).__name__}; run "
                "its seeds one by one"
            )

    @property
    def num_steps(self) -> int:
        """Meta-steps of each run."""
        return self.trainer.num_steps

    def init(self, key: Key, meta_params: MetaParams | None = None) -> SeedStates:
        """The first state of every seed, all at `meta_params` if given. The key is not used: each seed has its own."""
        del key
        states = jax.lax.map(lambda root: self.trainer.init(first_key(root), meta_params), self._roots)
        return SeedStates(jnp.zeros((), jnp.int32), states)

    def step(self, key: Key, state: SeedStates) -> tuple[SeedStates, Metrics]:
        """One meta-step of every seed.

        Returns:
            The next state, and the metrics of each seed as `NAME/seed<k>`; `agent_updates` and `env_steps` are sums,
            `fitness` and `finite_fraction` means over seeds.
        """
        del key
        keys = jax.vmap(lambda root: step_key(root, state.step))(self._roots)
        states, values = jax.vmap(self.trainer.step)(keys, state.states)
        metrics = {name: jnp.sum(values[name]) for name in ("agent_updates", "env_steps")}
        metrics |= {name: jnp.mean(values[name]) for name in ("fitness", "finite_fraction")}
        for name, each in values.items():
            metrics |= {label(name, seed): each[i] for i, seed in enumerate(self.seeds)}
        return SeedStates(state.step + 1, states), metrics

    def of_seed(self, state: SeedStates, seed: int) -> Any:
        """The train state of one seed, as its own run has it."""
        return jax.tree.map(lambda leaf: leaf[self.seeds.index(seed)], state.states)

    @property
    def _roots(self) -> Key:
        return jax.vmap(jax.random.key)(jnp.array(self.seeds, jnp.uint32))


def label(name: str, seed: int) -> str:
    """Name of a metric of one seed in the common log."""
    return f"{name}/seed{seed}"


def rows_of_seed(rows: Sequence[Row], seed: int) -> list[Row]:
    """The log of one seed, out of that of all."""
    suffix = label("", seed)
    shared = ("step", "seconds")
    return [
        {name: row[name] for name in shared if name in row}
        | {name.removesuffix(suffix): value for name, value in row.items() if name.endswith(suffix)}
        for row in rows
    ]


def log_of_seed(rows: Sequence[Row], seed: int, num_seeds: int) -> str:
    """Its lines of `metrics.jsonl`, with its part of the time."""
    own = [row | {"seconds": row["seconds"] / num_seeds} for row in rows_of_seed(rows, seed)]
    return "".join(json.dumps(row) + "\n" for row in own)


class SeedLogs:
    """A tracker that writes the log and the curves of every seed into its own run folder during training.

    Rows come from the common log, which is truncated to the newest checkpoint before trackers are made. A resumed run
    therefore rewrites the logs of its seeds.
    """

    def __init__(self, folder: Path, step: int, *, homes: Mapping[int, Path]) -> None:
        with contextlib.ExitStack() as stack:
            self.log = stack.enter_context((folder / "metrics.jsonl").open(encoding="utf-8"))
            self.files = {
                seed: stack.enter_context((home / "metrics.jsonl").open("w", encoding="utf-8"))
                for seed, home in homes.items()
            }
            self.curves: dict[int, trackers.Tracker] = {}
            for seed, home in homes.items():
                tracker = trackers.tensorboard(home, step)
                if tracker is not None:
                    stack.callback(tracker.close)
                    self.curves[seed] = tracker
            self._deal()
            self.closing = stack.pop_all()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `trackers.Tracker`."""
        self._deal()
        for seed, tracker in self.curves.items():
            tracker.write(step, rows_of_seed([dict(scalars)], seed)[0])

    def _deal(self) -> None:
        rows = [json.loads(line) for line in self.log]
        for seed, file in self.files.items():
            file.write(log_of_seed(rows, seed, len(self.files)))
            file.flush()

    def close(self) -> None:
        """See `trackers.Tracker`."""
        self.closing.close()
