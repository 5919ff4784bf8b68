"""Disco103 against the public implementation (tests/golden/make_disco103.py), its parts, and what it refuses."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.agent import Agent
from metadisco.agents.networks import MLP, Table
from metadisco.checkpoints import disco103 as published
from metadisco.core.types import Progress, Trajectory
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.objectives import disco_network
from metadisco.objectives.base import Predictions, predict
from metadisco.objectives.disco103 import Disco103
from tests.golden import disco103_inputs as inputs
from tests.golden.disco103_inputs import STRIDE, A, B, T

OBJECTIVE = Disco103()
WEIGHTS = "METADISCO_DISCO103"  # environment variable: the folder of the published weights, or their file
GOLDEN = Path(__file__).parents[1] / "golden" / "disco103.npz"
SPEC = EnvSpec(Discrete((T + 1) * B), Discrete(A))
PROGRESS = Progress(jnp.int32(0), jnp.int32(3))
AGENT = Agent(Table(), SPEC, tuple(OBJECTIVE.heads(SPEC).items()))


def golden(kind):
    with np.load(GOLDEN) as kept:
        return {name.removeprefix(f"{kind}/"): kept[name] for name in kept.files if name.startswith(kind)}


def of_formula():
    return published.to_meta_params(inputs.weights(published.names_and_shapes(OBJECTIVE)), OBJECTIVE, "the formula")


def as_table(outputs):
    """An agent that says these outputs [T + 1, B, ...] at observation t B + b."""
    return {name: jnp.asarray(array.reshape((T + 1) * B, -1)) for name, array in outputs.items()}


def experience(call):
    """Trajectory, the agent's parameters and those that acted, of one call."""
    drawn = inputs.rollout(call)
    index = jnp.arange((T + 1) * B, dtype=jnp.int32).reshape(T + 1, B)
    trajectory = Trajectory(
        obs=index[:-1],
        action=jnp.asarray(drawn["action"][:-1]),
        log_prob=jnp.zeros((T, B)),
        reward=jnp.asarray(drawn["reward"]),
        terminated=jnp.asarray(drawn["terminated"]),
        truncated=jnp.zeros((T, B), bool),
        next_obs=index[1:],
    )
    return trajectory, as_table(drawn["outputs"]), as_table(drawn["behavior"])


@jax.jit
def update(meta_params, state, trajectory, agent_params, behavior_params):
    """Targets, terms of the loss, the slopes of the loss in the outputs, and the state."""
    predictions = predict(AGENT, agent_params, trajectory)
    predictions = predictions.replace(behavior=predict(AGENT, behavior_params, trajectory).now)
    targets, state = OBJECTIVE.targets(meta_params, state, predictions, trajectory, PROGRESS)
    slopes = jax.grad(lambda now: OBJECTIVE.loss(meta_params, targets, now, trajectory, PROGRESS)[0])(predictions.now)
    return targets, OBJECTIVE.loss_terms(targets, predictions.now, trajectory), slopes, state


def run(meta_params):
    """What is kept of the calls, by the names of the golden values."""
    state, found = None, {}
    for call in range(inputs.CALLS):
        trajectory, agent_params, behavior = experience(call)
        if state is None:
            state = jax.jit(lambda params: OBJECTIVE.init_state(jax.random.key(0), AGENT, params, B))(agent_params)
        targets, terms, slopes, state = update(meta_params, state, trajectory, agent_params, behavior)
        if call not in inputs.KEPT:
            continue
        targets, terms, slopes, kept = jax.device_get((targets, terms, slopes, state))
        by_action = {name: slopes[name].reshape(T, B, A, -1) for name in ("z", "q", "aux_logits")}
        moments = kept.advantage
        results = {
            "pi_hat": targets.pi_hat,
            "y_hat": targets.y_hat[..., ::STRIDE],
            "z_hat": targets.z_hat[..., ::STRIDE],
            "q": targets.q,
            "learned_loss": terms["policy"] + terms["y"] + terms["z"] + terms["aux"],
            "value_loss": 0.2 * terms["value"],
            "means": np.stack([np.mean(terms[name]) for name in ("policy", "aux", "value")]),
            "memory": np.stack(kept.memory),
            "moments": np.stack([moments.mean, moments.square, moments.weight]),
            "target_logits": kept.target_params["logits"].reshape(T + 1, B, A),
            "target_q": kept.target_params["q"].reshape(T + 1, B, A, -1)[..., :: 8 * STRIDE],
            "slope_logits": slopes["logits"],
            "slope_y": slopes["y"][..., :: 4 * STRIDE],
            "slope_z": by_action["z"][..., :: 4 * STRIDE],
            "slope_q": by_action["q"][..., :: 4 * STRIDE],
            "slope_aux_logits": by_action["aux_logits"],
        }
        found |= {f"{call}/{name}": np.asarray(array) for name, array in results.items()}
    return found


def check(found, wanted):
    assert found.keys() == wanted.keys()
    assert len(wanted) == 32
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0.0, atol=1e-4 * np.abs(array).max(), err_msg=name)


def test_one_and_three_updates_are_those_of_the_public_implementation():
    check(run(of_formula()), golden("formula"))


@pytest.mark.skipif(WEIGHTS not in os.environ, reason=f"{WEIGHTS} does not say where the published weights are")
def test_with_the_published_weights_too():
    check(run(published.load_disco103(os.environ[WEIGHTS]).meta_params), golden("published"))


