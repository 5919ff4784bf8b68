"""Lives in environments that are stepped on the host, one after the other.

Policy and update are the compiled ones of `InnerLoop`; only environment steps run on the host. A life uses the same
random numbers as in an environment written in JAX, so the two agree in a deterministic environment.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.core import keys
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import KeyPurpose
from metadisco.core.types import Key, MetaParams, Metrics, Obs, Task, Trajectory
from metadisco.envs.host import Hosted, Source, Workers
from metadisco.lives.life import InitialCondition, InnerLoop, Life, only_of_finite


@dataclass(frozen=True, eq=False)
class LearningHistory:
    """Learning history of M lives, evaluated at P + 1 points. Numpy arrays."""

    returns: np.ndarray  # [P + 1, M] float32, mean episode return; NaN where an agent diverged
    metrics: dict[str, np.ndarray]  # name -> [P, M] means over the updates between two points
    lives: list[Life]  # final


@own_defaults
def spend(
    inner: InnerLoop,
    meta_params: MetaParams,
    initials: InitialCondition,
    points: list[int],
    *,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> LearningHistory:
    """Train each agent and evaluate it at the given points.

    Args:
        inner: the inner loop; its environment is `Hosted`.
        meta_params: of `inner.objective`.
        initials: leading axis M.
        points: numbers of updates after which agents are evaluated, ascending; the last is the lifetime.
        on_progress: called with the fraction of all work that is done.

    Raises:
        config.ConfigError: where a library of the environment is missing.
        ValueError: where the environment is not `Hosted`.
    """
    source = source_of(inner)
    source.check()
    num_lives = initials.key.shape[0]
    returns, metrics, lives = [], [], []
    for number in range(num_lives):
        initial = jax.tree.map(lambda leaf: leaf[number], initials)  # noqa: B023
        life = begin(inner, initial)
        seen, means = [evaluate(inner, life)], []
        with Workers(source, inner.num_workers, training=True, seed=seed_of(initial.key)) as workers:
            for point in points:
                life, mean = advance(inner, meta_params, life, workers, point)
                seen.append(evaluate(inner, life))
                means.append(mean)
                on_progress((number + point / points[-1]) / num_lives)
        returns.append(np.stack(seen))
        metrics.append(jax.tree.map(lambda *values: np.stack(values), *means))
        lives.append(life)
    return LearningHistory(
        np.stack(returns, axis=1), jax.tree.map(lambda *columns: np.stack(columns, axis=1), *metrics), lives
    )


def source_of(inner: InnerLoop) -> Source:
    """Source of the environment. Raises ValueError where it is not stepped on the host."""
    if not isinstance(inner.env, Hosted):
        raise ValueError(f"{inner.env} is not stepped on the host; lives in it are those of InnerLoop")
    return inner.env.source


def begin(inner: InnerLoop, initial: InitialCondition) -> Life:
    """A new agent. Its workers are not part of its life."""
    return _begin(initial, inner=inner)


def advance(
    inner: InnerLoop, meta_params: MetaParams, life: Life, workers: Workers, until: int
) -> tuple[Life, dict[str, np.ndarray]]:
    """Train an agent until it has done `until` updates in all.

    Returns:
        The life, and the means of its metrics over the updates done here; {} where there were none.
    """
    rows: list[Metrics] = []
    for number in range(int(life.num_updates), until):
        key = keys.at_update(life.key, KeyPurpose.TRAIN, number)
        life, metrics = _learn(meta_params, life, rollout(inner, life, workers, key), inner=inner)
        rows.append(metrics)
    if not rows:
        return life, {}
    return life, jax.tree.map(lambda *values: np.mean(np.stack(values), dtype=np.float32), *jax.device_get(rows))


def rollout(inner: InnerLoop, life: Life, workers: Workers, key: Key) -> Trajectory:
    """Act `inner.num_steps` times with every worker; begin a new episode where one ended. [T, B, ...], numpy."""
    return jax.tree.map(lambda *rows: np.stack(rows), *_steps(inner, life, workers, key, inner.num_workers))


def evaluate(inner: InnerLoop, life: Life) -> np.ndarray:
    """Mean undiscounted return of one episode by each of `inner.num_test_workers` new workers. [] float32.

    NaN where the agent diverged.
    """
    key = keys.of_evaluation(life.key)
    num_workers = inner.num_test_workers
    episode_return, is_over = np.zeros(num_workers, np.float32), np.zeros(num_workers, bool)
    with Workers(source_of(inner), num_workers, training=False, seed=seed_of(key)) as workers:
        number = keys.FIRST_ROLLOUT
        while not is_over.all() and inner.is_within_test_limit(number):
            for step in _steps(inner, life, workers, keys.at_rollout(key, number), num_workers):
                episode_return += np.where(is_over, np.float32(0.0), step.reward)
                is_over |= step.finished
                if is_over.all():
                    break
            number += 1
    return np.asarray(_mean_of_finite(life, episode_return))


def seed_of(key: Key) -> int:
    """Seed of the workers' environments, the same for every objective."""
    return int(
        jax.random.bits(jax.random.fold_in(key, KeyPurpose.ENVIRONMENT), dtype=jnp.uint32) >> 1
    )  # ale-py takes 31 bits


def _steps(inner: InnerLoop, life: Life, workers: Workers, key: Key, num_workers: int) -> Iterator[Trajectory]:
    """Yield the steps [B, ...] of one rollout; numpy."""
    draws = np.asarray(_draw(keys.split_rollout(key).policy, inner=inner, num_workers=num_workers))
    for drawn in draws:
        obs = workers.obs
        action, log_prob = jax.device_get(_act(life, drawn, obs, inner=inner))
        out = workers.step(action)
        row: tuple[Any, ...] = (obs, action, log_prob, *out)  # numpy, as fields of a trajectory are in order
        yield Trajectory(*row)


@partial(jax.jit, static_argnames="inner")
def _begin(initial: InitialCondition, *, inner: InnerLoop) -> Life:
    return inner.begin_at(initial.key, Task((), initial.task.lifetime), (), ())  # type: ignore[arg-type]  # nowhere


@partial(jax.jit, static_argnames=("inner", "num_workers"))
def _draw(key: Key, *, inner: InnerLoop, num_workers: int) -> jax.Array:
    return inner.agent.noise(key, (inner.num_steps, num_workers))


@partial(jax.jit, static_argnames="inner")
def _act(life: Life, drawn: jax.Array, obs: Obs, *, inner: InnerLoop) -> tuple[jax.Array, jax.Array]:
    return inner.policy(life)(drawn, obs)


@partial(jax.jit, static_argnames="inner")
def _learn(meta_params: MetaParams, life: Life, experience: Trajectory, *, inner: InnerLoop) -> tuple[Life, Metrics]:
    life, _, metrics = inner.learn_from(meta_params, life, experience)
    return life, metrics


@jax.jit
def _mean_of_finite(life: Life, episode_return: jax.Array) -> jax.Array:
    lives, returns = jax.tree.map(lambda leaf: leaf[None], (life, episode_return))
    return jnp.mean(only_of_finite(lives, returns))
