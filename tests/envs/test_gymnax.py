"""gymnax behind our interface: every environment keeps the contract, and does what gymnax itself does.

A rollout takes 1 to 7 s to compile. So shapes and types are checked without compiling, over all environments; numbers
are checked on a few that have between them every kind of observation, action, reward, clock and ending. The others are
marked slow.
"""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.networks import CNN, MLP, Table
from metadisco.agents.optimizers import Adam
from metadisco.core import config
from metadisco.core.types import Task
from metadisco.curricula.tasks import FixedLifetime, Tasks
from metadisco.envs import gymnax_adapter, rollout
from metadisco.envs.base import Box, Discrete
from metadisco.envs.gymnax_adapter import ENVIRONMENTS, Gymnax
from metadisco.envs.gymnax_levels import GymnaxLevels
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.objectives.mirror_learning import PPO

T, B = 7, 3
CARTPOLE = Gymnax("CartPole-v1")
PENDULUM = Gymnax("Pendulum-v1")
DEEP_SEA = Gymnax("DeepSea-bsuite", (("size", 5),))
QUICK = (
    CARTPOLE,
    PENDULUM,  # continuous actions, bounds +-2
    DEEP_SEA,  # terminated and truncated in the same step, to gymnax
    Gymnax("BernoulliBandit-misc"),  # the clock is a float, the reward an integer
    Gymnax("FrozenLake-misc"),  # an index as the observation
)
SLOW = [Gymnax(name) for name in ENVIRONMENTS if name not in {env.name for env in QUICK}]


def random_action(env, uniforms):
    """An action from uniform numbers [..., D]."""
    if isinstance(env.spec.action, Box):
        return 2.0 * uniforms - 1.0
    return jnp.floor(uniforms[..., 0] * env.spec.num_actions).astype(jnp.int32)


@partial(jax.jit, static_argnums=1)
def roll(key, env, level):
    """States at first, the trajectory of T steps by B random workers, and states at last."""
    width = env.spec.action.shape[0] if isinstance(env.spec.action, Box) else 1
    begin_key, key = jax.random.split(key)
    obs, state = rollout.begin(begin_key, env, level, B)
    trajectory, _, last_state = rollout.rollout(
        key,
        env,
        level,
        lambda uniforms, obs: (random_action(env, uniforms), jnp.zeros(B)),
        obs,
        state,
        num_steps=T,
        draw=lambda key, shape: jax.random.uniform(key, (*shape, width)),
    )
    return state, trajectory, last_state


@partial(jax.jit, static_argnums=1)
def replay(key, env, level, state, action):
    """The same by gymnax's own step: obs, reward, terminated, truncated, final observation, [T, B, ...]."""
    made = gymnax_adapter._build(env)
    _, env_key = jax.random.split(jax.random.split(key)[1])

    def step(state, now):
        keys, action = now
        out = jax.vmap(made.step, in_axes=(0, 0, 0, None))(keys, state, action, level)
        obs, next_state, reward, terminated, truncated, info = out
        next_state = jax.tree.map(lambda new, old: new.astype(old.dtype), next_state, state)
        return next_state, (obs, reward, terminated, truncated, info["final_observation"])

    return jax.lax.scan(step, state, (jax.random.split(env_key, (T, B)), action))[1]


def short_level(env, num_steps=5):
    """The default level, with episodes that end within a rollout."""
    level = env.default_level
    return replace(level, max_steps_in_episode=jnp.full_like(level.max_steps_in_episode, num_steps))


def sample_many(levels, num):
    return jax.jit(jax.vmap(levels.sample))(jax.random.split(jax.random.key(0), num))


