"""One agent trained in one call: an objective, an environment, so many updates, and the returns on the way."""

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.checkpoints.disco103 import as_discovered
from metadisco.core import config
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import SeedPurpose
from metadisco.core.score_table import counted, decimal
from metadisco.core.types import Key, MetaParams, Metrics, Task
from metadisco.curricula.tasks import LevelDistribution
from metadisco.envs.base import Environment, Level
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.host import Hosted
from metadisco.evaluation import agents_under_test, any_environment, environments, suites
from metadisco.evaluation.agents_under_test import TrainedObjective
from metadisco.evaluation.evaluation import milestones
from metadisco.lives import host
from metadisco.lives.life import InitialCondition, InnerLoop, Life, only_of_finite


@runtime_checkable
class Levels(LevelDistribution, Protocol):
    """A distribution of levels that knows its environment, such as `GridLevels()`."""

    @property
    def env(self) -> Environment:
        """Where its levels are."""


@dataclass(frozen=True, eq=False)
class TrainedAgent:
    """An agent that was trained by an objective, evaluated at P + 1 points on the way.

    Attributes:
        inner: how it learned; `inner.policy(life)` is its policy.
        life: at the end: parameters, optimizer, task.
        updates: [P + 1] agent updates done at each point, the first 0.
        returns: [P + 1] mean return of one test episode of each of `inner.num_test_workers` workers; NaN where the
            agent diverged.
        metrics: name -> [P] means over the updates between two points, such as the entropy of its policy.
    """

    inner: InnerLoop
    life: Life
    updates: np.ndarray
    returns: np.ndarray
    metrics: dict[str, np.ndarray]

    def __repr__(self) -> str:
        first, last = self.returns[[0, -1]]
        return (
            f"TrainedAgent: {counted(int(self.updates[-1]), 'update')} by "
            f"{config.class_name(self.inner.objective).rpartition(':')[2]} in {self.inner.env}\n"
            f"  mean episode return {decimal(float(first))} before, {decimal(float(last))} after"
        )


@own_defaults
def train_agent(
    discovered: Discovered | str | os.PathLike,
    environment: str | Levels,
    updates: int | None = None,
    *,
    seed: int = 0,
    num_points: int = 16,
    inner: InnerLoop | None = None,
) -> TrainedAgent:
    """Train one new agent by an objective.

    Args:
        discovered: the objective, or what `metadisco.load` takes.
        environment: the name of a suite of one environment, such as `CartPole-v1`, or of any, such as
            `gymnax:FourRooms-misc` or `my_module:make_env`; or of grid worlds, of which it is the first level; or a
            distribution of levels, one of which is drawn.
        updates: agent updates, the lifetime; by default that of the suite.
        seed: of the agent, and of the level that is drawn.
        num_points: evaluations on the way, at most one an update.
        inner: how the agent learns, for an environment of your own; environment and objective in it are exchanged.

    Raises:
        ValueError: for an unknown environment, numbers that are none, or an agent that does not fit, before training.

    Example:
        >>> agent = train_agent("quickstart", "grid-unseen", 64)  # doctest: +SKIP
        >>> agent.updates, agent.returns  # doctest: +SKIP
    """
    config.check_seed(seed)
    config.check_whole("num_points", num_points, 1)
    if updates is not None:
        config.check_whole("updates", updates, 1)
    found = as_discovered(discovered)
    level_key, life_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), SeedPurpose.EVALUATE))
    agent, level, usual = _find(found, environment, inner, level_key)
    lifetime = usual if updates is None else int(updates)
    if lifetime is None:
        raise ValueError("say how many agent updates: a distribution of levels has no usual number of them")
    num_points = min(num_points, lifetime)
    points = milestones(lifetime, num_points)
    initial = InitialCondition(life_key, Task(level, jnp.int32(lifetime)))
    train = _train_on_host if isinstance(agent.env, Hosted) else _train
    life, returns, metrics = train(agent, found.meta_params, initial, points)
    return TrainedAgent(agent, life, np.array([0, *points]), returns, metrics)


