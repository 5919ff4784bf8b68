"""Measurements of an objective: sensitivities, schedules, credit and entropy.

Sensitivity is Jansen's estimate of the total effect of an input (doi:10.1016/S0010-4655(98)00154-4): with f the answer
to a probe and f' the answer with this input from another probe, E[(f - f')^2] / (2 Var f), the share of the variance
that would be left if only this input were unknown. Shares add up to more than 1 where inputs interact.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.agents.networks import Table
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.config import ConfigError
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import Task
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.evaluation import agents_under_test
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.objectives.lpg import LPGTargets
from metadisco.reports.inspection import probes
from metadisco.reports.inspection.probes import INPUTS, LIFETIMES, NUM_PROBES, NUM_STEPS, Probe, Responder, Response

FRACTIONS = np.linspace(0.0, 1.0, 11)  # n/N of a schedule
PROBS = (0.1, 0.25, 0.5, 0.9)  # of the action whose reward is varied
REWARDS = np.linspace(-2.0, 2.0, NUM_PROBES // len(PROBS)).astype(np.float32)
LEVELS = GridLevels(max_side=5, num_walls=3, max_objects=3, max_steps=(10, 40))
NUM_LIVES, NUM_POINTS, LIVED = 16, 16, (32, 128)  # number of lives, points of each, lifetimes


@dataclass(frozen=True, eq=False)
class Schedule:
    """Answers to the same probes at other moments of lives: each [lifetimes, fractions]."""

    push_size: np.ndarray  # root mean square of the push
    entropy: np.ndarray  # mean gain of entropy without rewards and predictions, nats for a unit step on the logits
    change: float  # root mean square, over probes, of the range of a push over all moments; over the push's size


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was measured of an objective.

    Attributes:
        sensitivity: input -> (share of the variance of the push, of that of the pull on predictions), each in [0, 1].
        size: root mean square of the push on the probes.
        schedule: how the answers change over a life and with its length.
        by_reward: [REWARDS, PROBS], push on an action after which a reward follows.
        credit: [2, T], change of the push k steps before a reward of +1 and of -1, k = 0, 1, ...
        y_hat: [REWARDS, m], the target of the prediction there, for LPG; None for others.
        entropy: [LIVED, NUM_POINTS + 1], mean entropy of the policy over whole lives, nats; None where none was lived.
    """

    sensitivity: dict[str, tuple[float, float]]
    size: float
    schedule: Schedule
    by_reward: np.ndarray
    credit: np.ndarray
    y_hat: np.ndarray | None
    entropy: np.ndarray | None


@own_defaults
def inspect(discovered: Discovered, *, seed: int = 0, lives: bool = True) -> Inspection | None:
    """Measure what an objective does.

    Args:
        discovered: from `metadisco.load`.
        seed: of the probes.
        lives: also train agents on small grid worlds, for the entropy of their policies; all else takes seconds less.

    Returns:
        The measures; None for an objective that cannot teach an agent with discrete actions.
    """
    objective = discovered.objective
    heads = probes.heads_of(objective)
    if heads is None:
        return None
    ask = Responder(objective, discovered.meta_params)
    drawn = probes.draw(seed, heads)
    answer = ask(drawn)
    by_reward, y_hat = _by_reward(ask, drawn)
    return Inspection(
        sensitivity=_sensitivity(ask, drawn, answer),
        size=_size(answer.push),
        schedule=_schedule(ask, drawn),
        by_reward=by_reward,
        credit=_credit(ask, drawn),
        y_hat=y_hat,
        entropy=_lives(discovered, _learner(discovered)) if lives else None,
    )


