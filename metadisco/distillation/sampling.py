"""What a rule is asked in real lives: agents are trained by it, and its inputs are written down on the way.

A formula has to be right where agents are, and they are not everywhere: most ratios of an update are near 1, and
entropies fall as lives go on. The last lives are held out, so that the error of a formula can be told on lives that
nothing was fitted to.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.agents import agent, distributions
from metadisco.core import returns
from metadisco.core.types import Key, MetaParams, Task, Trajectory
from metadisco.lives.critic import Critic
from metadisco.lives.life import InnerLoop, Life, UpdateBatch
from metadisco.meta_training.domain import Domain
from metadisco.objectives.base import predict
from metadisco.objectives.formula_policy_gradient import statistics
from metadisco.objectives.schedule import Scheduled

MOST_PER_UPDATE = 64  # samples of one update, of those that have one for each step
HELD_OUT = 4  # one in so many lives


@dataclass(frozen=True, eq=False)
class Place:
    """Where agents live: an inner loop with the rule, and tasks with a leading axis, one for each life."""

    name: str
    inner: InnerLoop
    tasks: Task


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs of a rule in lives, one row for each time that it was asked."""

    columns: dict[str, np.ndarray]  # [S, ...] float32 by name
    held_out: np.ndarray  # [S] bool, those of the lives that are kept for the error

    def __len__(self) -> int:
        return len(self.held_out)


Watch = Callable[[InnerLoop, MetaParams, Life, Trajectory, Life, UpdateBatch], dict[str, jax.Array]]
"""Inner loop, meta-parameters, life before an update, rollout, life after it, its batch -> [K, ...] by name."""


def places_of(domains: tuple[Domain, ...], inners: tuple[InnerLoop, ...], key: Key, num_lives: int) -> list[Place]:
    """The environments of a meta-training, with tasks that its curricula propose at the beginning."""
    check_lives(num_lives)
    found = []
    for place, (domain, inner) in enumerate(zip(domains, inners, strict=True)):
        init_key, propose_key = jax.random.split(jax.random.fold_in(key, place))
        _, proposal = domain.curriculum.propose(propose_key, domain.curriculum.init(init_key), num_lives)
        found.append(Place(domain.name, inner, proposal.tasks))
    return found


def check_lives(num_lives: int) -> None:
    """Raise ValueError where no life would be left to be held out."""
    if num_lives < HELD_OUT:
        raise ValueError(f"at least {HELD_OUT} lives are needed in each environment, got {num_lives}")


def collect(places: list[Place], meta_params: MetaParams, watch: Watch, key: Key) -> Samples:
    """Live in every place and write down what `watch` sees at each update of each life."""
    columns: list[dict[str, np.ndarray]] = []
    held_out = []
    for number, place in enumerate(places):
        num_lives = place.tasks.lifetime.shape[0]
        check_lives(num_lives)
        keys = jax.random.split(jax.random.fold_in(key, number), num_lives)
        length = int(np.max(np.asarray(place.tasks.lifetime)))
        seen, lived = jax.device_get(_live(place.inner, meta_params, keys, place.tasks, watch, length))
        # [N, M, K, ...] and [N, M] with N updates, M lives and K samples each
        is_last = np.arange(num_lives) % HELD_OUT == HELD_OUT - 1
        count = next(iter(seen.values())).shape[2]
        keep = np.repeat(lived[..., None], count, axis=-1)
        for values in seen.values():
            keep &= np.isfinite(values).all(axis=tuple(range(3, values.ndim)))
        columns.append({name: values[keep] for name, values in seen.items()})
        held_out.append(np.broadcast_to(is_last[None, :, None], keep.shape)[keep])
    return Samples(
        {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}, np.concatenate(held_out)
    )


