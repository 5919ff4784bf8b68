"""Brax behind our interface: against brax's own step, and what a level changes."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import Adam
from metadisco.core import config, trees
from metadisco.core.types import Task
from metadisco.curricula.tasks import FixedLifetime, Tasks
from metadisco.envs import brax_adapter, rollout
from metadisco.envs.base import Box
from metadisco.envs.brax_adapter import BACKENDS, FACTORS, NAMES, Brax
from metadisco.envs.brax_levels import BraxLevels
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.objectives.mirror_learning import PPO
from metadisco.testing import check_environment

ROOT = Path(__file__).parents[2]
PENDULUM = Brax("inverted_pendulum", episode_length=12)
NUM_STEPS, NUM_WORKERS = 30, 8
IDLE = 4  # the first workers do nothing, and the pole stays up for longer than an episode
# Nothing here runs for long: without the compiler's optimizations, a third of the time is saved.
hasty_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def level(**factors):
    ones = PENDULUM.default_level
    return ones.replace(**{name: jnp.asarray(value, jnp.float32) for name, value in factors.items()})


def play_once(key, env, level, strength):
    """A first reset and a rollout after it: the idle workers, and random actions of at most `strength`."""
    first_key, key = jax.random.split(key)

    def draw(key, shape):
        return jax.random.uniform(key, (*shape, *env.spec.action.shape), minval=-strength, maxval=strength)

    def policy(drawn, obs):
        del obs
        return drawn.at[:IDLE].set(0.0), jnp.zeros(NUM_WORKERS)

    first = rollout.begin(first_key, env, level, NUM_WORKERS)
    return first, *rollout.rollout(key, env, level, policy, *first, num_steps=NUM_STEPS, draw=draw)


KEY = jax.random.key(1)
play = hasty_jit(jax.vmap(play_once, in_axes=(None, None, 0, 0)), static_argnums=1)


def play_two(first, second, strengths=(1.0, 1.0)):
    """Rollouts of two levels of the pendulum; always the same compilation."""
    return jax.device_get(play(KEY, PENDULUM, trees.stack([first, second]), jnp.array(strengths)))


@pytest.fixture(scope="module")
def played():
    """One rollout in the published level: first observation and state, trajectory, last observation and state."""
    return trees.index(play_two(level(), level(gravity=0.5)), 0)


def test_an_episode_ends_by_the_rule_or_by_time_and_never_by_both(played):
    _, trajectory, _, _ = played
    has_fallen = np.abs(trajectory.next_obs[..., 1]) > 0.2
    np.testing.assert_array_equal(trajectory.terminated, has_fallen)
    assert not np.any(trajectory.terminated & trajectory.truncated)
    assert np.any(trajectory.terminated[:, IDLE:])
    np.testing.assert_array_equal(np.flatnonzero(trajectory.truncated[:, 0]), [11, 23])


def test_time_counts_from_each_reset(played):
    _, trajectory, _, _ = played
    for worker in range(NUM_WORKERS):
        ends = np.flatnonzero(trajectory.finished[:, worker])
        lengths = np.diff(np.concatenate([[-1], ends]))
        np.testing.assert_array_equal(
            (lengths == PENDULUM.episode_length) & ~trajectory.terminated[ends, worker],
            trajectory.truncated[ends, worker],
        )
        assert np.all(lengths <= PENDULUM.episode_length)


def test_the_observation_of_a_step_is_the_one_that_its_action_led_to(played):
    _, trajectory, obs, _ = played
    follows = np.concatenate([trajectory.obs[1:], obs[None]])
    goes_on = ~trajectory.finished
    np.testing.assert_array_equal(follows[goes_on], trajectory.next_obs[goes_on])
    # After an end the next episode begins with everything within 0.01; the last observation was far from there.
    assert np.all(np.abs(follows[~goes_on]) <= 0.0101)
    assert np.all(np.abs(trajectory.next_obs[trajectory.terminated][:, 1]) > 0.2)


def test_every_episode_begins_differently(played):
    (first, _), trajectory, obs, _ = played
    follows = np.concatenate([trajectory.obs[1:], obs[None]])
    begun = np.concatenate([first, follows[trajectory.finished]])
    assert len(begun) > 2 * NUM_WORKERS
    assert len(np.unique(begun, axis=0)) == len(begun)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # brax's own
def test_published_level_is_brax_itself(played):
    from brax import envs

    raw = envs.get_environment("inverted_pendulum", backend="spring")
    (first, _), trajectory, _, _ = played
    keys = PENDULUM.noise(jax.random.split(KEY)[0], (NUM_WORKERS,))

    @hasty_jit
    @jax.vmap
    def act_in_brax(key, actions):
        first = raw.reset(key)

        def step(state, action):
            state = raw.step(state, action)
            return state, (state.obs, state.reward, state.done)

        return first.obs, jax.lax.scan(step, first, actions)[1]

    raw_first, (obs, reward, done) = act_in_brax(keys, trajectory.action.swapaxes(0, 1))
    np.testing.assert_array_equal(first, raw_first)
    for worker in range(NUM_WORKERS):
        length = np.flatnonzero(trajectory.finished[:, worker])[0] + 1
        ours = trajectory.next_obs[:length, worker]
        np.testing.assert_allclose(ours, obs[worker, :length], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(trajectory.reward[:length, worker], reward[worker, :length])
        np.testing.assert_array_equal(trajectory.terminated[:length, worker], done[worker, :length] > 0.5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "backend"),
    # The spring and positional backends bend the half-cheetah's masses and inertias, neither to 1.
    [("halfcheetah", "spring"), ("halfcheetah", "positional"), ("hopper", "generalized"), ("reacher", "mjx")],
)
def test_published_level_is_brax_itself_elsewhere(name, backend, tmp_path, monkeypatch):
    from brax import envs

    monkeypatch.chdir(tmp_path)  # where MuJoCo leaves a file
    raw, env = envs.get_environment(name, backend=backend), Brax(name, backend)
    noise = env.noise(jax.random.key(3), ())
    actions = jax.random.uniform(jax.random.key(4), (3, *env.spec.action.shape), minval=-1.0, maxval=1.0)
    begin, act, step = jax.jit(raw.reset), jax.jit(raw.step), jax.jit(env.step)
    before = begin(noise)
    obs, state = jax.jit(env.reset)(noise, level())
    np.testing.assert_allclose(obs, before.obs, rtol=1e-6, atol=1e-6)
    for action in actions:
        before = act(before, action)
        obs, state, out = step(noise, state, action, level())
        np.testing.assert_allclose(obs, before.obs, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(out.reward, before.reward, rtol=1e-3, atol=1e-3)


def test_half_the_motor_is_half_the_action():
    _, trajectory, _, _ = play_two(level(motor=0.5), level(), (1.0, 0.5))
    np.testing.assert_allclose(trajectory.action[0], 2.0 * trajectory.action[1], rtol=1e-6)
    np.testing.assert_allclose(trajectory.next_obs[0], trajectory.next_obs[1], rtol=1e-4, atol=1e-5)


def test_levels_side_by_side_are_levels_one_by_one():
    levels = [level(gravity=0.5), level(mass=2.0)]
    together = play_two(*levels)
    for i, alone in enumerate(levels):
        repeated = play_two(alone, alone)
        jax.tree.map(np.testing.assert_array_equal, trees.index(together, i), trees.index(repeated, 1 - i))
    assert np.any(together[1].next_obs[0] != together[1].next_obs[1])


def hop(backend):
    """Observations [levels, steps, ...] of a hopper under the same actions: published, and one factor changed each."""
    env = Brax("hopper", backend)
    noise = env.noise(jax.random.key(3), ())
    actions = jax.random.uniform(jax.random.key(4), (40, 3), minval=-1.0, maxval=1.0)

    @hasty_jit
    @jax.vmap
    def act(level):
        def step(state, action):
            obs, state, _ = env.step(noise, state, action, level)
            return state, obs

        first, state = env.reset(noise, level)
        return first, jax.lax.scan(step, state, actions)[1]

    first, later = jax.device_get(act(trees.stack([level(), *(level(**{name: 0.2}) for name in FACTORS)])))
    return np.concatenate([first[:, None], later], axis=1)


def check_that_factors_matter(observations):
    published = observations[0]
    for changed in observations[1:]:
        assert np.all(np.isfinite(changed))
        np.testing.assert_array_equal(changed[0], published[0])
        assert np.max(np.abs(changed - published)) > 0.05


@pytest.fixture(scope="module")
def hopped():
    return hop("spring")


@pytest.mark.slow
def test_every_factor_changes_the_dynamics(hopped):
    # Brax bends every mass of this environment to 1: a factor on the masses before that would change nothing.
    check_that_factors_matter(hopped)


@pytest.mark.slow
@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"spring"}))
def test_every_factor_changes_the_dynamics_of_the_other_backends(backend):
    check_that_factors_matter(hop(backend))


@pytest.mark.slow
def test_gravity_pulls_in_proportion(hopped):
    vertical_speed = hopped[:, :, 6]
    gained = vertical_speed[:, 1] - vertical_speed[:, 0]  # in the first 0.008 s, before the foot touches the ground
    published, weak = gained[0], gained[1 + FACTORS.index("gravity")]
    np.testing.assert_allclose([published, weak], [-9.81 * 0.008, -0.2 * 9.81 * 0.008], rtol=0.02)


@pytest.mark.parametrize(
    ("name", "obs_size", "action_size"), [("inverted_pendulum", 4, 1), ("reacher", 11, 2), ("hopper", 11, 3)]
)
def test_spec_says_what_there_is(name, obs_size, action_size):
    spec = Brax(name).spec
    assert spec.observation == Box((obs_size,))
    assert spec.action == Box((action_size,), -1.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_environment_on_every_backend(name, backend):
    env = Brax(name, backend)
    check_environment(env, env.default_level, run=False)
    # What the docstring of `Brax` says of ranges.
    ranges = {
        tuple(range_) for range_ in np.asarray(brax_adapter._build(name, backend).env.sys.actuator.ctrl_range).tolist()
    }
    stretched = {"inverted_pendulum", "pusher", "humanoid", "humanoidstandup"}
    assert (ranges == {(-1.0, 1.0)}) == (name not in stretched)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_friction_is_a_factor_where_there_are_contacts(name):
    from mujoco import mjx

    num_contacts = mjx.make_data(brax_adapter._build(name, "spring").env.sys)._impl.ncon
    assert ("friction" in Brax(name).factors) == (num_contacts > 0)


def test_what_is_kept_of_an_environment_first_made_inside_of_a_trace_is_numbers():
    brax_adapter._build.cache_clear()
    jax.eval_shape(Brax("reacher").reset, jax.random.key(0), level())
    leaves = jax.tree.leaves(brax_adapter._build("reacher", "spring").env.sys)
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    jax.eval_shape(Brax("reacher").reset, jax.random.key(0), level())  # and so another trace may use them


def test_levels_leave_the_shared_environment_as_it_was():
    env = Brax("inverted_pendulum")
    before = brax_adapter._build(env.name, env.backend).env.sys
    jax.eval_shape(env.reset, jax.random.key(0), level(gravity=2.0))
    assert brax_adapter._build(env.name, env.backend).env.sys is before


def test_making_an_environment_says_nothing_and_leaves_nothing(tmp_path):
    # MuJoCo has an objection to the half-cheetah's file, which it would print, and write into the folder.
    code = """