def test_all_environments_of_gymnax_are_known_but_the_one_that_downloads():
    import gymnax

    assert set(ENVIRONMENTS) == set(gymnax.registered_envs) - {"MNISTBandit-bsuite"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_options_are_the_scalar_arguments_of_the_constructor(name):
    not_scalar = {"goal_fixed", "pos_fixed", "action_mapping_key", "desc", "reward_schedule"}
    arguments = inspect.signature(type(gymnax_adapter._build(Gymnax(name)))).parameters
    assert set(gymnax_adapter._OPTIONS[name]) == set(arguments) - not_scalar
    for option in gymnax_adapter._OPTIONS[name]:
        Gymnax(name, ((option, arguments[option].default),))


@pytest.mark.parametrize(
    "env", [*QUICK, *(pytest.param(env, marks=pytest.mark.slow) for env in SLOW)], ids=lambda env: env.name
)
def test_a_rollout_is_what_gymnax_does_with_the_same_keys(env):
    key, level = jax.random.key(3), short_level(env)
    state, trajectory, _ = roll(key, env, level)
    action = env._action(trajectory.action, level)
    obs, reward, terminated, truncated, final_obs = replay(key, env, level, state, action)

    assert trajectory.reward.dtype == jnp.float32
    assert jnp.isfinite(trajectory.next_obs).all()
    np.testing.assert_allclose(trajectory.obs[1:], obs[:-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trajectory.next_obs, final_obs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trajectory.reward, reward, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(trajectory.terminated, terminated)
    np.testing.assert_array_equal(trajectory.truncated, truncated & ~terminated)
    assert trajectory.finished.any(axis=0).all()  # every worker began a second episode
    goes_on = ~np.asarray(trajectory.finished[:-1])
    np.testing.assert_array_equal(trajectory.next_obs[:-1][goes_on], trajectory.obs[1:][goes_on])


def test_cartpole_is_truncated_by_the_time_limit_of_the_level():
    _, trajectory, _ = roll(jax.random.key(0), CARTPOLE, short_level(CARTPOLE, 3))
    assert trajectory.truncated.tolist() == [[t % 3 == 2] * B for t in range(T)]
    assert not trajectory.terminated.any()
    assert (jnp.abs(trajectory.obs[3]) < 0.05).all()  # a new episode
    assert (jnp.abs(trajectory.next_obs[2]) > 0.05).any(axis=-1).all()  # the end of the old one


def test_last_step_of_deep_sea_is_terminated_only():
    level, num_steps = DEEP_SEA.default_level, 5
    assert int(level.max_steps_in_episode) == num_steps
    _, trajectory, _ = roll(jax.random.key(0), DEEP_SEA, level)
    assert trajectory.terminated.tolist() == [[t == num_steps - 1] * B for t in range(T)]
    assert not trajectory.truncated.any()


@pytest.mark.parametrize(("name", "bound"), [("Pendulum-v1", 2.0), ("PointRobot-misc", 0.1), ("Reacher-misc", 1.0)])
def test_actions_are_stretched_to_the_bounds_of_the_environment(name, bound):
    env = Gymnax(name)
    (width,) = env.spec.action.shape
    assert env.spec.action == Box((width,), -1.0, 1.0)
    for action in (-1.0, 0.0, 0.5, 1.0):
        np.testing.assert_allclose(env._action(jnp.full(width, action), env.default_level), bound * action, rtol=1e-6)


def test_bounds_of_actions_are_those_of_the_level():
    weak = replace(PENDULUM.default_level, max_torque=jnp.float32(0.5))
    _, trajectory, last_state = roll(jax.random.key(0), PENDULUM, weak)
    np.testing.assert_allclose(last_state.last_u, 0.5 * trajectory.action[-1, :, 0], rtol=1e-6)


def test_a_step_and_the_reset_after_it_draw_different_numbers():
    """The mean of a bandit is drawn by `reset`, its reward by `step`: the same number must not decide both."""
    env = Gymnax("GaussianBandit-misc")
    level = replace(env.default_level, mean_mu=jnp.float32(0.0), sigma_l=jnp.float32(1.0))

    @jax.jit
    @jax.vmap
    def draw(noise):
        _, state = env.reset(noise, level)
        _, _, out = env.step(noise, state.replace(mu=jnp.float32(0.0)), jnp.int32(1), level)
        return state.mu, out.reward

    mean, reward = draw(env.noise(jax.random.key(0), (200,)))
    assert abs(np.corrcoef(mean, reward)[0, 1]) < 0.2


LEAST = {
    name: tuple((option, kind.start) for option, kind in options.items() if isinstance(kind, range))
    for name, options in gymnax_adapter._OPTIONS.items()
}


@pytest.mark.parametrize("name", [name for name, options in LEAST.items() if options])
def test_environments_of_the_least_sizes_work(name):
    env = Gymnax(name, LEAST[name])
    noise, level = env.noise(jax.random.key(0), ()), env.default_level
    obs, state = jax.eval_shape(env.reset, noise, level)
    action = random_action(env, jnp.zeros(getattr(env.spec.action, "shape", 1)))
    assert jax.eval_shape(env.step, noise, state, action, level)[:2] == (obs, state)


def test_options_change_sizes():
    assert Gymnax("Catch-bsuite", (("rows", 6), ("columns", 7))).spec.observation == Box((6, 7))
    assert Gymnax("FrozenLake-misc", (("map_name", "8x8"),)).spec.observation == Discrete(64)
    assert Gymnax("Breakout-MinAtar", (("use_minimal_action_set", False),)).spec.num_actions == 6
    assert Gymnax("Swimmer-misc", (("num_urchins", 0),)).spec.observation == Box((6,))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CartPole", (), "unknown. Did you mean 'CartPole-v1'"),
        ("MNISTBandit-bsuite", (), "downloads"),
        ("Catch-bsuite", (("row", 3),), "'row'.*Did you mean 'rows'"),
        ("CartPole-v1", (("rows", 3),), "does not take"),
        ("Catch-bsuite", (("rows", 3), ("rows", 4)), "twice"),
        ("Catch-bsuite", (("rows", 1),), "rows of Catch-bsuite must be an integer from 2"),
        ("Catch-bsuite", (("rows", True),), "must be an integer"),
        ("Catch-bsuite", (("rows", 3.0),), "must be an integer"),
        ("DiscountingChain-bsuite", (("n_actions", 6),), "from 1 to 5"),
        ("FrozenLake-misc", (("is_slippery", 1),), "must be a bool"),
    ],
)
def test_wrong_settings_fail_at_construction(name, options, message):
    with pytest.raises(ValueError, match=message):
        Gymnax(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("MetaMaze-misc", (("maze_size", 8),), "must be odd"),
        ("FrozenLake-misc", (("map_name", "5x5"),), "map_name must be"),
        ("FrozenLake-misc", (("success_rate", 1.5),), "success_rate must be"),
    ],
)
def test_what_only_gymnax_can_refuse_fails_with_the_spec(name, options, message):
    env = Gymnax(name, options)
    with pytest.raises(ValueError, match=message):
        _ = env.spec