def _live(
    inner: InnerLoop, meta_params: MetaParams, keys: Key, tasks: Task, watch: Watch, length: int
) -> tuple[dict[str, jax.Array], jax.Array]:
    """What is seen [N, M, K, ...], and whether the life was still going on [N, M]."""

    def update(life: Life) -> tuple[Life, dict[str, jax.Array]]:
        experience, obs, env_state = inner.act(life)
        before = replace(life, obs=obs, env_state=env_state)
        after, batch, _ = inner.learn_from(meta_params, before, experience)
        return after, watch(inner, meta_params, before, experience, after, batch)

    def step(lives: Life, _: None) -> tuple[Life, tuple[dict[str, jax.Array], jax.Array]]:
        goes_on = lives.num_updates < lives.task.lifetime
        lives, seen = jax.vmap(update)(lives)
        return lives, (seen, goes_on)

    @jax.jit
    def spend(keys: Key, tasks: Task) -> tuple[dict[str, jax.Array], jax.Array]:
        lives = jax.vmap(inner.begin)(keys, tasks)
        return jax.lax.scan(step, lives, None, length=length)[1]

    return spend(keys, tasks)


def watch_ratios(
    inner: InnerLoop, meta_params: MetaParams, before: Life, experience: Trajectory, after: Life, batch: UpdateBatch
) -> dict[str, jax.Array]:
    """Inputs of a drift at half of the epochs of an update and at its end: log r, A and n/N, [K] float32 each."""
    trajectory, parts, num_epochs = batch.trajectory, [], inner.learner.num_epochs
    advantage = returns.normalize(batch.targets.advantage)
    lives = [after]
    if num_epochs > 1:
        half = replace(inner, learner=replace(inner.learner, num_epochs=num_epochs // 2))
        lives.append(half.learn_from(meta_params, before, experience)[0])
    for life in lives:
        outputs = inner.agent.apply(life.agent_params, trajectory.obs)
        log_ratio = distributions.log_prob(outputs, trajectory.action) - trajectory.log_prob
        fraction = jnp.broadcast_to(before.progress.fraction, log_ratio.shape)
        parts.append({"l": _some(log_ratio), "A": _some(advantage), "t": _some(fraction)})
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def watch_schedule(
    inner: InnerLoop, meta_params: MetaParams, before: Life, experience: Trajectory, after: Life, batch: UpdateBatch
) -> dict[str, jax.Array]:
    """Inputs of a schedule at an update: [1, I] float32."""
    del meta_params, after, experience
    predictions = predict(inner.agent, before.agent_params, batch.trajectory)
    objective = inner.objective
    assert isinstance(objective, Scheduled)
    told = objective.told(before.objective_state, predictions, batch.trajectory, before.progress)
    return {"told": told[None]}


def with_values(inner: InnerLoop) -> InnerLoop:
    """The inner loop with a critic, for statistics of an agent that has no values of its own."""
    heads = inner.objective.heads(inner.env.spec)
    return inner if "value" in heads or inner.critic is not None else replace(inner, critic=Critic(inner.torso))


def watch_policy_gradient(
    inner: InnerLoop, meta_params: MetaParams, before: Life, experience: Trajectory, after: Life, batch: UpdateBatch
) -> dict[str, jax.Array]:
    """Statistics of steps, and what the policy's log-probability is multiplied by there, `push`. [K] float32 each."""
    del meta_params, experience, after
    trajectory, targets = batch.trajectory, batch.targets
    now, following = (inner.agent.apply(before.agent_params, obs) for obs in (trajectory.obs, trajectory.next_obs))
    if "value" not in now:
        assert before.critic is not None
        spec, torso = inner.env.spec, inner.critic.torso  # type: ignore[union-attr]
        now, following = (
            outputs | agent.apply(torso, spec, before.critic.params, obs)
            for outputs, obs in ((now, trajectory.obs), (following, trajectory.next_obs))
        )
    found = statistics(now, following, trajectory, before.progress, gamma=0.99, gae_lambda=0.95)
    push = targets.pi_hat if hasattr(targets, "pi_hat") else targets.advantage
    return {name: _some(each) for name, each in (found | {"push": push}).items()}


def _some(values: jax.Array) -> jax.Array:
    """Evenly spaced ones among the steps of a rollout [T, B]. [K], at most `MOST_PER_UPDATE`."""
    flat = values.reshape(-1)
    chosen = np.linspace(0, flat.size - 1, min(MOST_PER_UPDATE, flat.size)).astype(int)
    return flat[chosen]


def thinned(samples: Samples, most: int, seed: int) -> Samples:
    """At most so many samples, drawn at random."""
    if len(samples) <= most:
        return samples
    order = np.sort(np.random.default_rng(seed).permutation(len(samples))[:most])
    return Samples({name: each[order] for name, each in samples.columns.items()}, samples.held_out[order])
