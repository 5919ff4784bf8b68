"""Whether a run fits into memory, said before anything is compiled."""

import os
from dataclasses import replace
from functools import partial

import jax

from metadisco.core.trees import num_bytes
from metadisco.lives.life import InitialCondition
from metadisco.meta_training.evolution_trainer import MixedTrainer
from metadisco.meta_training.gradient_trainer import GradientTrainer
from metadisco.meta_training.trainer import MetaTrainer
from metadisco.meta_training.truncation import Unroll

ROLLOUT_COPIES = 6  # of a rollout that are alive at once: trajectory, outputs before and after, targets, gradients


def estimate(trainer: MetaTrainer | GradientTrainer | MixedTrainer) -> int:
    """Bytes that a meta-step needs, over all devices. An estimate from the shapes, good to about a factor of two."""
    if isinstance(trainer, GradientTrainer):
        return _estimate_gradient(trainer)
    if isinstance(trainer, MixedTrainer):  # domains come one after the other
        return max(estimate(alone) for alone in _alone(trainer))
    inner, num_lives = trainer.inner, trainer.num_tasks * trainer.meta_optimizer.replicas
    num_slots = min(jax.device_count() * _num_slots(trainer), num_lives)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(trainer.init, key)
    propose = partial(trainer.curriculum.propose, num_tasks=1)
    _, proposal = jax.eval_shape(propose, key, state.curriculum)
    task = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), proposal.tasks)
    life = jax.eval_shape(lambda initial: inner.begin(initial.key, initial.task), InitialCondition(key, task))
    trajectory = jax.eval_shape(lambda life: inner.act(life)[0], life)
    meta_params = jax.eval_shape(trainer.meta_params, state)
    # Lives wait in the population and are copied into slots, where their gradients are as large again.
    lives = num_bytes(life) * (num_lives + 3 * num_slots)
    return lives + num_bytes(trajectory) * num_slots * ROLLOUT_COPIES + 3 * num_bytes(meta_params) * num_lives


def check(trainer: MetaTrainer | GradientTrainer | MixedTrainer) -> None:
    """Refuse a run that cannot fit.

    Raises:
        ValueError: says how much it needs, how much there is, and what to lower.
    """
    if isinstance(trainer, MixedTrainer):
        for alone in _alone(trainer):
            check(alone)
        return
    needed, available = estimate(trainer), _available()
    if needed > available:
        raise ValueError(
            f"a meta-step needs about {needed / 2**30:.1f} GiB and there are {available / 2**30:.1f} GiB; lower "
            f"num_tasks (now {trainer.num_tasks}), slots ({_num_slots(trainer)}), inner.num_workers "
            f"({trainer.inner.num_workers}) or inner.num_steps ({trainer.inner.num_steps})"
        )


def num_side_by_side(trainer: MetaTrainer | GradientTrainer | MixedTrainer) -> int:
    """How many such runs fit into memory at the same time; at least 1."""
    return max(1, int(_available() // estimate(trainer)))


def _alone(trainer: MixedTrainer) -> list[MetaTrainer]:
    """Each domain as if it were the only one."""
    return [
        MetaTrainer(
            domain.inner,
            domain.curriculum,
            trainer.meta_optimizer,
            domain.num_tasks,
            score=domain.score,
            slots=domain.slots,
        )
        for domain in trainer.domains
    ]


def _estimate_gradient(trainer: GradientTrainer) -> int:
    """As `estimate`: what a backward pass needs is read from the shapes of what the forward pass keeps for it."""
    num_slots = min(jax.device_count() * _num_slots(trainer), trainer.num_tasks)
    state = jax.eval_shape(trainer.init, jax.eval_shape(jax.random.key, 0))
    unroll_state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.lives)
    meta_params = jax.eval_shape(trainer.meta_params, state)

    def kept(unroll: Unroll) -> int:
        advance = partial(unroll.advance, trainer.inner)
        pullback = jax.eval_shape(
            lambda meta_params, unroll_state: jax.vjp(
                lambda meta: advance(meta, unroll_state), meta_params, has_aux=True
            )[1],
            meta_params,
            unroll_state,
        )
        return num_bytes(pullback)

    backward = kept(trainer.unroll)
    if trainer.unroll.remat:  # one update at a time is kept whole
        backward += kept(replace(trainer.unroll, num_updates=1, remat=False))
    # Lives before, those that might be born instead, and afterwards; in slots, agents and gradients again.
    lives = num_bytes(unroll_state) * (3 * trainer.num_tasks + 3 * num_slots) + 3 * num_bytes(state.antagonists)
    return lives + (backward + 3 * num_bytes(meta_params)) * num_slots


def _num_slots(trainer: MetaTrainer | GradientTrainer) -> int:
    """Lives that run side by side on one device."""
    if isinstance(trainer, GradientTrainer):
        return trainer.num_slots(-(-trainer.num_tasks // jax.device_count()))
    num_lives = trainer.num_tasks * trainer.meta_optimizer.replicas
    return trainer.domain.num_slots(-(-num_lives // jax.device_count()))


def _available() -> int:
    """Bytes of all devices' memory, or of the machines' for CPUs, if the other processes have what this one has."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("bytes_limit" in each for each in stats):
        return sum(each["bytes_limit"] for each in stats) * jax.process_count()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * jax.process_count()