import sys, warnings
from metadisco.envs.brax_adapter import Brax
env = Brax("halfcheetah")
assert "brax" not in sys.modules
warnings.simplefilter("error")
env.spec
import jax
jax.eval_shape(lambda key: env.reset(key, env.default_level), jax.random.key(0))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Brax("swimmer"), "does not run.*'halfcheetah'"),
        (lambda: Brax("swimmer", "generalized"), "does not run"),
        (lambda: Brax("half_cheetah"), "Did you mean 'halfcheetah'.*ant, halfcheetah"),
        (lambda: Brax("fast"), "unknown"),
        (lambda: Brax("ant", "sprng"), "Did you mean 'spring'.*generalized, mjx, positional"),
        (lambda: Brax("ant", episode_length=0), "episode_length must be at least 1, got 0"),
        (lambda: BraxLevels(Brax("ant"), (("gravty", 1.0, 2.0),)), "Did you mean 'gravity'.*friction, gravity"),
        (lambda: BraxLevels(Brax("reacher"), (("friction", 1.0, 2.0),)), "no difference in 'reacher'.*gravity, mass"),
        (lambda: BraxLevels(Brax("ant"), (("mass", 1.0, 2.0), ("mass", 2.0, 3.0))), "more than once"),
        (lambda: BraxLevels(Brax("ant"), (("mass", 2.0, 1.0),)), "0 < lowest <= highest, got 2.0 and 1.0"),
        (lambda: BraxLevels(Brax("ant"), (("mass", 0.0, 1.0),)), "0 < lowest"),
        (lambda: BraxLevels(Brax("ant"), (("mass", 1.0, float("inf")),)), "0 < lowest"),
        (lambda: BraxLevels(Brax("ant"), (("mass", float("nan"), 1.0),)), "0 < lowest"),
    ],
)
def test_wrong_settings_are_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