def test_ranges_are_kept_and_the_rest_is_the_default():
    drawn = sample_many(GymnaxLevels(CARTPOLE, (("length", 0.25, 1.0), ("max_steps_in_episode", 2, 4))), 300)
    assert 0.25 <= drawn.length.min() < 0.27 < 0.98 < drawn.length.max() <= 1.0
    assert drawn.max_steps_in_episode.dtype == jnp.int32
    counts = np.bincount(drawn.max_steps_in_episode, minlength=5)
    assert counts[:2].tolist() == [0, 0]
    assert counts[2:].min() > 70  # each of three has 100 of 300, give or take 8
    assert (drawn.gravity == CARTPOLE.default_level.gravity).all()


def test_numbers_that_follow_from_others_are_computed_again():
    levels = GymnaxLevels(CARTPOLE, (("masspole", 0.1, 1.0), ("masscart", 0.5, 2.0), ("length", 0.25, 1.0)))
    level = levels.sample(jax.random.key(0))
    for drawn in (level, levels.mutate(jax.random.key(1), level)):
        np.testing.assert_allclose(drawn.total_mass, drawn.masspole + drawn.masscart)
        np.testing.assert_allclose(drawn.polemass_length, drawn.masspole * drawn.length)
    bandits = GymnaxLevels(Gymnax("BernoulliBandit-misc"), (("max_steps_in_episode", 10, 20),))
    level = bandits.sample(jax.random.key(0))
    assert level.t_max.dtype == jnp.int32
    np.testing.assert_allclose(level.t_max, level.max_steps_in_episode, atol=0.5)
    assert 10 <= level.t_max <= 20


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_without_ranges_every_level_is_the_default_one(name):
    levels = GymnaxLevels(Gymnax(name))
    sampled = levels.sample(jax.random.key(0))
    for level in (sampled, levels.mutate(jax.random.key(1), sampled)):
        for leaf, default in zip(jax.tree.leaves(level), jax.tree.leaves(levels.default_level), strict=True):
            assert leaf.dtype == default.dtype
            np.testing.assert_allclose(leaf, default, rtol=1e-6)


def test_a_mutation_is_small_and_stays_in_the_range():
    levels = GymnaxLevels(CARTPOLE, (("length", 0.5, 1.5), ("max_steps_in_episode", 10, 12), ("gravity", 9.8, 9.8)))
    parents = sample_many(levels, 200)
    mutate = jax.jit(jax.vmap(levels.mutate))
    children = mutate(jax.random.split(jax.random.key(1), 200), parents)
    assert 0.08 < jnp.abs(children.length - parents.length).max() <= 0.1 + 1e-6
    assert 0.5 <= children.length.min() <= children.length.max() <= 1.5
    steps = children.max_steps_in_episode - parents.max_steps_in_episode
    assert set(steps.tolist()) == {-1, 0, 1}
    assert set(children.max_steps_in_episode.tolist()) == {10, 11, 12}
    assert jnp.allclose(children.gravity, 9.8)
    foreign = replace(parents, length=parents.length + 5.0)
    assert (mutate(jax.random.split(jax.random.key(1), 200), foreign).length == 1.5).all()


def test_a_switch_can_be_drawn():
    dense = sample_many(GymnaxLevels(Gymnax("PointRobot-misc"), (("dense_reward", 0, 1),)), 100).dense_reward
    assert dense.dtype == jnp.bool_
    assert 30 < dense.sum() < 70


