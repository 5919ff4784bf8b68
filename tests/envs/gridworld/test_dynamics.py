"""Dynamics of grid worlds against a plain Python simulator, and in the small."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.core import trees
from metadisco.envs.gridworld.dynamics import DOWN, LEFT, RIGHT, STAY, UP, GridLevel, GridWorld
from metadisco.envs.gridworld.hand_designed import hand_designed
from metadisco.envs.gridworld.levels import GridLevels
from tests.support.reference.gridworld import Level, Simulator

NUM_STEPS = 300
CROWDED = GridLevels(
    min_side=3, max_side=5, num_walls=5, min_objects=1, max_objects=3, max_steps=(5, 60), p_respawn=(0.02, 1.0)
)

sample_crowded = jax.jit(jax.vmap(CROWDED.sample))


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, 0))
def play(env, key, level):
    """A random walk with resets: noise, actions, observations and steps, all with axes [levels, NUM_STEPS]."""
    noise_key, action_key = jax.random.split(key)
    noises = env.noise(noise_key, (NUM_STEPS,))
    actions = jax.random.randint(action_key, (NUM_STEPS,), 0, 5)

    def step(state, draws):
        noise, action = draws
        obs, next_state, out = env.step(noise, state, action, level)
        first_obs, first_state = env.reset(noise, level)
        finished = out.terminated | out.truncated
        state = jax.tree.map(lambda a, b: jnp.where(finished, a, b), first_state, next_state)
        return state, (obs, jnp.where(finished, first_obs, obs), out)

    first_noise = jax.tree.map(lambda leaf: leaf[-1], noises)
    _, state = env.reset(first_noise, level)
    return noises, actions, jax.lax.scan(step, state, (noises, actions))[1]


def corridor(**changes):
    """One row of three cells, start left, one object right."""
    level = GridLevel(
        walls=jnp.zeros(3, bool),
        start=jnp.int32(0),
        object_cell=jnp.array([2], jnp.int32),
        object_type=jnp.array([0], jnp.int32),
        reward=jnp.array([0.5]),
        p_terminate=jnp.array([0.0]),
        p_respawn=jnp.array([0.0]),
        max_steps=jnp.int32(10),
    )
    return level.replace(**{name: jnp.asarray(value, getattr(level, name).dtype) for name, value in changes.items()})


CORRIDOR = GridWorld(1, 3, 1, 1)
step_corridor = jax.jit(CORRIDOR.step)


def walk(level, actions, event=0.5):
    """Observations and steps of given actions in the corridor."""
    noise = jax.tree.map(jnp.asarray, CORRIDOR.noise(jax.random.key(0), ())).replace(event=jnp.float32(event))
    obs, state = CORRIDOR.reset(noise, level)
    seen, steps = [int(obs)], []
    for action in actions:
        obs, state, out = step_corridor(noise, state, jnp.int32(action), level)
        seen.append(int(obs))
        steps.append(jax.tree.map(lambda leaf: leaf.item(), out))
    return seen, steps


@pytest.mark.parametrize("random_positions", [False, True], ids=["tabular", "random positions"])
def test_every_step_agrees_with_the_reference(random_positions):
    env = GridWorld(5, 5, 3, 3, planes=random_positions, random_positions=random_positions)
    num_levels, num_collected = 12, 0
    keys = jax.random.split(jax.random.key(3), num_levels)
    levels = sample_crowded(keys)
    results = jax.device_get(play(env, keys, levels))
    for i in range(num_levels):
        level, (noises, actions, (obs, obs_after_reset, out)) = trees.index((levels, results), i)
        simulator = Simulator(Level.read(env, level), env.num_types, random_positions)
        observe = simulator.planes if random_positions else simulator.index
        simulator.reset(noises.placement[-1])
        for t in range(NUM_STEPS):
            step = simulator.step(int(actions[t]), float(noises.event[t]), noises.placement[t])
            np.testing.assert_allclose(step[0], out.reward[t], rtol=1e-6, err_msg=f"level {i}, step {t}")
            assert step[1:] == (out.terminated[t], out.truncated[t]), f"level {i}, step {t}"
            if not step[1]:
                np.testing.assert_array_equal(observe(), obs[t], err_msg=f"level {i}, step {t}")
            num_collected += step[0] != 0
            if step[1] or step[2]:
                simulator.reset(noises.placement[t])
                np.testing.assert_array_equal(observe(), obs_after_reset[t])
    assert num_collected > 200  # or else nothing was compared


def test_planes_show_the_same_state_as_the_index():
    tabular, planar = GridWorld(5, 5, 3, 3), GridWorld(5, 5, 3, 3, planes=True)
    keys = jax.random.split(jax.random.key(3), 12)
    levels = sample_crowded(keys)
    (*_, (index, _, _)), (*_, (planes, _, _)) = play(tabular, keys, levels), play(planar, keys, levels)
    cell, subset = np.asarray(index) % 25, np.asarray(index) // 25
    flat = np.asarray(planes).reshape(*index.shape, 25, 4)
    np.testing.assert_array_equal(flat[..., 0].argmax(axis=-1), cell)
    for k in range(3):
        np.testing.assert_array_equal(flat[..., 1 + k].sum(axis=-1), subset >> k & 1)


@pytest.mark.parametrize(
    ("action", "expected"),
    [(UP, 1), (DOWN, 7), (LEFT, 3), (RIGHT, 5), (STAY, 4)],
    ids=["up", "down", "left", "right", "stay"],
)
def test_action_moves_one_cell(action, expected):
    env = GridWorld(3, 3, 1, 1)
    level = corridor(object_cell=[-1]).replace(walls=jnp.zeros(9, bool), start=jnp.int32(4))

    @jax.jit
    def act(action):
        noise = env.noise(jax.random.key(0), ())
        return env.step(noise, env.reset(noise, level)[1], action, level)[1].cell

    assert act(jnp.int32(action)) == expected


@pytest.mark.parametrize("action", [UP, DOWN, LEFT], ids=["up", "down", "left"])
def test_border_stops_the_agent(action):
    assert walk(corridor(), [action])[0] == [3, 3]


def test_wall_stops_the_agent():
    assert walk(corridor(walls=[False, True, False]), [RIGHT])[0] == [3, 3]


def test_collected_object_pays_once_and_disappears():
    seen, steps = walk(corridor(), [RIGHT, RIGHT, STAY, LEFT])
    assert [step.reward for step in steps] == [0.0, 0.5, 0.0, 0.0]
    assert seen == [0 + 3, 1 + 3, 2, 2, 1]  # adding 3 cells x subset 1 while the object is there


def test_object_with_p_respawn_one_is_absent_for_exactly_one_observation():
    seen, steps = walk(corridor(p_respawn=[1.0]), [RIGHT, RIGHT, STAY, STAY, STAY])
    assert seen == [3, 4, 2, 5, 2, 5]
    assert [step.reward for step in steps] == [0.0, 0.5, 0.0, 0.5, 0.0]


def test_object_that_does_not_exist_is_never_seen_or_collected():
    seen, steps = walk(corridor(object_cell=[-1]), [RIGHT, RIGHT, STAY])
    assert seen == [0, 1, 2, 2]
    assert sum(step.reward for step in steps) == 0.0


def test_certain_termination_ends_the_episode_without_truncation():
    _, steps = walk(corridor(p_terminate=[1.0], max_steps=2), [RIGHT, RIGHT])
    assert (steps[1].reward, steps[1].terminated, steps[1].truncated) == (0.5, True, False)


def test_time_limit_truncates_without_termination():
    _, steps = walk(corridor(max_steps=2), [STAY, STAY])
    assert [(step.terminated, step.truncated) for step in steps] == [(False, False), (False, True)]


@pytest.mark.parametrize(("event", "terminated"), [(0.29, True), (0.31, False)])
def test_termination_compares_the_event_with_its_probability(event, terminated):
    assert walk(corridor(p_terminate=[0.3]), [RIGHT, RIGHT], event)[1][1].terminated is terminated


@pytest.mark.parametrize("p_terminate", [0.0, 0.6])
def test_reappearance_is_geometric_also_when_the_number_is_shared_with_termination(p_terminate):
    p_respawn, num_samples, last = 0.2, 20_000, 12
    level = corridor(p_terminate=[p_terminate], p_respawn=[p_respawn], max_steps=1000)

    @jax.jit
    @jax.vmap
    def observe_waiting(noise):
        _, state = CORRIDOR.reset(noise, level.replace(start=jnp.int32(2)))
        _, state, out = CORRIDOR.step(noise, state, jnp.int32(STAY), level)  # collects

        def stay(state, _):
            obs, state, _ = CORRIDOR.step(noise, state, jnp.int32(LEFT), level)
            return state, obs >= 3

        return out.terminated, jax.lax.scan(stay, state, length=last)[1]

    terminated, present = jax.device_get(observe_waiting(CORRIDOR.noise(jax.random.key(1), (num_samples,))))
    assert abs(terminated.mean() - p_terminate) < 0.02
    present = present[~terminated]
    waited = np.where(present.any(axis=1), present.argmax(axis=1), last)
    expected = [p_respawn * (1 - p_respawn) ** i for i in range(last)] + [(1 - p_respawn) ** last]
    observed = np.bincount(waited, minlength=last + 1)
    assert stats.chisquare(observed, len(waited) * np.array(expected)).pvalue > 0.001


def test_random_positions_are_uniform_over_free_cells_at_reset():
    env, level = hand_designed("rand_small", jax.random.key(0))
    noises = env.noise(jax.random.key(1), (10_000,))
    cells = np.asarray(jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(noises, level)[1].object_cell)
    for k in range(env.num_objects):
        counts = np.bincount(cells[:, k], minlength=49)
        assert counts[int(level.start)] == 0
        assert stats.chisquare(np.delete(counts, int(level.start))).pvalue > 0.001
    assert all(len(set(row)) == env.num_objects for row in cells[:200])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"num_types": 0}, "num_types must be at least 1"),
        ({"random_positions": True}, "needs planes=True"),
        ({"num_objects": 30}, "too many for a table"),
    ],
)
def test_wrong_setting_fails_at_construction(fields, message):
    with pytest.raises(ValueError, match=message):
        GridWorld(**fields)
