"""Scores of levels: each against its formula, under evolution and by meta-gradients."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import SGD
from metadisco.core.keys import KeyPurpose
from metadisco.core.types import Outcome
from metadisco.curricula.accel import ACCEL
from metadisco.curricula.fixed import DrawnTasks, FixedSet
from metadisco.curricula.paired import PAIRED
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.envs.gridworld import oracle
from metadisco.lives.critic import Critic, CriticOutput
from metadisco.lives.learner import Learner
from metadisco.lives.life import InitialCondition
from metadisco.lives.normalization import Normalizer
from metadisco.lives.tuned import TABLE_A2C, TABLE_A2C_LEARNER
from metadisco.meta_training import level_scores
from metadisco.meta_training.antagonists import Expert, LearningAntagonist, RandomPolicy
from metadisco.meta_training.domain import of_better
from metadisco.meta_training.level_scores import (
    Evidence,
    L1ValueLoss,
    Learnability,
    MaxMC,
    NormalizedScore,
    PositiveValueLoss,
    Regret,
    Return,
    Uniform,
    score_lives,
    trained_antagonist,
)
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.lpg import LPG
from tests.support import remembering, small, two_states

SCORES = (
    Return(),
    Uniform(),
    Regret(),
    Regret(RandomPolicy()),
    Regret(Expert()),
    L1ValueLoss(),
    PositiveValueLoss(),
    MaxMC(),
    Learnability(),
    NormalizedScore(Regret()),
)
ONES = np.ones(4, np.float32)
INNER = small.inner_loop(two_states.Linear(), critic=Critic())  # what is learned does not matter here
# Where no oracle is asked, lives are those of the smallest environment, whose programs compile in a third of the time.
TINY = two_states.inner_loop()
TINY_CURRICULUM = DomainRandomization(remembering.ShortLives())
LIVE = jax.jit(partial(TINY.live, slots=4))
EVALUATE = jax.jit(partial(TINY.evaluate, slots=4))
REPLAY = PrioritizedLevelReplay(small.TASKS, capacity=8, replay_probability=1.0, fill_before_replay=0.5)
CURRICULA = (
    DomainRandomization(small.TASKS),
    FixedSet(DrawnTasks(small.TASKS, num_levels=5)),
    PAIRED(small.TASKS, network=MLP((8,)), num_bins=3),
    REPLAY,
    replace(REPLAY, robust=True),
    ACCEL(REPLAY),
)


def evidence(**change):
    critic_output = CriticOutput(
        value=jnp.array([[1.0, 2.0], [0.0, -1.0]]),
        advantage=jnp.array([[1.0, -3.0], [0.0, 2.0]]),
        best_return=jnp.asarray(2.5),
    )
    returns = jnp.array([0.0, 1.0, 2.0, -1.0])
    return replace(Evidence(jax.random.key(0), task_of(1), returns, jnp.asarray(3.0), critic_output), **change)


@partial(jax.jit, static_argnums=(0, 1))
def task_of(num, seed=0):
    """The first of some tasks."""
    return jax.tree.map(lambda leaf: leaf[0], small.initials(num, seed).task)


def assess(inner, lives):
    return jax.vmap(lambda life: inner.assess(life, inner.act(life, KeyPurpose.VALIDATE)[0]))(lives)


@jax.jit
def tiny_initials():
    return InitialCondition(jax.random.split(jax.random.key(1), 4), remembering.tasks([5, 1, 3, 2]))


_score = jax.jit(lambda score, known: score.score(known), static_argnums=0)
optimal_return = jax.jit(partial(oracle.optimal_return, small.LEVELS.env))
random_return = jax.jit(partial(oracle.random_return, small.LEVELS.env))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (Return(), (0 + 1 + 2 - 1) / 4),
        (Regret(), 3 - (0 + 1 + 2 - 1) / 4),
        (L1ValueLoss(), (1 + 3 + 0 + 2) / 4),
        (PositiveValueLoss(), (1 + 0 + 0 + 2) / 4),
        (MaxMC(), 2.5 - (1 + 2 + 0 - 1) / 4),
        (Learnability(), 2 / 4 * 2 / 4),
        (Learnability(threshold=-0.5), 3 / 4 * 1 / 4),
        (Learnability(threshold=5.0), 0.0),
    ],
    ids=repr,
)
def test_a_score_is_its_formula(score, expected):
    np.testing.assert_allclose(_score(score, evidence()), expected, rtol=1e-6)


def test_uniform_scores_are_uniform_and_know_nothing_of_the_life():
    draw = jax.jit(jax.vmap(lambda key: Uniform().score(evidence(key=key))))
    scores = draw(jax.random.split(jax.random.key(0), 4000))
    counts, _ = np.histogram(scores, 10, (0, 1))
    assert np.sum((counts - 400) ** 2 / 400) < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
    key = jax.random.key(5)
    one, other = (_score(Uniform(), known) for known in (evidence(key=key), evidence(key=key, episode_return=ONES)))
    assert one == other


@pytest.mark.parametrize("score", [L1ValueLoss(), PositiveValueLoss(), MaxMC()], ids=repr)
def test_scores_of_values_need_a_critic(score):
    with pytest.raises(ValueError, match="critic"):
        score.score(evidence(critic_output=None))
    for build in (trainer, gradient_trainer):
        with pytest.raises(ValueError, match=r"critic"):
            small.altered(build(score), inner=small.inner_loop())


def test_the_expert_gets_what_is_optimal():
    initials = small.initials(3)
    expected = jax.jit(jax.vmap(partial(oracle.optimal_return, small.LEVELS.env)))(initials.task.level)
    found = jax.jit(jax.vmap(partial(Expert().expected_return, INNER)))(initials.key, initials.task)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_random_policy_gets_about_what_it_should():
    task = task_of(1, 3)
    inner = replace(INNER, num_test_workers=4000)
    found = jax.jit(partial(RandomPolicy().expected_return, inner))(jax.random.key(0), task)
    expected = random_return(task.level)
    assert abs(found - expected) < 0.1
    assert abs(expected) > 0.2


def test_an_antagonist_lives_as_the_agents_do_but_for_its_rule():
    antagonist = LearningAntagonist(A2C(gamma=0.5), Learner(SGD(3.0), SGD(2.0)))
    lives = trained_antagonist(Regret(antagonist), INNER)
    assert lives == replace(INNER, objective=A2C(gamma=0.5), learner=Learner(SGD(3.0), SGD(2.0)), critic=None)
    assert trained_antagonist(Regret(Expert()), INNER) is trained_antagonist(Return(), INNER) is None


def test_an_antagonist_with_meta_parameters_is_refused():
    with pytest.raises(ValueError, match="without meta-parameters"):
        LearningAntagonist(objective=LPG(width=4))


def test_where_there_is_no_oracle_the_expert_is_refused():
    with pytest.raises(ValueError, match=r"oracle.*LearningAntagonist"):
        small.altered(trainer(Regret(Expert())), inner=replace(INNER, env=two_states.TwoStates()))


def test_planes_do_not_take_the_oracle_away_but_random_positions_do():
    grid = replace(small.LEVELS.env, planes=True)
    assert oracle.tabular(grid) == small.LEVELS.env
    with pytest.raises(ValueError, match="random_positions"):
        oracle.tabular(replace(grid, random_positions=True))


def test_the_better_life_of_each_pair_is_scored():
    fitness = jnp.array([[1.0, jnp.nan, 0.0, jnp.nan], [2.0, -5.0, -1.0, jnp.inf]])
    score = jnp.array([[10.0, 20.0, 30.0, jnp.nan], [11.0, 21.0, 31.0, jnp.nan]])
    outcomes = Outcome(fitness, jnp.ones((2, 4), jnp.int32), {}, score)
    np.testing.assert_array_equal(jax.jit(of_better)(outcomes), [11.0, 21.0, 30.0, jnp.nan])


def test_nobody_is_scored_who_was_not_chosen_or_diverged():
    lives = jax.jit(jax.vmap(INNER.begin))(small.initials(3).key, small.initials(3).task)
    returns = jnp.array([[1.0, 3.0], [1.0, jnp.nan], [1.0, 1.0]])
    chosen = jnp.array([True, True, False])
    scores = jax.jit(partial(score_lives, Return(), INNER))(lives, returns, jnp.zeros(3), None, chosen)
    np.testing.assert_array_equal(scores, [2.0, jnp.nan, jnp.nan])


def trainer(score=Return()):
    return small.altered(small.trainer(), inner=INNER, curriculum=REPLAY, score=score)


def gradient_trainer(score=Return(), **options):
    return small.gradient_trainer(INNER, score=score, **({"curriculum": REPLAY} | options))


# Scores, curricula and trainers do not know each other, so that all of them are seen without every combination. The
# first ones have each curriculum, with one trainer and the other in turn; a score alone is in the tests above, too.
PAIRS = list(zip(SCORES, itertools.cycle(CURRICULA)))
FITS = [
    pytest.param(*pair, build, marks=[] if i < len(CURRICULA) and i % 2 == j else [pytest.mark.slow])
    for i, pair in enumerate(PAIRS)
    for j, build in enumerate((trainer, gradient_trainer))
]


@pytest.mark.parametrize(("score", "curriculum", "build"), FITS, ids=lambda each: getattr(each, "__name__", repr(each)))
def test_every_score_and_every_curriculum_fit_both_meta_optimizers(score, curriculum, build):
    run = small.altered(build(score), curriculum=curriculum)
    key = jax.eval_shape(jax.random.key, 0)
    before = jax.eval_shape(run.init, key)
    after, metrics = jax.eval_shape(run.step, key, before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert {"score", "fitness", "env_steps"} <= set(metrics)


def test_every_score_is_finite_for_lives_that_were_lived():
    @jax.jit
    def scores(population, initials):
        lives, _ = INNER.live(population, initials, slots=4)
        returns, critic_outputs, chosen = INNER.evaluate(lives, slots=4), assess(INNER, lives), jnp.ones(4, bool)
        return [score_lives(score, INNER, lives, returns, jnp.ones(4), critic_outputs, chosen) for score in SCORES]

    found = np.array(scores(small.population(INNER.objective, 4), small.initials(4)))
    assert np.isfinite(found).all()
    assert len({tuple(row) for row in found.round(5)}) == len(SCORES)  # no two of them are the same


@pytest.mark.parametrize("run", [trainer(Regret()), gradient_trainer(MaxMC())], ids=["evolution", "gradient"])
@pytest.mark.slow
def test_scores_fill_the_buffer_whoever_improves_the_objective(run):
    state, step = run.init(jax.random.key(0)), jax.jit(run.step)
    for i in range(4):
        state, metrics = step(jax.random.key(i), state)
    (kept,) = state.curricula
    assert jnp.sum(kept.is_filled) >= 2
    assert jnp.all(jnp.isfinite(kept.score))
    assert len(set(kept.score[kept.is_filled].tolist())) > 1
    assert metrics["finite_fraction"] == 1.0
    if run.score == Regret() and run.replicas == 2:
        assert metrics["agent_updates"] == 12 * metrics["lifetime"]  # four pairs and their antagonists


def test_under_evolution_scores_compare_with_antagonists():
    run, initials = small.altered(trainer(Regret()), inner=TINY, curriculum=TINY_CURRICULUM), tiny_initials()
    outcomes = jax.jit(run.domains[0].live)(small.population(TINY.objective, 4), (initials, np.arange(4.0)))
    np.testing.assert_allclose(outcomes.score, np.arange(4.0) - np.asarray(outcomes.fitness), rtol=1e-5, atol=1e-6)
    returns, num_updates = jax.jit(run.domains[0].live_as_antagonists)(initials)
    alone = jax.jit(partial(trained_antagonist(Regret(), TINY).live, (), slots=4))(initials)[1]
    np.testing.assert_allclose(returns, alone.fitness, rtol=1e-5, atol=1e-6)
    assert num_updates == np.sum(initials.task.lifetime)


def test_under_evolution_the_critic_evaluates_the_trained_agent_and_changes_nothing():
    run = small.altered(trainer(L1ValueLoss()), inner=TINY, curriculum=TINY_CURRICULUM)
    initials, population = tiny_initials(), small.population(TINY.objective, 4)
    outcomes = jax.jit(run.domains[0].live)(population, (initials, np.zeros(4)))
    lives, _ = LIVE(population, initials)
    expected = np.mean(np.abs(np.asarray(jax.jit(partial(assess, TINY))(lives).advantage)), axis=(1, 2))
    np.testing.assert_allclose(outcomes.score, expected, rtol=1e-5, atol=1e-6)
    plain, _ = jax.jit(partial(replace(TINY, critic=None).live, slots=4))(population, initials)
    small.assert_trees_close(replace(lives, critic=None), plain, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def history():
    """States and metrics of a run by meta-gradients with antagonists."""
    run = small.gradient_trainer(TINY, TINY_CURRICULUM, score=Regret())
    states, rows, step = [small.begun(run)], [], jax.jit(run.step)
    for i in range(5):
        state, metrics = step(jax.random.key(i), jax.device_get(states[-1]))  # one program: it is on two devices
        states.append(state)
        rows.append(metrics)
    return states, rows


def test_by_meta_gradients_antagonists_live_in_lock_step_and_restart_with_their_lives(history):
    for before, state, metrics in zip(history[0], history[0][1:], history[1], strict=False):
        np.testing.assert_array_equal(state.antagonists.num_updates, state.lives.life.num_updates)
        assert jax.random.key_data(state.antagonists.key).tolist() == jax.random.key_data(state.lives.life.key).tolist()
        done = np.where(before.lives.is_over, 0, before.lives.life.num_updates)
        assert metrics["agent_updates"] == 2 * np.sum(np.asarray(state.lives.life.num_updates) - done)


def test_by_meta_gradients_the_score_is_of_lives_that_came_to_their_end(history):
    evaluate, seen = jax.jit(partial(trained_antagonist(Regret(), TINY).evaluate, slots=4)), 0
    for state, metrics in zip(history[0][1:], history[1], strict=True):
        finished = np.asarray(state.lives.life.num_updates) >= np.asarray(state.proposal.tasks.lifetime)
        assert np.isfinite(metrics["score"]) == np.any(finished)
        if np.any(finished):
            returns = evaluate(state.antagonists), EVALUATE(state.lives.life)
            theirs, ours = (np.mean(np.asarray(each)[finished]) for each in returns)
            np.testing.assert_allclose(metrics["score"], theirs - ours, rtol=1e-4, atol=1e-5)
            seen += 1
    assert seen > 1


def test_by_meta_gradients_an_antagonist_learns_as_it_would_alone(history):
    before, state = history[0][:2]
    going_on = ~np.asarray(before.lives.is_over)
    until = np.minimum(before.lives.until, 2)
    alone, _ = jax.jit(partial(trained_antagonist(Regret(), TINY).advance, (), slots=4))(before.antagonists, until)
    alone = jax.device_get(alone.agent_params)
    for name, table in jax.device_get(state.antagonists.agent_params).items():
        np.testing.assert_allclose(table[going_on], alone[name][going_on], rtol=1e-5, atol=1e-6)
        assert np.any(table)


@pytest.mark.slow
def test_every_setting_of_the_antagonist_matters():
    initials = replace(small.initials(4), task=replace(small.initials(4).task, lifetime=jnp.full(4, 8)))
    changes = {}, {"objective": A2C(entropy_weight=5.0)}, {"learner": Learner(SGD(1e-6), SGD(4.0))}
    runs = [trained_antagonist(Regret(LearningAntagonist(**options)), INNER) for options in changes]
    plain, rule, rate = jax.jit(lambda initials: [run.live((), initials, slots=4)[1].fitness for run in runs])(initials)
    assert jnp.any(plain != rule)
    assert jnp.any(plain != rate)


def test_values_on_scales_of_their_own_are_not_compared():
    inner = replace(INNER, normalizer=Normalizer(observations=False))
    with pytest.raises(ValueError, match="rewards=False"):
        level_scores.check(MaxMC(), inner)
    level_scores.check(Return(), inner)


# On the scale of the level


def measured(scale=1.0, **change):
    """Evidence of a level that pays from -1 to 3, and all of it times `scale`."""
    known = evidence(**change)
    return replace(
        known,
        episode_return=scale * known.episode_return,
        antagonist_return=scale * known.antagonist_return,
        critic_output=jax.tree.map(lambda value: scale * value, known.critic_output),
        random_return=jnp.asarray(-1.0 * scale),
        upper_return=jnp.asarray(3.0 * scale),
    )


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (Return(), (0.5 + 1) / 4),
        (Regret(), (3 - 0.5) / 4),
        (L1ValueLoss(), 1.5 / 4),
        (PositiveValueLoss(), 0.75 / 4),
        (MaxMC(), (2.5 - 0.5) / 4),
        (Learnability(threshold=0.4), 2 / 4 * 2 / 4),  # returns of 0 to 1 are 0.25, 0.5, 0.75 and 0
        (Learnability(threshold=0.6), 1 / 4 * 3 / 4),
    ],
    ids=repr,
)
def test_a_normalized_score_is_its_formula_on_the_scale_of_the_level(base, expected):
    for scale in (0.01, 1.0, 100.0):
        np.testing.assert_allclose(_score(NormalizedScore(base), measured(scale)), expected, rtol=1e-5)


def test_rewards_times_a_number_leave_normalized_scores_as_they_are():
    initials = small.initials(5, seed=4)
    scores = [NormalizedScore(Regret(Expert())), NormalizedScore(Return()), NormalizedScore(Learnability(0.3))]

    @jax.jit
    def of(tasks):
        lives = jax.vmap(INNER.begin)(initials.key, tasks)  # untrained, so that they act alike
        returns, chosen = INNER.evaluate(lives, slots=5), jnp.ones(5, bool)
        return [score_lives(score, INNER, lives, returns, jnp.zeros(5), None, chosen) for score in scores]

    plain, level = np.array(of(initials.task)), initials.task.level
    assert (plain.std(axis=1) > 0.01).all()
    for scale in (0.01, 100.0):
        paid = replace(level, reward=np.float32(scale) * np.asarray(level.reward))
        np.testing.assert_allclose(np.array(of(replace(initials.task, level=paid))), plain, rtol=2e-3, atol=2e-4)


def test_the_scale_of_a_grid_world_is_from_the_random_policy_to_the_optimum():
    task = task_of(2, 3)
    lower, upper = random_return(task.level), optimal_return(task.level)
    for base in (Return(), Regret(Expert())):
        known = evidence(task=task, antagonist_return=upper)
        found = jax.jit(partial(NormalizedScore(base).measured, INNER))(known)
        np.testing.assert_allclose([found.random_return, found.upper_return], [lower, upper], rtol=1e-6)
    for returns, expected in ((lower, 1.0), (upper, 0.0)):
        known = replace(found, episode_return=returns[None])
        np.testing.assert_allclose(_score(NormalizedScore(Regret(Expert())), known), expected, atol=1e-5)


def test_a_level_without_anything_to_win_scores_0():
    initials = small.initials(2)
    bases = Regret(), Return(), Uniform(), Learnability(threshold=-1.0)

    @jax.jit
    def of_poor_levels():
        poor = replace(initials.task.level, reward=jnp.zeros_like(initials.task.level.reward))
        lives = jax.vmap(INNER.begin)(initials.key, replace(initials.task, level=poor))
        rest = lives, jnp.zeros((2, 4)), jnp.ones(2), None, jnp.ones(2, bool)
        return [score_lives(NormalizedScore(base), INNER, *rest) for base in bases]

    for scores in of_poor_levels():
        np.testing.assert_array_equal(scores, [0.0, 0.0])
    worse = replace(measured(), upper_return=jnp.asarray(-2.0))  # an antagonist that is worse than the random policy
    assert _score(NormalizedScore(Regret()), worse) == 0.0


def test_where_there_is_little_to_win_the_score_is_limited():
    little = replace(measured(), upper_return=jnp.asarray(-0.9))
    assert _score(NormalizedScore(Regret()), little) == 2.0
    assert _score(NormalizedScore(Regret(), limit=7.0), little) == 7.0
    assert _score(NormalizedScore(Regret()), replace(little, antagonist_return=jnp.float32(-5.0))) == -2.0


def test_where_levels_cannot_be_solved_the_antagonist_is_the_upper_end():
    inner = two_states.inner_loop(critic=None)
    score = NormalizedScore(Regret(LearningAntagonist(TABLE_A2C, TABLE_A2C_LEARNER)))
    level_scores.check(score, inner)
    known = evidence(task=two_states.task())
    found = jax.jit(partial(score.measured, inner))(known)
    assert found.upper_return == known.antagonist_return == 3.0
    expected = jax.jit(partial(RandomPolicy().expected_return, inner))(known.key, known.task)
    assert found.random_return == expected
    for base, message in ((Return(), "cannot be solved"), (Regret(RandomPolicy()), "antagonist that learns")):
        with pytest.raises(ValueError, match=message):
            level_scores.check(NormalizedScore(base), inner)


def test_what_a_normalized_score_needs_is_what_its_score_needs():
    for base in SCORES[:-1]:
        score = NormalizedScore(base)
        assert (score.uses_critic, score.antagonist) == (base.uses_critic, base.antagonist)
    assert trained_antagonist(NormalizedScore(Regret()), INNER) == trained_antagonist(Regret(), INNER)
    with pytest.raises(ValueError, match=r"InnerLoop\.critic"):
        level_scores.check(NormalizedScore(MaxMC()), small.inner_loop())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NormalizedScore(NormalizedScore(Regret())), "already"),
        (lambda: NormalizedScore(Regret(), limit=0.0), "limit must be above 0"),
        (lambda: NormalizedScore(Regret(), limit=float("nan")), "limit must be above 0"),
        (lambda: NormalizedScore(Regret()).score(evidence()), "both ends"),
    ],
)
def test_a_normalized_score_that_cannot_work_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
