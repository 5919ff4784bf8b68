"""Lifetimes and tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.curricula.tasks import FixedLifetime, LogUniformLifetime, Tasks, immutable_parts, undesignable_parts
from metadisco.envs.gridworld.hand_designed import HandDesigned, ObjectKind
from tests.support import small


def many(draw, num, *arguments):
    """Draws, in one program."""

    @jax.jit
    def drawn():
        return jax.vmap(lambda key: draw(key, *arguments))(jax.random.split(jax.random.key(0), num))

    return jax.device_get(drawn())


def test_the_logarithm_of_a_lifetime_is_uniform():
    lifetimes = np.asarray(many(LogUniformLifetime(10, 250).sample, 4000))
    assert lifetimes.min() >= 10
    assert lifetimes.max() <= 250
    spread = (np.log(lifetimes) - np.log(10)) / np.log(25)
    assert stats.kstest(spread, "uniform").statistic < 0.03  # rounding to whole updates alone gives 0.02
    np.testing.assert_allclose(np.mean(lifetimes), 240 / np.log(25), rtol=0.05)


def test_a_fixed_lifetime_is_fixed():
    assert FixedLifetime(7).sample(jax.random.key(0)) == 7


def test_level_and_lifetime_are_independent_draws():
    tasks = many(small.TASKS.sample, 200)
    correlation = np.corrcoef(tasks.lifetime, tasks.level.max_steps)[0, 1]
    assert abs(correlation) < 0.2


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedLifetime(0),
        lambda: FixedLifetime(2**31),
        lambda: LogUniformLifetime(0, 5),
        lambda: LogUniformLifetime(6, 5),
        lambda: LogUniformLifetime(6, 10**30),
    ],
)
def test_impossible_lifetimes_are_refused(make):
    with pytest.raises(ValueError, match="Lifetime"):
        make()


@pytest.mark.parametrize(("shortest", "longest"), [(1, 5), (10, 250)])
def test_mutated_lifetimes_stay_in_range_and_reach_both_ends(shortest, longest):
    lifetimes = LogUniformLifetime(shortest, longest)

    def mutate(parents, key):
        children = jax.vmap(lifetimes.mutate)(jax.random.split(key, 50), parents)
        return children, children

    @jax.jit
    def mutations():
        start = jnp.full(50, (shortest + longest) // 2, jnp.int32)
        return jax.lax.scan(mutate, start, jax.random.split(jax.random.key(0), 200))[1]

    history = np.asarray(mutations())
    assert history.dtype == jnp.int32
    assert (history.min(), history.max()) == (shortest, longest)


def test_a_mutated_lifetime_changes_by_at_most_a_tenth_of_the_logarithmic_range():
    children = many(LogUniformLifetime(10, 1000).mutate, 500, jnp.int32(100))
    bound = 100 ** (0.1)
    assert children.min() >= np.floor(99.5 / bound)
    assert children.max() <= np.ceil(100.5 * bound)
    assert abs(np.log(children).mean() - np.log(100)) < 0.05


def test_a_fixed_lifetime_mutates_into_itself():
    assert FixedLifetime(7).mutate(jax.random.key(0), jnp.int32(7)) == 7


def test_a_mutated_task_differs_in_level_and_lifetime_independently():
    task = jax.jit(small.TASKS.sample)(jax.random.key(3))
    children = many(small.TASKS.mutate, 200, task)
    longer = children.lifetime > task.lifetime
    moved = children.level.start != task.level.start
    assert 0 < (longer & moved).sum() < min(longer.sum(), moved.sum())
    assert jax.eval_shape(small.TASKS.mutate, jax.random.key(1), task) == jax.eval_shape(lambda: task)


def test_parts_that_cannot_mutate_are_named():
    fixed = HandDesigned(3, 3, 5, (ObjectKind(1.0, 0.1, 0.1),))
    assert immutable_parts(small.TASKS) == []
    assert immutable_parts(Tasks(fixed)) == ["HandDesigned"]


def test_a_lifetime_is_chosen_by_its_bin():
    design = LogUniformLifetime(10, 250).design(num_bins=4)
    step, uniforms = np.int32(0), np.linspace(0.0, 0.999, 50, dtype=np.float32)
    edges = 10 * 25 ** (np.arange(5) / 4)

    def lifetime(option, uniform):
        return design.finish(design.place(design.begin(), step, option, uniform))

    lifetimes_of = jax.jit(jax.vmap(lifetime, in_axes=(None, 0)))
    for option in range(4):
        lifetimes = np.asarray(lifetimes_of(np.int32(option), uniforms))
        assert (lifetimes.min(), lifetimes.max()) == (round(edges[option]), round(edges[option + 1]))


@pytest.mark.parametrize("lifetimes", [FixedLifetime(7), LogUniformLifetime(7, 7)])
def test_a_lifetime_that_does_not_vary_is_no_choice(lifetimes):
    design = lifetimes.design(num_bins=4)
    assert design.options(design.begin(), jnp.int32(0)).tolist() == [True]
    assert design.finish(design.place(design.begin(), jnp.int32(0), jnp.int32(0), jnp.float32(0.9))) == 7


def test_the_design_of_a_task_goes_on_with_the_lifetime_after_the_level():
    design = small.TASKS.design(num_bins=5)
    level, lifetime = design.begin()
    last = jnp.int32(design.num_steps - 1)
    options, place = jax.jit(design.options), jax.jit(design.place)
    assert options((level, lifetime), last).tolist() == [True] * 5 + [False] * 11
    assert options((level, lifetime), jnp.int32(2)).tolist() == [True] * 16  # walls, anywhere
    placed = place((level, lifetime), last, jnp.int32(4), jnp.float32(0.99))
    small.assert_trees_close(placed[0], level)
    assert placed[1] > 0.9
    small.assert_trees_close(place(placed, jnp.int32(2), jnp.int32(4), jnp.float32(0.5))[1], placed[1])
    assert jax.eval_shape(design.finish, placed) == jax.eval_shape(small.TASKS.sample, jax.random.key(0))


def test_parts_that_cannot_be_designed_are_named():
    fixed = HandDesigned(3, 3, 5, (ObjectKind(1.0, 0.1, 0.1),))
    assert undesignable_parts(small.TASKS) == []
    assert undesignable_parts(Tasks(fixed)) == ["HandDesigned"]
