"""The hand-designed table: legality, and the numbers of the paper."""

import jax
import numpy as np
import pytest

from metadisco.envs.gridworld.hand_designed import HAND_DESIGNED, HandDesigned, ObjectKind, hand_designed
from tests.support.reference.gridworld import Level, assert_legal, distances

TABULAR = ("dense", "sparse", "long", "longer", "long_dense")


@pytest.mark.parametrize("name", HAND_DESIGNED)
def test_hand_designed_level_is_legal_and_fits_its_grid_world(name):
    env, level = hand_designed(name, jax.random.key(1))
    assert_legal(jax.tree.map(lambda leaf: np.asarray(leaf)[None], level))
    assert level.walls.shape == (env.num_cells,)
    assert level.object_cell.shape == (env.num_objects,)
    assert int(level.object_type.max()) == env.num_types - 1
    assert set(distances(Level.read(env, level))) == set(np.flatnonzero(~np.asarray(level.walls)))
    assert env.random_positions is (name not in TABULAR)


def test_hand_designed_levels_have_the_numbers_of_the_paper():
    _, dense = hand_designed("dense", jax.random.key(0))
    np.testing.assert_allclose(dense.reward, [1, 1, -1, -1])
    np.testing.assert_allclose(dense.p_terminate, [0, 0, 0.5, 0])
    np.testing.assert_allclose(dense.p_respawn, [0.05, 0.05, 0.1, 0.5])
    np.testing.assert_array_equal(dense.object_type, [0, 0, 1, 2])
    sizes = {name: (design.rows, design.columns, design.max_steps) for name, design in HAND_DESIGNED.items()}
    assert sizes["sparse"] == (13, 13, 50)
    assert sizes["longer"] == (7, 9, 2000)
    assert HAND_DESIGNED["longer"].env.spec.observation.num == 63 * 2**7


def test_key_moves_the_objects_of_a_hand_designed_level_and_nothing_else():
    (_, left), (_, right) = (hand_designed("long_dense", jax.random.key(seed)) for seed in (0, 1))
    assert (left.object_cell != right.object_cell).any()
    np.testing.assert_array_equal(left.walls, right.walls)


def test_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="choose from dense, sparse"):
        hand_designed("nowhere", jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"walls": "..\n.."}, "expected 2 lines of 3"),
        ({"walls": "###\n##."}, "1 free cells"),
        ({"objects": ()}, "objects is empty"),
        ({"max_steps": 0}, "max_steps must be"),
    ],
)
def test_wrong_design_fails_at_construction(fields, message):
    design = {"rows": 2, "columns": 3, "max_steps": 5, "objects": (ObjectKind(1.0, 0.0, 0.5),)}
    with pytest.raises(ValueError, match=message):
        HandDesigned(**{**design, **fields})