def _find(
    discovered: Discovered, environment: str | Levels, inner: InnerLoop | None, key: Key
) -> tuple[InnerLoop, Level, int | None]:
    """How the agent learns, its level, and the usual lifetime there."""
    if isinstance(environment, str):
        if inner is not None:
            raise ValueError(f"{environment} brings its own agent: leave out inner, or give a distribution of levels")
        return _of_suite(discovered, environment)
    if not isinstance(environment, Levels):
        raise ValueError(
            "an environment is the name of a suite (metadisco list suites) or a distribution of levels, which has "
            f"`env` and `sample`, such as GridLevels(); got {type(environment).__name__}"
        )
    if inner is None:
        inner = _usual(discovered, environment.env)
    else:
        inner = replace(inner, objective=discovered.objective)
    env = environments.as_seen_by(inner, environment.env)
    return replace(inner, env=env, critic=None), environment.sample(key), None


def _of_suite(discovered: Discovered, name: str) -> tuple[InnerLoop, Level, int]:
    if "@" in name:
        raise ValueError(f"{name!r}: leave out the lifetime after @, and give it as updates")
    requested = suites.find(name, 1)
    if len(requested) > 1:
        names = ", ".join(each.name for each in requested)
        raise ValueError(f"{name!r} stands for several environments: name one of {names}")
    loops = (
        agents_under_test.trained_with(discovered)
        if requested[0].suite.inner is None
        else (replace(requested[0].suite.inner, objective=discovered.objective),)
    )
    objective = TrainedObjective("discovered", loops, discovered.meta_params)
    (test,) = agents_under_test.plan([objective], requested, ())
    test_set = test.suite.build()
    agent = test.agents[0].inner
    agent = replace(agent, env=environments.as_seen_by(agent, test_set.env), critic=None)
    return agent, jax.tree.map(lambda leaf: leaf[0], test_set.tasks.level), test_set.lifetime


def _usual(discovered: Discovered, env: Environment) -> InnerLoop:
    """The agent of meta-training in grid worlds, elsewhere the reference agent or the usual one for the spaces."""
    for inner in agents_under_test.trained_with(discovered):
        if inner.env == env or (isinstance(inner.env, GridWorld) and isinstance(env, GridWorld)):
            return inner
    known = environments.reference_of(env)
    inner = any_environment.default_agent(env) if known is None else known.inner
    return environments.with_objective(discovered.objective, inner)


def _train(
    inner: InnerLoop, meta_params: MetaParams, initial: InitialCondition, points: list[int]
) -> tuple[Life, np.ndarray, dict[str, np.ndarray]]:
    life = jax.jit(inner.begin)(initial.key, initial.task)
    returns, rows = [_mean_return(life, inner=inner)], []
    for point in points:
        life, means = _advance(meta_params, life, jnp.int32(point), inner=inner)
        returns.append(_mean_return(life, inner=inner))
        rows.append(means)
    metrics = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    return life, np.array(returns, np.float32), metrics


def _train_on_host(
    inner: InnerLoop, meta_params: MetaParams, initial: InitialCondition, points: list[int]
) -> tuple[Life, np.ndarray, dict[str, np.ndarray]]:
    initials = jax.tree.map(lambda leaf: leaf[None], initial)
    history = host.spend(inner, meta_params, initials, points)
    return history.lives[0], history.returns[:, 0], {name: each[:, 0] for name, each in history.metrics.items()}


@partial(jax.jit, static_argnames="inner")
def _advance(meta_params: MetaParams, life: Life, until: jax.Array, *, inner: InnerLoop) -> tuple[Life, Metrics]:
    population, lives = _one(meta_params), _one(life)
    lives, metrics = inner.advance(population, lives, until[None], slots=1)
    return jax.tree.map(lambda leaf: leaf[0], (lives, metrics))


@partial(jax.jit, static_argnames="inner")
def _mean_return(life: Life, *, inner: InnerLoop) -> jax.Array:
    lives = _one(life)
    return jnp.mean(only_of_finite(lives, inner.evaluate(lives, slots=1)))


def _one(tree: Any) -> Any:
    """A tree with a leading axis of 1."""
    return jax.tree.map(lambda leaf: leaf[None], tree)
