"""Meta-steps in chunks: one compiled program, and the state placed as it wants it.

The trainer is a frozen dataclass with `num_steps`, `init(key) -> state` and `step(key, state) -> (state, metrics)`;
`state.step` counts the meta-steps done. Meta-step i gets the key `fold_in(key(seed), i)`, so a resumed run draws the
numbers that it would have drawn. One program is compiled; its number of meta-steps is an argument, not a constant,
so the arithmetic is the same wherever a chunk ends. A run that was killed and resumed on the same machine ends
bit-identical (on a GPU with the persistent compilation cache on: without it, kernels are chosen by timing them anew).

The program spans all devices of all processes. Every device has a copy of the state, except for what a trainer that is
`PlacesState` spreads over them.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metadisco.core import nan_checks
from metadisco.core.caching import once_for_equal
from metadisco.core.files import is_key, named_leaves
from metadisco.core.keys import SeedPurpose
from metadisco.core.processes import lost_processes
from metadisco.core.sharding import SHARED, population_mesh
from metadisco.core.types import Key, Metrics
from metadisco.runs.train_state import Checkpoints

MAX_CHUNK = 128  # meta-steps; part of the compiled program, so not a setting
HostMetrics = dict[str, np.ndarray]  # [128] each
Advance = Callable[[int, Any, int], tuple[Any, HostMetrics]]


class Trainer(Protocol):
    """A trainer, as the loop uses it."""

    @property
    def num_steps(self) -> int:
        """Meta-steps of the whole run."""

    def init(self, key: Key) -> Any:
        """Return the first state, a pytree with a field `step: [] int32`."""

    def step(self, key: Key, state: Any) -> tuple[Any, Metrics]:
        """Return the next state, its `step` one higher, and scalars."""


@runtime_checkable
class PlacesState(Protocol):
    """A trainer that shards parts of its state over devices; the state of other trainers is replicated."""

    def layout(self, num_devices: int) -> Any:
        """`PartitionSpec`s at the nodes of a tree like the state, for a mesh of so many devices."""


@runtime_checkable
class FindsNaN(Protocol):
    """A trainer that can find the operation that made NaN. Optional."""

    def find_nan(self, key: Key, state: Any) -> None:
        """Do the meta-step of this key from this state again, and stop at the first operation that makes NaN.

        Raises:
            FloatingPointError: there; where no operation makes NaN, with what was found instead.
        """


def first_key(root: Key) -> Key:
    """The key of `init` in a run with root key `root`."""
    return jax.random.fold_in(root, np.uint32(SeedPurpose.INIT))


def step_key(root: Key, step: jax.Array) -> Key:
    """The key of the meta-step after `step` meta-steps."""
    return jax.random.fold_in(root, step)


def compile_chunk(trainer: Trainer) -> tuple[Advance, Any]:
    """Compile `advance(seed, state, count) -> (state, metrics)`, which does `count` meta-steps and donates the state.

    A run that is taken up again in the same process by an equal trainer finds the program that it had.

    Returns:
        The function, which waits for its results (metrics: [128] each, on the host, the first `count` of them set), and
        the shardings of the state that it takes, as a tree like the state.
    """
    state, mesh = _state_shapes(trainer), population_mesh()
    seed, count = jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((), jnp.int32)
    is_op_by_op = jax.config.jax_disable_jit  # type: ignore[attr-defined]  # nothing can be compiled ahead then
    program = _chunk(trainer, mesh)
    compiled: Callable[..., Any] = program if is_op_by_op else program.lower(seed, state, count).compile()

    def advance_and_fetch(seed: int, state: Any, count: int) -> tuple[Any, HostMetrics]:
        before = nan_checks.copy_of(state)
        with lost_processes(), nan_checks.unchecked():
            state, metrics = compiled(np.uint32(seed), state, np.int32(count))
            _wait(state.step)
            metrics = jax.device_get(metrics)
        if before is not None:
            _look_for_nan(trainer, step_key(jax.random.key(seed), before.step), before, state, metrics)
        return state, metrics

    return advance_and_fetch, _placement(trainer, state, mesh)


@once_for_equal(maxsize=4)  # JAX keeps a program as long as its function
def _chunk(trainer: Trainer, mesh: Mesh) -> Any:
    """The function of a chunk, ready to be compiled."""
    step = jax.jit(trainer.step, inline=True)  # traced once for both of its uses

    def advance(seed: jax.Array, state: Any, count: jax.Array) -> tuple[Any, Metrics]:
        root = jax.random.key(seed)

        def body(index: jax.Array, carry: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
            state, rows = carry
            state, metrics = step(step_key(root, state.step), state)
            return state, jax.tree.map(lambda row, value: row.at[index].set(value), rows, metrics)

        with jax.disable_jit(False):  # only shapes are asked for
            shapes = jax.eval_shape(step, root, state)[1]
        for name, leaf in shapes.items():
            if leaf.shape:
                raise ValueError(f"Metric {name!r} has shape {leaf.shape}: a trainer's metrics are scalars.")
        rows = {name: jnp.zeros((MAX_CHUNK,), leaf.dtype) for name, leaf in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, rows))

    placement, everywhere = _placement(trainer, _state_shapes(trainer), mesh), NamedSharding(mesh, SHARED)
    return jax.jit(
        advance,
        donate_argnums=1,
        keep_unused=True,
        in_shardings=(everywhere, placement, everywhere),
        out_shardings=(placement, everywhere),
    )


def _look_for_nan(trainer: Trainer, key: Key, before: Any, after: Any, metrics: HostMetrics) -> None:
    """Look for NaN in a meta-step, the one between two states.

    Raises:
        FloatingPointError: at the operation that made the first NaN, or, where that is not found, with what is known.
    """
    with nan_checks.unchecked():
        if float(metrics.get("finite_fraction", np.ones(1))[0]) < 1.0 and isinstance(trainer, FindsNaN):
            trainer.find_nan(key, before)
        spoiled = [name for name, leaf in named_leaves(after).items() if nan_checks.has_nan(leaf)]
        if spoiled:
            raise FloatingPointError(
                f"meta-step {int(after.step)} made NaN in {spoiled[0]} of the train state, though no life was lost."
            )


def restore(
    trainer: Trainer, seed: int, checkpoints: Checkpoints, placement: Any, init: Callable[[Key], Any] | None = None
) -> Any:
    """Return the newest intact state, or the first one of a new run, placed as the compiled chunk wants it.

    `init` makes the first state from its key; the trainer's by default.
    """
    shapes = _state_shapes(trainer)
    found = checkpoints.restore_latest(jax.tree.map(_shape_at, shapes, placement))
    if found is not None:
        return found.state

    def begin(seed: jax.Array) -> Any:
        return (init or trainer.init)(first_key(jax.random.key(seed)))

    return jax.jit(begin, out_shardings=placement)(np.uint32(seed))


def on_this_process(state: Any) -> Any:
    """Replace replicated arrays by the local copy; sharded leaves are unchanged."""
    if jax.process_count() == 1:
        return state
    return jax.tree.map(lambda leaf: leaf.addressable_data(0) if leaf.is_fully_replicated else leaf, state)


def on_all_processes(state: Any) -> Any:
    """The inverse: local copies that are equal on all processes become replicated arrays, for `Checkpoints`."""

    def share(leaf: jax.Array) -> jax.Array:
        if is_key(leaf):
            return jax.random.wrap_key_data(share(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, NamedSharding(population_mesh(), SHARED), host.__getitem__)

    return jax.tree.map(share, state)


def shared_shapes(trainer: Trainer) -> Any:
    """The shapes of such a state, for `Checkpoints.restore_latest`."""
    at, shapes = NamedSharding(population_mesh(), SHARED), _state_shapes(trainer)
    return jax.tree.map(lambda leaf: _shape_at(leaf, at), shapes)


def _state_shapes(trainer: Trainer) -> Any:
    with jax.disable_jit(False):
        return _initializer(trainer).eval_shape(jax.eval_shape(jax.random.key, 0))


@once_for_equal(maxsize=4)
def _initializer(trainer: Trainer) -> Any:
    return jax.jit(trainer.init)  # which remembers what it was traced to


def _shape_at(leaf: Any, at: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at)


def placement_of(trainer: Trainer) -> Any:
    """The sharding of every leaf of a trainer's state, as a tree like it."""
    return _placement(trainer, _state_shapes(trainer), population_mesh())


def _placement(trainer: Trainer, state: Any, mesh: Mesh) -> Any:
    layout = trainer.layout(mesh.devices.size) if isinstance(trainer, PlacesState) else SHARED

    def place(spec: PartitionSpec, part: Any) -> Any:
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), part)

    return jax.tree.map(place, layout, state, is_leaf=lambda node: isinstance(node, PartitionSpec))


def _wait(array: jax.Array) -> None:
    """Wait for a result in Python, where signals are noticed, not in the runtime, where they are not."""
    pause = 0.0002
    while not array.is_ready():  # type: ignore[attr-defined]  # missing in the stub only
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
