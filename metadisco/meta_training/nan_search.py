"""Find the operation that makes NaN, for `JAX_DEBUG_NANS`.

After each meta-step, and each part of a meta-test, the first diverged life is run again, update by update, and the
update that makes NaN operation by operation, so that JAX stops at the first such operation.
"""

from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import lowrank
from metadisco.core.types import Key, MetaParams
from metadisco.lives.life import InitialCondition, InnerLoop, Life
from metadisco.meta_training.domain import recording


def find_in_life(inner: InnerLoop, meta_params: MetaParams, initial: InitialCondition) -> NoReturn:
    """Run a diverged life again and stop at the operation that makes NaN.

    Args:
        inner: its inner loop.
        meta_params: of the objective, for this life.
        initial: of the life.

    Raises:
        FloatingPointError: always; its message says so if no operation makes NaN.
    """
    _find_from(inner, meta_params, jax.jit(inner.begin)(initial.key, initial.task))


def _find_from(inner: InnerLoop, meta_params: MetaParams, life: Life) -> NoReturn:
    """`find_in_life` from some update of a life on."""
    update, lifetime = jax.jit(inner.update), int(life.task.lifetime)
    for number in range(int(life.num_updates), lifetime):
        after = update(meta_params, life)[0]
        if not _is_finite(after):
            with jax.disable_jit(), jax.debug_nans(True):
                inner.update(meta_params, life)
            raise FloatingPointError(
                f"update {number + 1} of {lifetime} of an agent made parameters that are not finite, "
                "and no operation in it made NaN: they grew too large (JAX_DEBUG_INFS=1 looks for that)."
            )
        life = after
    lives = jax.tree.map(lambda leaf: leaf[None], life)
    with jax.disable_jit(), jax.debug_nans(True):
        inner.evaluate(lives, slots=1)
    raise FloatingPointError("an agent was lost, and is not when it lives alone: no operation made NaN.")


def _is_finite(life: Life) -> bool:
    leaves = jax.tree.leaves((life.agent_params, life.normalizer, life.objective_state))
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)


def find_in_population(trainer: Any, key: Key, state: Any) -> None:
    """Repeat a meta-step, recording its lives, and run the first diverged one again."""
    inners: list[InnerLoop] = []

    def replay(key: Key, state: Any) -> list[tuple[Any, InitialCondition, jax.Array]]:
        with recording() as recorded:
            trainer.step(key, state)
        inners[:] = [each.inner for each in recorded]
        return [(each.population, each.initials, each.fitness) for each in recorded]

    for (population, initials, fitness), inner in zip(jax.jit(replay)(key, state), inners, strict=True):
        lost = np.flatnonzero(~np.isfinite(np.asarray(fitness)))
        if lost.size:
            first = jnp.asarray(lost[0])
            find_in_life(inner, lowrank.take(population, first), jax.tree.map(lambda leaf: leaf[first], initials))  # noqa: B023 - used at once


def find_in_gradients(trainer: Any, key: Key, state: Any) -> None:
    """Differentiate the unrolls of a meta-step again; the first non-finite one operation by operation."""
    learn = jax.value_and_grad(partial(trainer.unroll.advance, trainer.domain.inner), has_aux=True)
    _, unroll_states, _, _ = jax.jit(trainer.renew)(jax.random.split(key)[0], state)
    meta_params, compiled = trainer.meta_params(state), jax.jit(learn)
    for number in range(trainer.domain.num_tasks):
        unroll_state = jax.tree.map(lambda leaf: leaf[number], unroll_states)  # noqa: B023 - used at once
        (loss, _), gradient = compiled(meta_params, unroll_state)
        if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in (loss, *jax.tree.leaves(gradient))):
            with jax.disable_jit(), jax.debug_nans(True):
                learn(meta_params, unroll_state)
            raise FloatingPointError(
                f"the meta-gradient of life {number} is not finite, and no operation in it made NaN: something grew "
                "too large (JAX_DEBUG_INFS=1 looks for that)."
            )


def find_in_unrolls(trainer: Any, key: Key, state: Any) -> None:
    """Repeat a meta-step of online evolution, and run the first diverged life again from where it was before."""
    after, _ = jax.jit(trainer.step)(key, state)
    asked, population, _, _ = jax.jit(trainer.ask)(key, state)
    lost = np.argwhere(~np.isfinite(np.asarray(after.lanes.returns)))
    if lost.size:
        lane, replica = lost[0]
        member, life = jax.tree.map(lambda leaf: leaf[lane, replica], (population, asked.lanes.lives.life))
        _find_from(trainer.domain.inner, member, life)
