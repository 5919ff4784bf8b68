"""Mutations of grid-world levels: thousands of them stay legal, and each edit does what its name says."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core import trees
from metadisco.envs.gridworld import mutation
from metadisco.envs.gridworld.dynamics import GridLevel
from metadisco.envs.gridworld.features import object_distance
from metadisco.envs.gridworld.levels import GridLevels
from tests.support.reference.gridworld import Level, assert_legal, distances

PAPER = GridLevels()
CROWDED = GridLevels(min_side=4, max_side=4, num_walls=9, max_objects=5, min_objects=2, max_steps=(5, 9))
REACHABLE = dataclasses.replace(CROWDED, reachable=True)


@partial(jax.jit, static_argnums=(0, 1, 2))
def lineages(levels, num_levels, num_generations):
    """Levels of every generation, [generations + 1, levels, ...]."""
    keys = jax.random.split(jax.random.key(3), num_levels + num_generations)
    first = jax.vmap(levels.sample)(keys[:num_levels])

    def mutate(parents, key):
        children = jax.vmap(levels.mutate)(jax.random.split(key, num_levels), parents)
        return children, children

    _, later = jax.lax.scan(mutate, first, keys[num_levels:])
    return jax.tree.map(lambda one, many: jnp.concatenate([one[None], many]), first, later)


@pytest.fixture(scope="module", params=[PAPER, CROWDED, REACHABLE], ids=["paper", "crowded", "reachable"])
def family(request):
    return request.param, jax.device_get(lineages(request.param, 40, 100))


def flatten(history):
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), history)


def room_sides(levels, side):
    reach = np.maximum(*np.divmod(np.arange(side**2), side))
    return np.max(np.where(levels.walls, 0, reach + 1), axis=-1)


def test_mutated_levels_are_legal(family):
    assert_legal(flatten(family[1]))


def test_mutated_levels_keep_their_number_of_objects_in_range_and_existing_ones_first(family):
    levels, history = family
    exists = history.object_cell >= 0
    assert (exists[..., :-1] >= exists[..., 1:]).all()
    assert exists.sum(-1).min() == levels.min_objects
    assert exists.sum(-1).max() == levels.max_objects


def test_mutated_levels_keep_their_parameters_in_range(family):
    levels, history = family
    exists = history.object_cell >= 0
    assert (history.reward[..., 0] >= 0).all()
    for name in ("reward", "p_terminate", "p_respawn"):
        low, high = np.float32(getattr(levels, name))
        values = getattr(history, name)[exists]
        assert low <= values.min() <= values.max() <= high
    assert levels.max_steps[0] <= history.max_steps.min() <= history.max_steps.max() <= levels.max_steps[1]


def test_mutated_levels_stay_inside_their_room(family):
    levels, history = family
    sides = np.maximum(room_sides(history, levels.max_side), levels.min_side)
    assert (np.diff(sides, axis=0) <= 0).all()  # it can look smaller where a whole edge is wall
    inside = np.maximum(*np.divmod(np.arange(levels.max_side**2), levels.max_side)) < sides[..., None]
    assert (history.walls & inside).sum(-1).max() <= levels.num_walls


def test_mutation_keeps_shapes_and_types(family):
    levels, history = family
    before = jax.eval_shape(levels.sample, jax.random.key(0))
    after = jax.eval_shape(levels.mutate, jax.random.key(0), before)
    assert after == before
    assert (history.object_type == np.arange(levels.max_objects)).all()


@pytest.mark.parametrize("name", sorted({field.name for field in dataclasses.fields(GridLevel)} - {"object_type"}))
def test_every_field_is_changed_in_the_end(family, name):
    values = getattr(family[1], name).reshape(101, 40, -1)
    assert (values != values[0]).any(axis=(0, 2)).mean() > 0.9


def test_reachable_levels_stay_reachable():
    levels = flatten(jax.device_get(lineages(REACHABLE, 40, 100)))
    for i in range(0, levels.start.shape[0], 7):
        level = Level.read(REACHABLE.env, trees.index(levels, i))
        assert any(cell in distances(level) for cell in level.object_cell)


def test_objects_that_have_to_be_far_stay_far():
    far = dataclasses.replace(CROWDED, min_distance=2)
    levels = flatten(jax.device_get(lineages(far, 40, 100)))
    distance = jax.jit(jax.vmap(lambda level: object_distance(far.env, level, level.object_cell >= 0)))
    away = np.asarray(distance(jax.tree.map(lambda leaf: leaf[::7], levels)))
    assert ((away >= 2) & (away < np.inf)).all()


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, None))
def edit_level(rules, uniforms, level):
    return mutation.edit_level(rules, uniforms, level)


def edited(edit, level):
    """Children of a level that `edit` accepts, among 23 whose first random number, which chooses the edit, differs."""
    rules = mutation.LevelRules(10, 4, 15, 1, (20, 750), (-1.0, 1.0), (0.01, 1.0), (0.001, 0.1))
    places = np.linspace(0.0, 0.999, 23)
    rest = [0.4, 0.7, 0.9, 0.3, 0.6, 0.2]
    uniforms = np.array([[place, *rest] for place in places], np.float32)
    made = jax.device_get(edit_level(rules, uniforms, level))
    children = [trees.index(made, i) for i in range(len(places))]
    changes = {"walls", "start", "object_cell", "reward", "p_terminate", "p_respawn", "max_steps"}
    kinds = [{name for name in changes if (getattr(level, name) != getattr(child, name)).any()} for child in children]
    return [child for child, kind in zip(children, kinds) if edit(child, kind)]


@pytest.fixture(scope="module")
def parent():
    """Three objects in a room of side 10 with fewer walls than are allowed, so that every edit is possible."""
    levels = dataclasses.replace(PAPER, min_side=10, num_walls=8, min_objects=3, max_objects=3)
    level = jax.device_get(jax.jit(levels.sample)(jax.random.key(1)))
    pad = {"object_cell": -1, "reward": 0, "p_terminate": 0, "p_respawn": 0}
    padded = {name: np.pad(getattr(level, name), (0, 2), constant_values=value) for name, value in pad.items()}
    return level.replace(object_type=np.arange(5, dtype=np.int32), **padded)


OBJECT = {"object_cell", "reward", "p_terminate", "p_respawn"}
EDITS = {
    "move_wall": lambda parent, child, kind: kind == {"walls"} and child.walls.sum() == parent.walls.sum(),
    "add_wall": lambda parent, child, kind: kind == {"walls"} and child.walls.sum() == parent.walls.sum() + 1,
    "remove_wall": lambda parent, child, kind: kind == {"walls"} and child.walls.sum() == parent.walls.sum() - 1,
    "move_object": lambda parent, child, kind: (
        kind == {"object_cell"} and (child.object_cell != parent.object_cell).sum() == 1
    ),
    "add_object": lambda parent, child, kind: (
        kind == OBJECT and (child.object_cell[:3] == parent.object_cell[:3]).all()
    ),
    "remove_object": lambda parent, child, kind: kind == OBJECT and (child.object_cell >= 0).sum() == 2,
    "move_start": lambda parent, child, kind: kind == {"start"},
    "perturb_reward": lambda parent, child, kind: kind == {"reward"} and (child.reward != parent.reward).sum() == 1,
    "perturb_p_terminate": lambda parent, child, kind: kind == {"p_terminate"},
    "perturb_p_respawn": lambda parent, child, kind: kind == {"p_respawn"},
    "perturb_max_steps": lambda parent, child, kind: kind == {"max_steps"},
}


@pytest.mark.parametrize("name", EDITS)
def test_each_edit_changes_one_thing(parent, name):
    children = edited(partial(EDITS[name], parent), parent)
    assert len(children) in (2, 3)  # 23 places for 11 edits: each is equally likely


def test_removing_an_object_moves_the_last_one_into_its_place(parent):
    (child, *_) = edited(partial(EDITS["remove_object"], parent), parent)
    removed = 2 if (child.object_cell[:2] == parent.object_cell[:2]).all() else 1
    kept = [k for k in range(3) if k != removed]
    np.testing.assert_array_equal(sorted(child.reward[:2]), sorted(parent.reward[np.array(kept)]))
    assert child.reward[0] == parent.reward[0]


def test_impossible_edits_are_never_drawn():
    """Without walls, with all its objects and all ranges a single point, a level can only rearrange its cells."""
    levels = GridLevels(
        min_side=4,
        max_side=4,
        num_walls=0,
        min_objects=2,
        max_objects=2,
        max_steps=(9, 9),
        reward=(0.5, 0.5),
        p_terminate=(0.1, 0.1),
        p_respawn=(0.1, 0.1),
    )
    history = jax.device_get(lineages(levels, 20, 20))
    moved = (np.diff(history.object_cell, axis=0) != 0).any(-1) | (np.diff(history.start, axis=0) != 0)
    assert moved.all()


@pytest.mark.parametrize(("value", "step", "expected"), [(0.9, 0.2, 0.7), (-0.9, -0.1, -0.9), (0.0, 0.1, 0.2)])
def test_a_perturbation_is_a_share_of_the_range_reflected_at_the_ends(value, step, expected):
    moved = mutation._step(jnp.float32(value), jnp.float32(step), -1.0, 1.0)
    assert float(moved) == pytest.approx(expected, abs=1e-6)
