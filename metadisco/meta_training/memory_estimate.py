"""Estimates of memory, checked before anything is compiled."""

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import jax

from metadisco.core.caching import once_for_equal
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.trees import num_bytes
from metadisco.core.types import Key, MetaParams, Task
from metadisco.curricula.base import Curriculum
from metadisco.lives.life import InnerLoop
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.truncation import Unroll

if TYPE_CHECKING:
    from metadisco.meta_training.trainer import Trainer

ROLLOUT_COPIES = 6  # of a rollout that are alive at once: trajectory, outputs before and after, targets, gradients


def of_whole_lives(domain: Domain, num_lives: int, slots_per_device: int) -> int:
    """Bytes that whole lives need, over all devices. An estimate from the shapes, good to about a factor of two.

    Args:
        domain: of the lives.
        num_lives: M.
        slots_per_device: lives that run side by side on one device.
    """
    inner, key = domain.inner, jax.eval_shape(jax.random.key, 0)
    num_slots = min(jax.device_count() * slots_per_device, num_lives)
    life, trajectory = _life(inner, _task(domain.curriculum))
    # Lives wait in the population and are copied into slots, where their gradients are as large again.
    lives = life * (num_lives + 3 * num_slots)
    meta_params = num_bytes(_meta_params(domain, key))
    return lives + trajectory * num_slots * ROLLOUT_COPIES + 3 * meta_params * num_lives


@once_for_equal(maxsize=16)  # domains that differ in their curricula and scores alone have the same lives
def _life(inner: InnerLoop, task: Task) -> tuple[int, int]:
    """Bytes of a life, and of a rollout."""
    life = jax.eval_shape(inner.begin, jax.eval_shape(jax.random.key, 0), task)
    return num_bytes(life), num_bytes(jax.eval_shape(lambda life: inner.act(life)[0], life))


def of_unrolls(domain: Domain, unroll: Unroll, slots_per_device: int) -> int:
    """As `of_whole_lives`, for unrolls; the residuals of the backward pass are measured by their shapes."""
    inner, key = domain.inner, jax.eval_shape(jax.random.key, 0)
    num_slots = min(jax.device_count() * slots_per_device, domain.num_tasks)
    task, meta_params = _task(domain.curriculum), _meta_params(domain, key)
    unroll_state, backward = _unroll(inner, unroll, task)
    if unroll.remat:  # one update at a time is kept whole
        backward += _unroll(inner, replace(unroll, num_updates=1, remat=False), task)[1]
    antagonist = domain.antagonist
    antagonists = 0 if antagonist is None else num_bytes(jax.eval_shape(antagonist.begin, key, task))
    # Lives before, those that might begin instead, and afterwards; in slots, agents and gradients again.
    lives = unroll_state * (3 * domain.num_tasks + 3 * num_slots) + 3 * antagonists * domain.num_tasks
    return lives + (backward + 3 * num_bytes(meta_params)) * num_slots


@once_for_equal(maxsize=16)
def _unroll(inner: InnerLoop, unroll: Unroll, task: Task) -> tuple[int, int]:
    """Bytes of the state of an unroll, and of what its backward pass needs."""
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(partial(unroll.begin, inner), key, task)
    advance = partial(unroll.advance, inner)
    pullback = jax.eval_shape(
        lambda meta_params, state: jax.vjp(lambda meta: advance(meta, state), meta_params, has_aux=True)[1],
        jax.eval_shape(inner.objective.init, key),
        state,
    )
    return num_bytes(state), num_bytes(pullback)


def of_pairs(domain: Domain, slots_per_device: int, guide: Unroll | None) -> int:
    """As `of_whole_lives`, for pairs of lives that last over meta-steps.

    Args:
        domain: of the pairs, of which it has `num_tasks`.
        slots_per_device: lives that run side by side on one device.
        guide: unrolls that are differentiated before the others begin; None if there are none.
    """
    key, num_lives = jax.eval_shape(jax.random.key, 0), 2 * domain.num_tasks
    task = _task(domain.curriculum)
    life, antagonist = _life(domain.inner, task)[0], domain.antagonist
    antagonists = 0 if antagonist is None else num_bytes(jax.eval_shape(antagonist.begin, key, task))
    # Beside the lives that are trained, those before and those that might begin instead; noise that is kept and new.
    kept = 2 * (life * num_lives + antagonists * domain.num_tasks)
    kept += 4 * num_bytes(_meta_params(domain, key)) * domain.num_tasks
    guided = 0 if guide is None else of_unrolls(domain, guide, slots_per_device)
    return kept + max(of_whole_lives(domain, num_lives, slots_per_device), guided)


@own_defaults
def check(trainer: "Trainer") -> None:
    """Refuse a run that cannot fit.

    Raises:
        ValueError: with the memory needed, the memory available, and what to lower.
    """
    for domain in trainer.domains:
        needed, available = _needed(trainer, domain, jax.device_count()), available_bytes()
        if needed > available:
            where = "" if len(trainer.domains) == 1 else f" in {domain.name}"
            raise ValueError(
                f"a meta-step needs about {needed / 2**30:.1f} GiB{where} and there are {available / 2**30:.1f} GiB; "
                f"lower num_tasks (now {domain.num_tasks}), slots ({trainer.num_slots(domain)}), inner.num_workers "
                f"({domain.inner.num_workers}) or inner.num_steps ({domain.inner.num_steps})"
            )


@own_defaults
def estimate(trainer: "Trainer") -> int:
    """Bytes that a meta-step needs, over all devices: the maximum over domains, which run in turn."""
    return max(_needed(trainer, domain, jax.device_count()) for domain in trainer.domains)


@once_for_equal(maxsize=16)  # a preview and the run after it ask for the same
def _needed(trainer: "Trainer", domain: Domain, num_devices: int) -> int:
    del num_devices  # the estimate is made for the devices that there are
    return trainer.memory(domain)


@own_defaults
def num_side_by_side(trainer: "Trainer") -> int:
    """How many such runs fit into memory at the same time; at least 1."""
    return max(1, int(available_bytes() // estimate(trainer)))


def in_words(trainer: "Trainer") -> str:
    """The estimate beside what there is."""
    needed = estimate(trainer)
    size = f"{needed / 2**20:.0f} MiB" if needed < 2**30 else f"{needed / 2**30:.1f} GiB"
    return f"about {size} of {available_bytes() / 2**30:.0f} GiB"


@once_for_equal(maxsize=16)
def _task(curriculum: Curriculum) -> Task:
    """Shapes of one task of a curriculum."""
    key = jax.eval_shape(jax.random.key, 0)
    _, proposal = jax.eval_shape(partial(curriculum.propose, num_tasks=1), key, jax.eval_shape(curriculum.init, key))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), proposal.tasks)


def _meta_params(domain: Domain, key: Key) -> MetaParams:
    """Shapes of the meta-parameters."""
    return jax.eval_shape(domain.inner.objective.init, key)


def available_bytes() -> int:
    """Bytes of all devices' memory, or of the machines for CPUs; all processes are assumed to have the same."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_limit" in each for each in stats):
        return sum(each["bytes_limit"] for each in stats) * jax.process_count()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * jax.process_count()
