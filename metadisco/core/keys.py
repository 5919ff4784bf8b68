"""Where random numbers come from: every purpose for which a key is folded, and every order in which one is split.

Whatever draws from the key of a life or of a seed folds it with a purpose of its own, so no two draw the same numbers,
and lives in JAX and on the host draw the same ones. Values never change: checkpoints,
published scores and runs that are resumed depend on them.
"""

import enum
from typing import NamedTuple

import jax

from metadisco.core.types import Key


class KeyPurpose(enum.IntEnum):
    """Purposes with which the key of a life, or of its initial condition, is folded."""

    TRAIN = 0  # rollouts that updates learn from
    TEST = 1  # evaluation of the agent
    VALIDATE = 2  # rollouts on which meta-gradients and level scores look at the agent
    SHUFFLE = 3  # minibatches of an update
    CRITIC = 4  # first parameters of the critic
    ENVIRONMENT = 5  # seed of workers that are stepped on the host
    REMEMBER = 6  # first state of the objective
    SCORE = 2**31 - 1  # random scores of levels; above the numbers of all updates and rollouts


STEP_NOISE = 2**31 - 1  # with which the key of an update's minibatches is folded; no update has as many epochs


class SeedPurpose(enum.IntEnum):
    """What the key of a run's or an evaluation's seed is folded with; below these are the numbers of meta-steps."""

    EVALUATE = 2_000_000_099  # lives of a test set
    INIT = 2**32 - 1  # first train state; no int32 meta-step reaches it


FIRST_ROLLOUT = 1  # of an evaluation; 0 is the reset before it


class InitialKeys(NamedTuple):
    """Keys of a new life."""

    agent: Key  # first parameters
    env: Key  # first states of the workers
    life: Key  # everything after that


def split_initial(key: Key) -> InitialKeys:
    """The keys of a life, out of that of its initial condition."""
    return InitialKeys(*jax.random.split(key, 3))


def at_update(life_key: Key, purpose: KeyPurpose, num_updates: jax.Array | int) -> Key:
    """The key for a purpose after `num_updates` updates of a life."""
    return jax.random.fold_in(jax.random.fold_in(life_key, purpose), num_updates)


def of_gradient_step(update_key: Key, number: jax.Array | int) -> Key:
    """The key of the noise of a learned optimizer in one gradient step, out of that of the update's minibatches."""
    return jax.random.fold_in(jax.random.fold_in(update_key, STEP_NOISE), number)


def of_evaluation(life_key: Key) -> Key:
    """The key of an agent's evaluations: the same episodes at every point of a life."""
    return jax.random.fold_in(life_key, KeyPurpose.TEST)


def at_rollout(evaluation_key: Key, number: jax.Array | int) -> Key:
    """The key of one rollout of an evaluation: 0 for the reset, rollouts from `FIRST_ROLLOUT` on."""
    return jax.random.fold_in(evaluation_key, number)


class RolloutKeys(NamedTuple):
    """Keys of a rollout."""

    policy: Key
    env: Key


def split_rollout(key: Key) -> RolloutKeys:
    """The keys of a rollout."""
    return RolloutKeys(*jax.random.split(key))
