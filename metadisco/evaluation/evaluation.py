"""Evaluation of frozen objectives: train new agents on the tasks of a test set.

All agents are compared on the same lives: life j on task i has the same key for every objective, any number of seeds
and any number of devices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metadisco.agents.agent import Agent
from metadisco.agents.networks import Heads
from metadisco.core import nan_checks
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.keys import SeedPurpose
from metadisco.core.sharding import SHARED, SPREAD, deal, num_slots, on_each_device, population_mesh
from metadisco.core.types import AgentParams, Key, MetaParams, Metrics, Outputs, Progress, Task, Trajectory
from metadisco.envs.base import EnvSpec
from metadisco.envs.host import Hosted
from metadisco.evaluation import stats
from metadisco.evaluation.agents_under_test import AgentUnderTest
from metadisco.evaluation.environments import as_seen_by, with_objective
from metadisco.evaluation.results import Evaluation
from metadisco.evaluation.test_sets import TestSet
from metadisco.lives import host
from metadisco.lives.life import InitialCondition, InnerLoop, Life, only_of_finite
from metadisco.meta_training import nan_search
from metadisco.objectives.base import Objective, ObjectiveState, Predictions, Targets, step_factors

NUM_PICTURES = 6  # tasks of which a trained agent is kept


@dataclass(frozen=True, eq=False)
class Frozen:
    """An objective with fixed meta-parameters, which a whole population shares in large matrix products."""

    objective: Objective
    meta_params: MetaParams

    def heads(self, spec: EnvSpec) -> Heads:
        """See `Objective`."""
        return self.objective.heads(spec)

    def init(self, key: Key) -> tuple[()]:
        """No meta-parameters."""
        del key
        return ()

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> ObjectiveState:
        """See `Objective`."""
        return self.objective.init_state(key, agent, agent_params, num_workers)

    def targets(
        self,
        meta_params: tuple[()],
        state: ObjectiveState,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[Targets, ObjectiveState]:
        """See `Objective`."""
        return self.objective.targets(self.meta_params, state, predictions, trajectory, progress)

    def loss(
        self,
        meta_params: tuple[()],
        targets: Targets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """See `Objective`."""
        return self.objective.loss(self.meta_params, targets, outputs, trajectory, progress)

    def step_factors(self, targets: Targets) -> dict[str, jax.Array]:
        """See `metadisco.objectives.base.ScalesSteps`."""
        return step_factors(self.objective, targets)


@own_defaults
@nan_checks.unchecked()
def evaluate(
    inner: InnerLoop,
    meta_params: MetaParams,
    test_set: TestSet,
    *,
    seed: int = 0,
    num_seeds: int = 1,
    num_points: int = 8,
    slots: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> Evaluation:
    """Train `num_seeds` agents on every task of a test set, and evaluate them during training.

    Args:
        inner: the inner loop; its environment is replaced by the test set's. Where a test set has an agent of its own,
            this must be that one, but for the objective (`metadisco.evaluation.environments.with_objective`).
        meta_params: of `inner.objective`.
        test_set: the tasks.
        seed: of the lives.
        num_seeds: S, lives per task.
        num_points: P, equal parts of the lifetime after each of which agents are evaluated.
        slots: lives that run side by side on one device; None for 32 on a CPU, and all of an accelerator's.
        devices: all of this process by default.
        on_progress: called with the fraction of the lifetime that is over, 0 to begin with.

    Raises:
        ValueError: for numbers below 1, more points than updates, or an agent that does not fit the observations or
            is not the test set's own.

    Note:
        An agent that diverged counts as what it was before it learned: it gets the random policy's return.
    """
    if num_seeds < 1 or not 1 <= num_points <= test_set.lifetime:
        raise ValueError(
            f"an evaluation needs num_seeds >= 1 and num_points in 1..{test_set.lifetime} (the lifetime), got "
            f"{num_seeds} and {num_points}"
        )
    if test_set.inner is not None:
        own = with_objective(inner.objective, test_set.inner)
        # What brings no network of its own may also have the learner that the test set was given.
        kept = own if own.torso != test_set.inner.torso else replace(test_set.inner, objective=own.objective)
        if replace(inner, objective=own.objective) not in (own, kept):
            raise ValueError(
                f"{test_set.name} has an agent of its own: give that one the objective, environments.with_objective"
            )
    inner = replace(inner, env=as_seen_by(inner, test_set.env), critic=None)  # not used here
    if isinstance(inner.env, Hosted):
        return _evaluate_on_host(inner, meta_params, test_set, seed, num_seeds, num_points, on_progress)
    devices = jax.local_devices() if devices is None else devices
    num_lives = test_set.num_tasks * num_seeds
    # Neighbors go to different devices; copies of the last life, which do nothing, fill the shares up.
    dealt, places = deal(num_lives, len(devices))
    mesh = population_mesh(devices)
    slots = num_slots(slots, len(dealt) // len(devices), on_cpu=32)
    key = jax.random.fold_in(jax.random.key(seed), SeedPurpose.EVALUATE)
    initials = _initials(key, test_set.tasks, num_seeds, np.minimum(dealt, num_lives - 1))
    initials, meta_params = _place(initials, mesh, SPREAD), _place(jax.device_get(meta_params), mesh, SHARED)

    def gather(leaf: jax.Array) -> np.ndarray:
        return np.asarray(leaf)[places].reshape(test_set.num_tasks, num_seeds)

    def evaluate(lives: Life) -> np.ndarray:
        found = gather(_evaluate(lives, inner=inner, mesh=mesh, slots=slots))
        if nan_checks.is_on() and not np.isfinite(found).all():
            lost = places[np.argmin(np.isfinite(found))]
            nan_search.find_in_life(inner, meta_params, jax.tree.map(lambda leaf: leaf[lost], initials))
        return found

    on_progress(0.0)
    lives = _begin(initials, inner=inner, mesh=mesh)
    returns, metrics = [evaluate(lives)], []
    for point, num_updates in enumerate(milestones(test_set.lifetime, num_points), 1):
        until = _place(np.where(dealt < num_lives, num_updates, 0).astype(np.int32), mesh, SPREAD)
        lives, means = _advance(meta_params, lives, until, inner=inner, mesh=mesh, slots=slots)
        returns.append(evaluate(lives))
        metrics.append(jax.tree.map(gather, means))
        on_progress(point / num_points)
    shown = places[: NUM_PICTURES * num_seeds : num_seeds]
    return _record(
        test_set,
        inner,
        _without_nan(np.stack(returns), test_set),
        jax.tree.map(lambda *segments: np.stack(segments), *metrics),
        jax.tree.map(lambda leaf: np.asarray(leaf[shown]), lives.agent_params),
    )


def milestones(lifetime: int, num_points: int) -> list[int]:
    """Updates after which an agent is evaluated: the ends of equal parts of its lifetime, rounded.

    Example:
        >>> milestones(10, 4)
        [3, 5, 8, 10]
    """
    return [(lifetime * point + num_points // 2) // num_points for point in range(1, num_points + 1)]


def _evaluate_on_host(
    inner: InnerLoop,
    meta_params: MetaParams,
    test_set: TestSet,
    seed: int,
    num_seeds: int,
    num_points: int,
    on_progress: Callable[[float], None],
) -> Evaluation:
    """`evaluate` where the host steps the environment: one life after the other."""

    def by_task(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(-1, test_set.num_tasks, num_seeds)

    key = jax.random.fold_in(jax.random.key(seed), SeedPurpose.EVALUATE)
    initials = _initials(key, test_set.tasks, num_seeds, np.arange(test_set.num_tasks * num_seeds))
    points = milestones(test_set.lifetime, num_points)
    history = host.spend(inner, meta_params, initials, points, on_progress=on_progress)
    returns = _without_nan(by_task(history.returns), test_set)
    shown = history.lives[: NUM_PICTURES * num_seeds : num_seeds]
    kept = jax.tree.map(lambda *leaves: np.stack(leaves), *[life.agent_params for life in shown])
    return _record(test_set, inner, returns, jax.tree.map(by_task, history.metrics), kept)


def _without_nan(returns: np.ndarray, test_set: TestSet) -> np.ndarray:
    """Returns [P + 1, N, S] in which an agent that diverged has what it had before it learned anything."""
    before = test_set.random_return[:, None] if test_set.is_scaled else returns[0]
    return np.where(np.isfinite(returns), returns, before).astype(np.float32)


def _record(
    test_set: TestSet, inner: InnerLoop, returns: np.ndarray, metrics: dict[str, np.ndarray], agent_params: AgentParams
) -> Evaluation:
    """The evaluation of lives: returns [P + 1, N, S], metrics [P, N, S], parameters of some agents."""
    num_points = len(returns) - 1
    return Evaluation(
        suite=test_set.name,
        lifetime=test_set.lifetime,
        env_steps=test_set.lifetime * inner.num_workers * inner.num_steps,
        is_exact=False,
        names=test_set.names,
        fractions=np.arange(num_points + 1) / num_points,
        returns=returns,
        scores=stats.normalize(returns, test_set.random_return, test_set.upper_return),
        metrics=metrics,
        agent_params=_flatten(agent_params),
        is_scaled=test_set.is_scaled,
    )


@own_defaults
def compare(
    agents: Sequence[AgentUnderTest],
    test_set: TestSet,
    *,
    seed: int = 0,
    num_seeds: int = 1,
    num_points: int = 8,
    slots: int | None = None,
    on_progress: Callable[[str, float], None] = lambda agent, fraction: None,
) -> dict[str, Evaluation]:
    """Evaluate agents on the same lives of one test set, between the two anchors of its scores.

    Args:
        agents: such as `[AgentUnderTest("a2c", tuned_a2c(inner)), AgentUnderTest("discovered", inner, meta_params)]`.
        test_set: the tasks.
        seed: see `evaluate`, as the three that follow.
        num_seeds: S.
        num_points: P; fewer where the lifetime is shorter.
        slots: on one device, see `evaluate`.
        on_progress: called with an agent's name and the fraction of its lifetime that is over.

    Returns:
        By name: `random`, the agents, and `test_set.upper_anchor`. The two anchors are constants; there are none where
        scores have no scale.

    Raises:
        ValueError: for equal names, or as in `evaluate`.
    """
    names = [agent.name for agent in agents]
    anchors = ("random", test_set.upper_anchor) if test_set.is_scaled else ()
    if len({*names, *anchors}) < len(names) + len(anchors):
        raise ValueError(f"names of agents must differ and none be one of {anchors}, got {names}")
    num_points = min(num_points, test_set.lifetime)
    found = {}
    if test_set.is_scaled:
        found["random"] = _constant(test_set, test_set.random_return, num_seeds, num_points)
    for agent in agents:
        found[agent.name] = evaluate(
            agent.inner,
            agent.meta_params,
            test_set,
            seed=seed,
            num_seeds=num_seeds,
            num_points=num_points,
            slots=slots,
            on_progress=partial(on_progress, agent.name),
        )
    if test_set.is_scaled:
        found[test_set.upper_anchor] = _constant(test_set, test_set.upper_return, num_seeds, num_points)
    return found


@partial(jax.jit, static_argnames=("inner", "mesh"))
def _begin(initials: InitialCondition, *, inner: InnerLoop, mesh: Mesh) -> Life:
    def begin(initials: InitialCondition) -> Life:
        return jax.vmap(inner.begin)(initials.key, initials.task)

    return on_each_device(begin, mesh, (SPREAD,))(initials)


@partial(jax.jit, static_argnames=("inner", "mesh", "slots"), donate_argnames="lives")
def _advance(
    meta_params: MetaParams, lives: Life, until: jax.Array, *, inner: InnerLoop, mesh: Mesh, slots: int
) -> tuple[Life, Metrics]:
    def advance(meta_params: MetaParams, lives: Life, until: jax.Array) -> tuple[Life, Metrics]:
        frozen = replace(inner, objective=Frozen(inner.objective, meta_params))
        return frozen.advance((), lives, until, slots=slots)

    return on_each_device(advance, mesh, (SHARED, SPREAD, SPREAD))(meta_params, lives, until)


@partial(jax.jit, static_argnames=("inner", "mesh", "slots"))
def _evaluate(lives: Life, *, inner: InnerLoop, mesh: Mesh, slots: int) -> jax.Array:
    def evaluate(lives: Life) -> jax.Array:
        return jnp.mean(only_of_finite(lives, inner.evaluate(lives, slots=slots)), axis=1)

    return on_each_device(evaluate, mesh, (SPREAD,))(lives)


@partial(jax.jit, static_argnames="num_seeds")
def _initials(key: Key, tasks: Task, num_seeds: int, lives: jax.Array) -> InitialCondition:
    """Initial conditions number `lives` of all N * S, task by task."""

    def initial(life: jax.Array) -> InitialCondition:
        task, repeat = life // num_seeds, life % num_seeds
        life_key = jax.random.fold_in(jax.random.fold_in(key, task), repeat)
        return InitialCondition(life_key, jax.tree.map(lambda leaf: leaf[task], tasks))

    return jax.vmap(initial)(lives)


def _place(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    return jax.device_put(tree, NamedSharding(mesh, spec))


def _flatten(agent_params: AgentParams) -> dict[str, np.ndarray]:
    """Leaves by their path in the tree, such as `logits` or `torso/0/kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(agent_params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _constant(test_set: TestSet, expected_return: np.ndarray, num_seeds: int, num_points: int) -> Evaluation:
    """A policy that does not learn and whose return is known exactly."""
    shape = (num_points + 1, test_set.num_tasks, num_seeds)
    returns = np.broadcast_to(expected_return[:, None], shape)
    return Evaluation(
        suite=test_set.name,
        lifetime=test_set.lifetime,
        env_steps=0,
        is_exact=True,
        names=test_set.names,
        fractions=np.arange(num_points + 1) / num_points,
        returns=returns,
        scores=stats.normalize(returns, test_set.random_return, test_set.upper_return),
        metrics={},
        agent_params={},
    )
