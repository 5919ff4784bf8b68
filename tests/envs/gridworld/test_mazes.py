"""Mazes: well-formed, solvable and long."""

import jax
import numpy as np
import pytest

from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.mazes import MAZES, maze, parse_ascii
from metadisco.envs.gridworld.oracle import optimal_return
from metadisco.envs.gridworld.rendering import render_ascii
from tests.support.reference.gridworld import Level, distances

solve = jax.jit(optimal_return, static_argnums=0)


def test_there_are_at_least_ten_different_mazes():
    assert len(set(MAZES.values())) == len(MAZES) >= 10


@pytest.mark.parametrize("name", MAZES)
def test_maze_has_13x13_cells(name):
    env, level = maze(name)
    assert (env.rows, env.columns) == (13, 13)
    assert level.walls.shape == (169,)


@pytest.mark.parametrize("name", MAZES)
def test_goal_is_reachable_in_time_and_not_near(name):
    steps = distances(Level.read(*maze(name)))[int(maze(name)[1].object_cell[0])]
    assert 10 < steps < 250


@pytest.mark.parametrize("name", MAZES)
def test_best_return_is_one(name):
    np.testing.assert_allclose(solve(*maze(name)), 1.0, rtol=1e-6)


def test_goal_cannot_be_reached_with_less_time_than_the_shortest_path():
    steps = distances(Level.read(*maze("zigzag")))[168]
    assert steps == 96
    assert solve(*maze("zigzag", max_steps=95)) == 0.0
    assert solve(*maze("zigzag", max_steps=96)) == 1.0


def test_parsed_drawing_renders_to_itself():
    text = "S.#\n..G"
    rendered = render_ascii(GridWorld(2, 3, 1, 1), parse_ascii(text))
    assert rendered == text.replace("S", "A").replace("G", "+")


def test_parsed_goal_ends_the_episode_with_reward_one():
    level = parse_ascii("S.G", max_steps=7)
    assert (int(level.start), level.object_cell.tolist(), int(level.max_steps)) == (0, [2], 7)
    assert (level.reward.tolist(), level.p_terminate.tolist(), level.p_respawn.tolist()) == ([1.0], [1.0], [0.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S.\nG", "equal length"),
        ("S.GX", "drawn with"),
        ("..G", "exactly one start"),
        ("SGG", "exactly one goal"),
        ("", "equal length"),
    ],
)
def test_wrong_drawing_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_ascii(text)


def test_maze_without_time_is_refused():
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        parse_ascii("S.G", max_steps=0)


def test_unknown_maze_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="choose from sixteen_rooms"):
        maze("nowhere")