def test_pole_length_changes_the_dynamics():
    levels = GymnaxLevels(CARTPOLE, (("length", 0.25, 1.0),))

    @jax.jit
    def push(key):
        drawn = jax.vmap(levels.sample)(jax.random.split(key, 2))
        noise = CARTPOLE.noise(key, ())
        _, state = CARTPOLE.reset(noise, CARTPOLE.default_level)
        step = jax.vmap(CARTPOLE.step, in_axes=(None, None, None, 0))
        return drawn.length, step(noise, state, jnp.int32(1), drawn)[0]

    length, obs = push(jax.random.key(0))
    np.testing.assert_array_equal(obs[0, 0], obs[1, 0])  # the cart's position lags behind its velocity
    speed = -obs[:, 3]
    assert speed.min() > 0.0
    assert speed.argmax() == length.argmin()  # the short pole falls faster


@pytest.mark.parametrize(
    ("name", "ranges", "message"),
    [
        ("CartPole-v1", (("lenght", 0.5, 1.0),), "Did you mean 'length'.*gravity, length, masscart, masspole"),
        ("CartPole-v1", (("total_mass", 0.5, 1.0),), "follows from other fields"),
        ("CartPole-v1", (("length", 1.0, 0.5),), "low <= high"),
        ("CartPole-v1", (("length", 1.0, float("inf")),), "finite"),
        ("CartPole-v1", (("length", 0.5, 1.0), ("length", 0.5, 1.0)), "twice"),
        ("CartPole-v1", (("max_steps_in_episode", 0, 10),), "at least 1"),
        ("CartPole-v1", (("max_steps_in_episode", 1.5, 10),), "integers"),
        ("PointRobot-misc", (("dense_reward", 0.2, 1),), "switch"),
        ("Acrobot-v1", (("available_torque", -1.0, 1.0),), "available_torque of Acrobot-v1 is no field of its levels"),
    ],
)
def test_wrong_ranges_fail_at_construction(name, ranges, message):
    with pytest.raises(ValueError, match=message):
        GymnaxLevels(Gymnax(name), ranges)


@pytest.mark.parametrize(
    "component",
    [
        GymnaxLevels(CARTPOLE, (("length", 0.25, 1.0), ("max_steps_in_episode", 100, 500))),
        Tasks(GymnaxLevels(Gymnax("Catch-bsuite", (("rows", 6),))), FixedLifetime(3)),
        Gymnax("FrozenLake-misc", (("is_slippery", False), ("success_rate", 0.5), ("map_name", "8x8"))),
    ],
)
def test_settings_survive_json(component):
    again = config.from_data(json.loads(json.dumps(config.to_data(component))))
    assert again == component
    assert hash(again) == hash(component)


def inner_loop(env, torso):
    return InnerLoop(env, torso, PPO(), Learner(Adam(), Adam()), num_workers=4, num_steps=6, num_test_workers=2)


def test_an_agent_updates_by_ppo_in_cartpole():
    inner = inner_loop(CARTPOLE, MLP((8,)))

    @jax.jit
    def live(key):
        life = inner.begin(key, Task(short_level(CARTPOLE), jnp.int32(2)))
        return life.agent_params, inner.update((), life)

    before, (life, metrics) = live(jax.random.key(0))
    moved = jax.tree.map(lambda old, new: bool(jnp.any(old != new)), before, life.agent_params)
    assert all(jax.tree.leaves(moved)), moved
    assert all(jnp.isfinite(metric) for metric in metrics.values())
    assert metrics["reward"] == 1.0


@pytest.mark.parametrize(
    ("env", "torso"),
    [(PENDULUM, MLP((8,))), (Gymnax("FrozenLake-misc"), Table()), (Gymnax("Breakout-MinAtar"), CNN((4,), (8,)))],
)
def test_torsos_fit(env, torso):
    inner = inner_loop(env, torso)
    life = jax.eval_shape(lambda: inner.begin(jax.random.key(0), Task(env.default_level, jnp.int32(2))))
    assert jax.eval_shape(inner.update, (), life)[0] == life


def test_construction_leaves_gymnax_alone_and_the_first_use_may_be_within_a_trace():
    code = """
import sys, jax
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.envs.gymnax_levels import GymnaxLevels
env = Gymnax("DeepSea-bsuite")  # has random numbers of its own
levels = GymnaxLevels(env)
assert "gymnax" not in sys.modules
jax.config.update("jax_num_cpu_devices", 3)
assert jax.device_count() == 3

def begin_and_act(key):
    assert env.spec.num_actions == 2  # the first use
    noise, level = env.noise(key, ()), levels.sample(key)
    _, state = env.reset(noise, level)
    return env.step(noise, state, 0, level)

jax.eval_shape(begin_and_act, jax.random.key(0))
jax.jit(lambda key: begin_and_act(key))(jax.random.key(0))  # fails on an array that belonged to the first trace
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], env=environment)