def _size(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _pull(answer: Response) -> np.ndarray:
    """Where all predictions are pulled. [P, T, B, widths]."""
    parts = [np.asarray(part) for part in answer.pull.values()]
    return np.concatenate(parts, axis=-1) if parts else np.zeros((*answer.push.shape, 1))


def _sensitivity(ask: Responder, drawn: Probe, answer: Response) -> dict[str, tuple[float, float]]:
    shares = {}
    for name in INPUTS:
        exchanged = jax.tree.map(lambda leaf: np.roll(leaf, 1, axis=0), getattr(drawn, name))
        other = ask(drawn.replace(**{name: exchanged}))  # type: ignore[attr-defined]  # flax
        push = _share(np.asarray(answer.push), np.asarray(other.push))
        shares[name] = (push, _share(_pull(answer), _pull(other)))
    return shares


def _share(one: np.ndarray, two: np.ndarray) -> float:
    """E[(f - f')^2] / (2 Var f), over probes, steps and workers, summed over the entries of an output."""
    spread = np.sum(np.var(one, axis=(0, 1, 2)))
    difference = np.sum(np.mean(np.square(one - two), axis=(0, 1, 2)))
    return float(min(difference / (2.0 * spread), 1.0)) if spread > 0 else 0.0


def _moment(drawn: Probe, fraction: float, lifetime: int) -> Probe:
    """The same probes at another moment."""
    return drawn.replace(  # type: ignore[attr-defined]  # flax
        fraction=np.full_like(drawn.fraction, fraction), lifetime=np.full_like(drawn.lifetime, lifetime)
    )


def _schedule(ask: Responder, drawn: Probe) -> Schedule:
    nothing = _quiet(drawn)
    nothing = nothing.replace(**jax.tree.map(np.zeros_like, {"now": nothing.now, "next": nothing.next}))

    def over_lives(probe: Probe) -> list[list[Response]]:
        return [[ask(_moment(probe, fraction, lifetime)) for fraction in FRACTIONS] for lifetime in LIFETIMES]

    def each(answers: list[list[Response]], measure: Any) -> np.ndarray:
        return np.array([[measure(answer) for answer in row] for row in answers])

    answers = over_lives(drawn)

    pushes = np.stack([answer.push for row in answers for answer in row])
    return Schedule(
        push_size=each(answers, lambda answer: _size(answer.push)),
        entropy=each(over_lives(nothing), lambda answer: float(np.mean(answer.entropy))),
        change=_size(np.ptp(pushes, axis=0)) / max(_size(pushes), 1e-12),
    )


def _quiet(drawn: Probe) -> Any:
    """The probes without rewards, ends and changes of the policy, in the middle of a life."""
    still = drawn.replace(  # type: ignore[attr-defined]  # flax
        reward=0.0 * drawn.reward, chance=np.full_like(drawn.chance, 0.5), change=0.0 * drawn.change
    )
    return _moment(still, 0.5, LIFETIMES[1])


def _by_reward(ask: Responder, drawn: Probe) -> tuple[np.ndarray, np.ndarray | None]:
    """The push at the last step of a rollout against its reward and the action's probability, and y_hat there."""
    answer = ask(_of_rewards(drawn))
    shape = (len(PROBS), len(REWARDS))
    pushes = np.asarray(answer.push)[:, -1].mean(axis=-1).reshape(shape).T
    if not isinstance(answer.targets, LPGTargets):
        return pushes, None
    return pushes, np.exp(answer.targets.log_y_hat[:, -1, 0]).reshape(*shape, -1)[PROBS.index(0.25)]


def _of_rewards(drawn: Probe) -> Probe:
    """A quiet probe for each of PROBS and REWARDS, of its first action and the reward of its last step."""
    alone: Any = jax.tree.map(lambda leaf: np.broadcast_to(leaf[:1], leaf.shape), _quiet(drawn))  # all else equal
    probs = np.repeat(np.array(PROBS, np.float32), len(REWARDS))
    rest = (1.0 - probs) / (probes.NUM_ACTIONS - 1)
    logits = np.log(np.stack([probs, *[rest] * (probes.NUM_ACTIONS - 1)], axis=1))
    logits = np.broadcast_to(logits[:, None, None], alone.logits[0].shape)
    reward = _with_last(alone.reward, np.tile(REWARDS, len(PROBS))[:, None])
    return alone.replace(reward=reward, logits=(logits, np.zeros_like(alone.logits[1])))  # type: ignore[no-any-return]


def _with_last(reward: np.ndarray, value: Any) -> np.ndarray:
    """Rewards [P, T, B] with another one at the last step."""
    changed = np.array(reward)
    changed[:, -1] = value
    return changed


def _credit(ask: Responder, drawn: Probe) -> np.ndarray:
    """By how much a reward at the last step changes the push on it and on the steps before. [2, T]."""
    quiet = _quiet(drawn)
    pushes = [ask(quiet.replace(reward=_with_last(quiet.reward, size))).push for size in (0.0, 1.0, -1.0)]
    changes = np.stack([push - pushes[0] for push in pushes[1:]]).mean(axis=(1, 3))
    return changes[:, ::-1].reshape(2, NUM_STEPS)


def _learner(discovered: Discovered) -> Learner:
    """How tabular agents learned in the meta-training, or by default."""
    try:
        inners = agents_under_test.trained_with(discovered)
    except ConfigError:
        return Learner()
    return next((inner.learner for inner in inners if isinstance(inner.env, GridWorld)), Learner())


def _lives(discovered: Discovered, learner: Learner) -> np.ndarray:
    """Entropy of the policy over lives on small grid worlds. [LIVED, NUM_POINTS + 1]."""
    inner = InnerLoop(LEVELS.env, Table(), discovered.objective, learner, num_workers=16, num_steps=20)

    def entropy(life: Any) -> jax.Array:
        outputs = inner.agent.apply(life.agent_params, life.obs)
        return jnp.mean(inner.agent.distribution.entropy(outputs))

    @jax.jit
    @jax.vmap
    def live(key: jax.Array, lifetime: jax.Array) -> jax.Array:
        level_key, key = jax.random.split(key)
        first = inner.begin(key, Task(LEVELS.sample(level_key), lifetime))

        def go_on(life: Any, _: None) -> tuple[Any, jax.Array]:
            each = lambda _, life: inner.update(discovered.meta_params, life)[0]  # noqa: E731
            life = jax.lax.fori_loop(0, lifetime // NUM_POINTS, each, life)
            return life, entropy(life)

        return jnp.append(entropy(first), jax.lax.scan(go_on, first, length=NUM_POINTS)[1])

    keys = jnp.tile(jax.random.split(jax.random.key(0), NUM_LIVES), len(LIVED))
    entropies = live(keys, jnp.repeat(jnp.array(LIVED, jnp.int32), NUM_LIVES))
    return np.asarray(entropies).reshape(len(LIVED), NUM_LIVES, -1).mean(axis=1)
