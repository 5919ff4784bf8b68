"""Suites: fixed levels on which skill can show, with the exact anchors of their scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.core import trees
from metadisco.envs.gridworld.oracle import optimal_return, random_return
from metadisco.evaluation.suites import GROUPS, SUITES, same_levels, suite
from metadisco.evaluation.test_sets import MIN_RANGE, Generated, GridSuite
from tests.support import small

POOR = dataclasses.replace(small.LEVELS, reward=(0.0, 0.08))  # on many of these levels there is little to gain
SMALL = GridSuite("small", "for tests", (Generated(POOR),), num_levels=6, lifetime=4, seed=1)


@pytest.fixture(scope="module")
def built():
    return SMALL.build()


@jax.jit
def draw_and_solve(candidate):
    level = POOR.sample(jax.random.fold_in(jax.random.key(SMALL.seed), candidate))
    return level, random_return(POOR.env, level), optimal_return(POOR.env, level)


def test_the_first_levels_on_which_skill_can_show_are_kept(built):
    candidates = [draw_and_solve(candidate) for candidate in range(40)]
    qualified = [i for i, (_, low, high) in enumerate(candidates) if high - low >= MIN_RANGE][: built.num_tasks]
    assert qualified != list(range(built.num_tasks))  # the distribution has levels to leave out
    assert built.names == tuple(f"level-{i}" for i in qualified)
    levels, low, high = trees.stack([candidates[i] for i in qualified])
    small.assert_trees_close(built.tasks.level, levels)
    np.testing.assert_allclose(built.random_return, low, rtol=1e-5)
    np.testing.assert_allclose(built.upper_return, high, rtol=1e-5)


def test_a_smaller_build_is_a_prefix(built):
    first = SMALL.build(num_levels=2)
    assert first.names == built.names[:2]
    np.testing.assert_array_equal(first.upper_return, built.upper_return[:2])
    small.assert_trees_close(first.tasks, trees.index(built.tasks, jnp.arange(2)))


def test_another_lifetime_has_the_same_levels_and_says_so_in_its_name(built):
    longer = SMALL.build(lifetime=16)
    assert (built.name, longer.name) == ("small", "small@16")
    assert longer.lifetime == 16
    assert longer.tasks.lifetime.tolist() == [16] * 6
    small.assert_trees_close(longer.tasks.level, built.tasks.level)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("grid-unseen", "grid-unseen-long", True),
        ("grid-unseen@8", "grid-unseen-long@512", True),
        ("mine", "mine@8", True),
        ("grid-unseen", "grid-validation", False),
        ("grid-unseen", "mine", False),
        ("mine", "yours", False),
    ],
)
def test_suites_of_the_same_levels_are_known(first, second, same):
    assert same_levels(first, second) == same_levels(second, first) == same


def test_test_levels_are_not_validation_levels():
    unseen, validation = (suite(name).build(num_levels=2) for name in ("grid-unseen", "grid-validation"))
    assert unseen.env == validation.env
    assert not set(unseen.upper_return.tolist()) & set(validation.upper_return.tolist())


def test_seeds_differ():
    grids = [entry for entry in SUITES.values() if isinstance(entry, GridSuite)]
    seeds = [entry.seed for entry in grids if entry.name != "grid-unseen-long"]  # the same levels, by intent
    assert len(set(seeds)) == len(seeds)


def test_every_suite_but_the_grids_is_in_one_group():
    members = [member for group in GROUPS.values() for member in group]
    assert sorted(members) == sorted(name for name, entry in SUITES.items() if not isinstance(entry, GridSuite))