TWO_FACTORS = BraxLevels(Brax("ant"), (("gravity", 0.5, 1.5), ("friction", 0.2, 0.6)))
keys = partial(jax.random.split, num=200)


def test_sampled_factors_fill_their_ranges_and_the_others_are_1():
    levels = jax.vmap(TWO_FACTORS.sample)(keys(jax.random.key(0)))
    for name, low, high in TWO_FACTORS.ranges:
        factor = getattr(levels, name)
        assert low <= factor.min() < low + 0.05 * (high - low)
        assert high >= factor.max() > high - 0.05 * (high - low)
    assert abs(np.corrcoef(levels.gravity, levels.friction)[0, 1]) < 0.2
    np.testing.assert_array_equal(levels.mass, 1.0)
    np.testing.assert_array_equal(levels.motor, 1.0)


def test_a_mutation_is_a_small_step_within_the_ranges():
    parents = jax.vmap(TWO_FACTORS.sample)(keys(jax.random.key(0)))
    children = jax.vmap(TWO_FACTORS.mutate)(keys(jax.random.key(1)), parents)
    for name, low, high in TWO_FACTORS.ranges:
        parent, child = getattr(parents, name), getattr(children, name)
        assert np.all((low <= child) & (child <= high))
        assert np.all(parent != child)
        assert np.max(np.abs(parent - child)) <= 0.1001 * (high - low)
    np.testing.assert_array_equal(children.mass, parents.mass)