SMALL = Disco103(prediction_size=6, num_value_bins=11, max_squashed_value=5.0, width=5, memory_width=4)


def small_update(trajectory=None, seed=0, **changes):
    """Targets and state of the small rule after one call, with random weights and an agent of random tables."""
    objective = replace(SMALL, **changes)
    trajectory = experience(0)[0] if trajectory is None else trajectory
    return _small_update(objective, trajectory, seed)


@partial(jax.jit, static_argnums=0)
def _small_update(objective, trajectory, seed):
    agent = Agent(Table(), SPEC, tuple(objective.heads(SPEC).items()))
    shapes = agent.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    agent_params = {name: 2.0 * jax.random.normal(k, shapes[name].shape) for k, name in zip(keys, sorted(shapes))}
    state = objective.init_state(jax.random.key(0), agent, agent_params, B)
    predictions = predict(agent, agent_params, trajectory)
    meta_params = objective.init(jax.random.key(1))
    return objective.targets(meta_params, state, predictions, trajectory, PROGRESS)


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_returns_of_an_episode_do_not_depend_on_the_next_one(ends):
    step = np.broadcast_to(np.arange(T)[:, None], (T, B))
    over = replace(experience(0)[0], terminated=np.zeros((T, B), bool)).replace(**{ends: step == 2})
    more = replace(over, reward=np.asarray(over.reward) + np.where(step >= 3, np.float32(5.0), np.float32(0.0)))
    one, other = (np.asarray(small_update(each)[0].q) for each in (over, more))
    np.testing.assert_array_equal(one[:3], other[:3])
    assert np.all(one[3:] != other[3:])


def test_targets_of_an_episode_do_not_depend_on_the_next_one():
    size, rng, step = 5, np.random.default_rng(0), np.arange(T)
    draw = lambda *shape: rng.normal(size=(T, B, *shape)).astype(np.float32)  # noqa: E731
    seen = disco_network.Experience(
        steps=draw(9),
        actions=draw(A, 6),
        action=np.zeros((T, B), np.int32),
        goes_on=np.repeat((step != 2).astype(np.float32)[:, None], B, axis=1),
        policy=draw(A),
        next_policy=draw(A),
        y=tuple(draw(size) for _ in range(4)),
        z=tuple(draw(A, size) for _ in range(4)),
    )
    init, apply = jax.jit(disco_network.init, static_argnums=(1, 2, 3)), jax.jit(disco_network.apply)
    weights = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.1), init(jax.random.key(1), size, 4, 3))
    later = (step >= 3).astype(np.float32)
    changed = seen.replace(steps=seen.steps + later[:, None, None], actions=seen.actions + later[:, None, None, None])
    memory = (jnp.ones(3), jnp.ones(3))
    told, other = (apply(weights, each, memory)[0] for each in (seen, changed))
    for one, another in zip(jax.device_get(told), jax.device_get(other), strict=True):
        np.testing.assert_array_equal(one[:3], another[:3])
        assert np.all(np.any(one[3:] != another[3:], axis=-1))


def test_a_time_out_counts_the_value_of_what_came_and_a_termination_does_not():
    trajectory = experience(0)[0]
    none, all_of_them = jnp.zeros((T, B), bool), jnp.ones((T, B), bool)
    terminated = small_update(replace(trajectory, terminated=all_of_them))[0].q
    truncated = small_update(replace(trajectory, terminated=none, truncated=all_of_them))[0].q
    np.testing.assert_allclose(terminated, trajectory.reward, rtol=1e-6)
    assert np.all(np.asarray(truncated) != terminated)


def test_the_target_network_keeps_its_share():
    agent_params = small_update()[1].target_params  # of a new agent, which is its own target network
    objective = replace(SMALL, target_decay=0.75)
    agent = Agent(Table(), SPEC, tuple(SMALL.heads(SPEC).items()))
    trajectory = experience(0)[0]

    @jax.jit
    def after():
        state = SMALL.init_state(jax.random.key(0), agent, jax.tree.map(jnp.zeros_like, agent_params), B)
        predictions = predict(agent, agent_params, trajectory)
        return objective.targets(objective.init(jax.random.key(0)), state, predictions, trajectory, PROGRESS)[1]

    for name, table in after().target_params.items():
        np.testing.assert_allclose(table, 0.25 * np.asarray(agent_params[name]), rtol=1e-6)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="use A2C or MirrorLearning"):
        OBJECTIVE.heads(EnvSpec(Box((4,)), Box((2,), -1.0, 1.0)))


def test_an_agent_without_the_heads_is_refused():
    agent = Agent(MLP((4,)), EnvSpec(Box((4,)), Discrete(2)), (("logits", 2), ("value", 1)))
    with pytest.raises(ValueError, match=r"needs an agent with the heads .*'z': 1200.* build it as InnerLoop does"):
        OBJECTIVE.init_state(jax.random.key(0), agent, jax.jit(agent.init)(jax.random.key(0)), B)


def test_predictions_without_an_agent_are_refused():
    with pytest.raises(ValueError, match="give Predictions the agent"):
        OBJECTIVE.targets((), (), Predictions({}, {}), experience(0)[0], PROGRESS)


@pytest.mark.parametrize(
    "wrong",
    [{"gamma": 1.1}, {"trace": -0.1}, {"moment_decay": 1.0}, {"num_value_bins": 1}, {"width": 0}, {"value_weight": 0}],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"Disco103.{next(iter(wrong))}"):
        Disco103(**wrong)
