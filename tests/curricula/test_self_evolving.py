"""Self-Evolving Curriculum: the values of the arms, how they are drawn from, and that the best one is found again."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.core import config
from metadisco.core.types import Task
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.self_evolving import ArmState, SelfEvolvingCurriculum
from metadisco.curricula.tasks import FixedLifetime, TaskMixture, Tasks
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gridworld.levels import EmbeddedLevels, GridLevels
from tests.support import small
from tests.support.small import TASKS, assert_trees_close


@dataclass(frozen=True)
class Kind:
    """Tasks that are random numbers above a number of their own."""

    number: int

    def sample(self, key):
        return Task(self.number + jax.random.uniform(key), jnp.int32(3))


ARMS = SelfEvolvingCurriculum(TaskMixture((Kind(0), Kind(1), Kind(2))), learning_rate=0.3, temperature=0.5)
propose = jax.jit(lambda curriculum, *rest: curriculum.propose(*rest), static_argnums=(0, 3))
observe = jax.jit(
    lambda curriculum, *rest: curriculum.observe(jax.random.key(0), *rest), static_argnums=0
)  # the key is not used
VALUES = ArmState(jnp.array([0.2, -1.0, 0.7]))
BEGUN = ARMS.init(jax.random.key(0))


def test_values_are_those_of_a_slow_bandit():
    state, values, rng = BEGUN, np.zeros(3), np.random.default_rng(0)
    for step in range(8):
        _, proposal = propose(ARMS, jax.random.key(step), state, 7)
        scores = rng.normal(size=7).astype(np.float32)
        scores[rng.random(7) < 0.2] = np.nan
        finished = rng.random(7) < 0.7
        state, metrics = observe(ARMS, state, proposal, jnp.asarray(scores), jnp.asarray(finished))
        for arm in range(3):
            told = [s for s, c, f in zip(scores, proposal.notes, finished) if c == arm and f and np.isfinite(s)]
            if told:
                values[arm] = 0.3 * np.mean(told) + 0.7 * values[arm]
        np.testing.assert_allclose(state.value, values, rtol=1e-5, atol=1e-6)
        weights = np.exp(values / 0.5)
        np.testing.assert_allclose([metrics[f"arm_{arm}_prob"] for arm in range(3)], weights / weights.sum(), rtol=1e-5)
        assert metrics["nonfinite_scores"] == np.sum(finished & np.isnan(scores))


def test_tasks_are_of_the_arm_that_was_drawn():
    _, proposal = propose(ARMS, jax.random.key(0), VALUES, 64)
    np.testing.assert_array_equal(np.floor(proposal.tasks.level), proposal.notes)


def test_arms_have_the_frequencies_of_their_probabilities():
    _, proposal = propose(ARMS, jax.random.key(0), VALUES, 4000)
    weights = np.exp(np.asarray(VALUES.value, np.float64) / 0.5)
    expected = 4000 * weights / weights.sum()
    assert stats.chisquare(np.bincount(proposal.notes, minlength=3), expected).pvalue > 1e-3


def test_equal_rewards_give_a_uniform_choice():
    state = BEGUN
    for step in range(3):
        _, proposal = propose(ARMS, jax.random.key(step), state, 60)
        state, metrics = observe(ARMS, state, proposal, np.full(60, 0.8, np.float32), np.ones(60, bool))
    np.testing.assert_allclose(ARMS.probabilities(state), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["arm_entropy"], np.log(3), rtol=1e-6)


def test_one_arm_is_the_plain_loop_of_that_arm():
    alone = SelfEvolvingCurriculum(TaskMixture((TASKS,)))
    _, ours = propose(alone, jax.random.key(4), alone.init(jax.random.key(0)), 5)
    plain = propose(DomainRandomization(TASKS), jax.random.key(4), (), 5)[1]
    assert_trees_close(ours.tasks, plain.tasks, rtol=1e-6)


@pytest.mark.slow
def test_one_arm_trains_the_objective_as_the_plain_loop_does():
    runs = (
        small.altered(small.trainer(), curriculum=each)
        for each in (SelfEvolvingCurriculum(TaskMixture((TASKS,))), DomainRandomization(TASKS))
    )
    ours, plain = (jax.jit(run.step)(jax.random.key(3), run.init(jax.random.key(0)))[0].meta for run in runs)
    assert_trees_close(ours, plain, rtol=1e-6)


def test_an_arm_on_which_no_life_finished_keeps_its_value():
    _, proposal = propose(ARMS, jax.random.key(0), VALUES, 20)
    finished = np.asarray(proposal.notes) == 2
    state, _ = observe(ARMS, VALUES, proposal, np.ones(20, np.float32), finished)
    before, after = np.asarray(VALUES.value), np.asarray(state.value)
    np.testing.assert_array_equal(after[:2], before[:2])
    assert after[2] > before[2]


def follow(curriculum, best_arms, steps=40):
    """Share of the best arm at the end of each phase, where only that arm pays."""
    state, shares, rng = curriculum.init(jax.random.key(0)), [], np.random.default_rng(0)
    for phase, best in enumerate(best_arms):
        for step in range(steps):
            key = jax.random.fold_in(jax.random.key(phase), step)
            _, proposal = propose(curriculum, key, state, 12)
            scores = (np.asarray(proposal.notes) == best) + 0.3 * rng.standard_normal(12)
            state, _ = observe(curriculum, state, proposal, scores.astype(np.float32), np.ones(12, bool))
        shares.append(float(np.asarray(curriculum.probabilities(state))[best]))
    return shares


def test_the_best_arm_is_found_and_followed_when_another_becomes_the_best():
    assert min(follow(replace(ARMS, temperature=0.3), (0, 2, 1))) > 0.7


def test_at_a_high_temperature_nothing_is_followed():
    assert max(follow(replace(ARMS, temperature=100.0), (0, 2))) < 0.35


@pytest.mark.parametrize("change", [{"learning_rate": 0.9}, {"temperature": 2.0}], ids=str)
def test_every_setting_matters(change):
    curriculum = replace(ARMS, **change)
    _, proposal = propose(ARMS, jax.random.key(0), BEGUN, 12)
    scores = np.asarray(proposal.notes, np.float32)
    ours, theirs = (observe(each, BEGUN, proposal, scores, np.ones(12, bool))[0] for each in (ARMS, curriculum))
    assert np.max(np.abs(np.asarray(ARMS.probabilities(ours)) - curriculum.probabilities(theirs))) > 0.05


def test_the_tasks_matter():
    other = replace(ARMS, tasks=TaskMixture((Kind(3), Kind(4), Kind(5))))
    assert (np.asarray(propose(other, jax.random.key(0), BEGUN, 9)[1].tasks.level) > 3).all()


def test_many_seeds_at_once_do_what_each_does_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    states = ArmState(jnp.stack([VALUES.value, BEGUN.value, -VALUES.value]))
    together = jax.jit(jax.vmap(partial(ARMS.propose, num_tasks=5)))(keys, states)[1]
    for i in range(3):
        alone = propose(ARMS, keys[i], ArmState(states.value[i]), 5)[1]
        assert_trees_close(jax.tree.map(lambda leaf: leaf[i], jax.device_get(together)), alone)  # noqa: B023


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SelfEvolvingCurriculum(TASKS), "TaskMixture"),
        (lambda: replace(ARMS, learning_rate=0.0), "learning_rate must be above 0"),
        (lambda: replace(ARMS, learning_rate=1.5), "at most 1"),
        (lambda: replace(ARMS, temperature=0.0), "temperature must be above 0"),
        (lambda: replace(ARMS, temperature=float("nan")), "temperature must be above 0"),
        (lambda: TaskMixture(()), "parts is empty"),
        (lambda: TaskMixture((TASKS, Kind(0))), "absent in part 1"),
        (
            lambda: TaskMixture((TASKS, Tasks(GridLevels(max_side=5, num_walls=2, max_objects=2)))),
            r"bool\[16\] in part 0 and bool\[25\] in part 1; use.*EmbeddedLevels",
        ),
        (lambda: EmbeddedLevels(GridLevels(), GridWorld(4, 4, 5, 5)), "does not fit"),
        (lambda: EmbeddedLevels(small.LEVELS, replace(GridLevels().env, planes=True)), "same `planes`"),
        (lambda: EmbeddedLevels(small.LEVELS, GridWorld(9, 9, 3, 1)), "object types"),
    ],
)
def test_what_cannot_work_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_smaller_levels_can_be_an_arm():
    smaller = EmbeddedLevels(GridLevels(min_side=3, max_side=3, num_walls=2, max_objects=1), small.LEVELS.env)
    curriculum = SelfEvolvingCurriculum(TaskMixture((TASKS, Tasks(smaller, FixedLifetime(2)))))
    proposal = jax.device_get(propose(curriculum, jax.random.key(0), curriculum.init(jax.random.key(0)), 30)[1])
    is_small = proposal.notes == 1
    assert 0 < is_small.sum() < 30
    free = (~proposal.tasks.level.walls).sum(axis=1)
    assert (free[is_small] == 7).all()
    assert (proposal.tasks.lifetime[is_small] == 2).all()
    outside = proposal.tasks.level.walls.reshape(30, 4, 4)[is_small]
    assert outside[:, 3].all()
    assert outside[:, :, 3].all()


def test_a_mixture_draws_its_parts_alike():
    draw = jax.jit(jax.vmap(ARMS.tasks.sample))
    parts = np.floor(draw(jax.random.split(jax.random.key(0), 3000)).level).astype(int)
    assert stats.chisquare(np.bincount(parts, minlength=3)).pvalue > 1e-3


def test_it_survives_json():
    curriculum = SelfEvolvingCurriculum(TaskMixture((TASKS, Tasks(small.LEVELS, FixedLifetime(9)))))
    assert config.from_data(config.to_data(curriculum)) == curriculum