def test_mutations_do_not_pile_up_at_the_ends():
    parents = jax.vmap(TWO_FACTORS.sample)(keys(jax.random.key(0))).replace(gravity=jnp.full(200, 1.5))
    children = jax.vmap(TWO_FACTORS.mutate)(keys(jax.random.key(1)), parents)
    assert np.mean(children.gravity == 1.5) < 0.05


def test_without_ranges_there_is_only_the_published_level():
    levels = BraxLevels(Brax("ant"), ())
    published = levels.env.default_level
    sampled = levels.sample(jax.random.key(0))
    for drawn in (sampled, levels.mutate(jax.random.key(1), sampled)):
        jax.tree.map(np.testing.assert_array_equal, drawn, published)


def inner_loop(**options):
    settings = {
        "env": PENDULUM,
        "torso": MLP((8,)),
        "objective": PPO(),
        "learner": Learner(Adam(1e-2), Adam(1e-2), num_epochs=2, num_minibatches=2),
        "num_workers": 4,
        "num_steps": 8,
    }
    return InnerLoop(**(settings | options))


def test_settings_survive_json():
    for component in (inner_loop(), TWO_FACTORS, BraxLevels(PENDULUM)):
        assert config.from_data(config.to_data(component)) == component


def test_an_agent_lives_on_brax():
    inner = inner_loop()
    tasks = Tasks(BraxLevels(PENDULUM), FixedLifetime(1))

    def begin_and_update(key):
        life = inner.begin(key, tasks.sample(key))
        return life, *inner.update((), life)

    before, after, _ = jax.eval_shape(begin_and_update, jax.random.key(0))
    assert before.obs.shape == (4, 4)
    assert jax.tree.map(lambda leaf: leaf.shape, before) == jax.tree.map(lambda leaf: leaf.shape, after)


@pytest.mark.slow
def test_ppo_balances_the_pole():
    env = Brax("inverted_pendulum", episode_length=200)
    inner = inner_loop(
        env=env,
        torso=MLP((32, 32)),
        objective=PPO(entropy_weight=0.0),
        learner=Learner(Adam(3e-3), Adam(3e-3), num_epochs=4, num_minibatches=4),
        num_workers=16,
        num_steps=64,
        num_test_workers=16,
    )

    @jax.jit
    def mean_return(num_updates):
        life = inner.begin(jax.random.key(0), Task(env.default_level, jnp.int32(400)))
        life = jax.lax.fori_loop(0, num_updates, lambda _, life: inner.update((), life)[0], life)
        return jnp.mean(inner.evaluate(jax.tree.map(lambda leaf: leaf[None], life), slots=1))

    assert mean_return(0) < 30.0
    assert mean_return(400) > 100.0
