"""The contract of meta-optimizers, on a bowl: lives whose fitness is minus the squared distance to a goal.

There are two kinds, told apart by their verbs: those that ask for candidates and are told their fitness
(`MetaOptimizer`), and those that descend an outer loss, which is differentiated (`OuterOptimizer`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import lowrank
from metadisco.core.types import Key, MetaParams, Metrics
from metadisco.meta_optimizers.base import repeat
from metadisco.testing import contract
from metadisco.testing.contract import Counted, demand

NUM_TASKS = 8
# NumPy's, since an array of JAX at import would settle the choice of devices.
START = {"matrix": np.zeros((3, 4), np.float32), "bias": np.zeros(4, np.float32)}
GOAL = {
    "matrix": np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(3, 4),
    "bias": np.array([0.5, -0.5, 1.0, 0.0], np.float32),
}
BROKEN = -1  # a life that never has a finite fitness

Step = Callable[[Any, Key, Any, jax.Array, jax.Array], tuple[Any, Any, Metrics]]
"""(meta-optimizer, key, state, lives [N], train_mask [N]) -> (state, population or lives, metrics)."""


def check_meta_optimizer(meta_optimizer: Any, *, num_steps: int = 100, improvement: float = 0.5) -> None:
    """Check a meta-optimizer against `metadisco.meta_optimizers.base.MetaOptimizer`, or `gradient.OuterOptimizer`.

    It is a hashable component that survives JSON; it begins at the meta-parameters that it is given, and refuses to
    begin where there are none; it asks for R candidates per task; the types of its state stay, so that it compiles
    once, for equal instances too; equal keys give equal results, plain or compiled; it goes uphill on a bowl; masked
    lives and lives of NaN fitness have no effect, and without other lives nothing changes.

    Args:
        meta_optimizer: with steps large enough to cross the bowl, whose goal is about 1
            away in each of 16 directions.
        num_steps: meta-steps of 8 tasks that it gets.
        improvement: share of the squared distance to the goal that must be gone by then.

    Raises:
        AssertionError: what is broken, and how to repair it.

    Example:
        >>> from metadisco.meta_optimizers.gradient import MetaGradient
        >>> from metadisco.meta_optimizers.schedules import Decay
        >>> check_meta_optimizer(MetaGradient(learning_rate=Decay(0.05)), num_steps=30)
    """
    twin = contract.check_component(meta_optimizer)
    name = type(meta_optimizer).__name__
    by_gradient = hasattr(meta_optimizer, "descend")
    _check_refusal(name, meta_optimizer)
    key = jax.random.key(0)
    state = jax.jit(meta_optimizer.init, static_argnums=2)(key, jax.tree.map(jnp.asarray, START), NUM_TASKS)
    contract.check_same(
        f"the first meta-parameters of {name}",
        _meta_params(meta_optimizer, state),
        START,
        "Begin at those given to init",
    )
    if not by_gradient:
        _check_candidates(name, meta_optimizer, state)
    make: Step = _descend if by_gradient else _evolve
    lives, everyone = jnp.arange(NUM_TASKS), jnp.ones(NUM_TASKS, bool)
    shapes = contract.shapes_of(
        f"a step of {name}", lambda *given: make(meta_optimizer, *given), key, state, lives, everyone
    )
    contract.check_types(f"the state of {name}", state, shapes[0], "Keep its types, so that one compilation is enough")

    step = Counted(make)
    first = step(meta_optimizer, key, state, lives, everyone)
    contract.check_metrics(name, first[2])
    contract.check_finite(f"the metric of {name}: ", first[2], "Look for a mean over nothing")
    contract.check_same(
        f"a step of {name}: ", first, step(twin, key, state, lives, everyone), "Equal keys, equal steps"
    )
    contract.check_same(
        f"a step of {name}: ", first, make(meta_optimizer, key, state, lives, everyone), "The second is not compiled"
    )
    if by_gradient:
        _check_lives(name, first[1])
    moved = {
        what: _meta_params(meta_optimizer, step(meta_optimizer, key, state, *jax.tree.map(jnp.asarray, given))[0])
        for what, given in CASES.items()
    }
    for what, meta_params in moved.items():
        contract.check_finite(f"the meta-parameters of {name}", meta_params, f"It happens where {what}")
        if what in STILL:
            contract.check_same(f"the meta-parameters of {name}", meta_params, START, f"Nothing may move where {what}")

    for i in range(num_steps):
        state, _, _ = step(meta_optimizer, jax.random.fold_in(key, i), state, lives, everyone)
    demand(
        step.traces == 1, f"a step of {name} was compiled {step.traces} times: equal instances must have equal hashes"
    )
    left = float(_distance(_meta_params(meta_optimizer, state)) / _distance(START))
    demand(
        left <= 1.0 - improvement,
        f"{name} has {left:.0%} of the distance to the goal left after {num_steps} meta-steps: check the sign of its "
        "update (higher fitness is better, a lower loss is), or give it larger steps",
    )


CASES = {
    "one life has no finite fitness": (np.array([0, BROKEN, *range(2, NUM_TASKS)], np.int32), np.ones(NUM_TASKS, bool)),
    "no life has a finite fitness": (np.full(NUM_TASKS, BROKEN, np.int32), np.ones(NUM_TASKS, bool)),
    "no life is trained on": (np.arange(NUM_TASKS, dtype=np.int32), np.zeros(NUM_TASKS, bool)),
}
STILL = ("no life has a finite fitness", "no life is trained on")


def _check_refusal(name: str, meta_optimizer: Any) -> None:
    try:
        meta_optimizer.init(jax.random.key(0), (), NUM_TASKS)
    except ValueError:
        return
    raise AssertionError(
        f"{name}.init accepts meta-parameters without an array: call metadisco.meta_optimizers.evolution."
        "check_learnable, which says that there is nothing to meta-train"
    )


def _check_lives(name: str, returned: Any) -> None:
    """The lives afterwards, [N], in the order of the tasks."""
    wanted = np.arange(NUM_TASKS) + 1.0
    demand(
        np.shape(returned) == wanted.shape and np.array_equal(returned, wanted),
        f"{name}.descend gives lives of the shape {list(np.shape(returned))}, or in another order: it must be "
        f"{list(wanted.shape)}, in the order of the tasks",
    )


def _check_candidates(name: str, meta_optimizer: Any, state: Any) -> None:
    """R candidates for each of N tasks."""
    replicas = meta_optimizer.replicas
    demand(type(replicas) is int and replicas >= 1, f"{name}.replicas is {replicas!r}: it must be an integer from 1")

    def members() -> Any:
        population, _ = meta_optimizer.ask(jax.random.key(0), state, NUM_TASKS)
        in_axes = (lowrank.in_axes(population),)
        return jax.vmap(lambda member: jax.tree.map(jnp.sum, member), in_axes=in_axes)(population)

    dense = contract.shapes_of(f"{name}.ask", members)
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(dense)}
    demand(
        counts == {replicas * NUM_TASKS},
        f"{name}.ask gives {' or '.join(map(str, counts))} candidates for {NUM_TASKS} tasks: with {replicas} replicas "
        f"it must be {replicas * NUM_TASKS}, candidate r N + i for task i",
    )


def _meta_params(meta_optimizer: Any, state: Any) -> MetaParams:
    read = getattr(meta_optimizer, "meta_params", None)
    return read(state) if read is not None else state.meta_params


def _distance(meta_params: MetaParams) -> jax.Array:
    return sum(jnp.sum(jnp.square(meta_params[part] - goal)) for part, goal in GOAL.items())  # type: ignore[return-value]


def _evolve(meta_optimizer: Any, key: Key, state: Any, lives: jax.Array, train_mask: jax.Array) -> Any:
    def live(member: Any, life: jax.Array) -> jax.Array:
        full = {part: lowrank.dense(leaf) for part, leaf in member.items()}
        return jnp.where(life == BROKEN, jnp.nan, -_distance(full))

    replicas = meta_optimizer.replicas
    population, asked = meta_optimizer.ask(key, state, NUM_TASKS)
    fitness = jax.vmap(live, in_axes=(lowrank.in_axes(population), 0))(population, repeat(lives, replicas))
    state, metrics = meta_optimizer.tell(key, asked, population, fitness.reshape(replicas, -1), train_mask=train_mask)
    return state, population, metrics


def _descend(meta_optimizer: Any, key: Key, state: Any, lives: jax.Array, train_mask: jax.Array) -> Any:
    del key

    def loss_fn(meta_params: MetaParams, life: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
        loss = jnp.where(life == BROKEN, jnp.nan, _distance(meta_params))
        return loss, (life + 1.0, {"distance": loss})

    return meta_optimizer.descend(state, lives.astype(jnp.float32), loss_fn, train_mask=train_mask)
