"""Prioritized level replay and ACCEL: who is proposed, who learns, and what is kept."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.core import config
from metadisco.core.files import leaf_types
from metadisco.core.types import Task
from metadisco.curricula.accel import ACCEL
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.prioritization import ProportionalPrioritization, RankPrioritization, TopKPrioritization
from metadisco.curricula.tasks import Tasks
from metadisco.envs.gridworld.hand_designed import HandDesigned, ObjectKind
from tests.support import small
from tests.support.small import TASKS, assert_trees_close, trainer

NUM_TASKS = 6


@dataclass(frozen=True)
class Numbers:
    """Tasks that are random numbers; a child is its parent plus 1000."""

    shift: float = 1000.0

    def sample(self, key):
        return Task(level=jax.random.uniform(key), lifetime=jnp.int32(3))

    def mutate(self, key, parent):
        del key
        return Task(parent.level + self.shift, parent.lifetime)


PLR = PrioritizedLevelReplay(Numbers(), capacity=12)
EVOLVING = ACCEL(PLR)


@lru_cache
def compiled(curriculum):
    """Its functions, compiled once for all tests."""
    return jax.jit(curriculum.init), jax.jit(curriculum.propose, static_argnums=2), jax.jit(curriculum.observe)


def play(curriculum, num_steps=12, score=lambda levels: levels):
    """States and proposals of some meta-steps, lives ending at once. Scores are NumPy's, which compiles nothing."""
    init, propose, observe = compiled(curriculum)
    keys = list(jax.random.split(jax.random.key(0), 2 * 20 + 1))
    state, history = init(keys[-1]), []
    for propose_key, observe_key in zip(keys[:num_steps], keys[num_steps:-1]):
        before, proposal = propose(propose_key, state, NUM_TASKS)
        scores = score(np.asarray(proposal.tasks.level)).astype(np.float32)
        state, metrics = observe(observe_key, before, proposal, scores, np.ones(NUM_TASKS, bool))
        history.append((before, proposal, state, metrics))
    assert (propose._cache_size(), observe._cache_size()) == (1, 1)
    return jax.device_get(history)


curricula = pytest.mark.parametrize("curriculum", [PLR, EVOLVING], ids=["plr", "accel"])


@curricula
def test_replayed_levels_are_those_of_their_places(curriculum):
    num_replays = 0
    for before, proposal, _, _ in play(curriculum):
        replayed = np.flatnonzero(proposal.places >= 0)
        places = np.asarray(proposal.places)[replayed]
        num_replays += len(replayed)
        assert before.is_filled[places].all()
        np.testing.assert_array_equal(proposal.tasks.level[replayed], before.tasks.level[places])
        np.testing.assert_array_equal(proposal.born[replayed], before.born[places])
        assert len(set(places.tolist())) == len(places)
    assert num_replays > 5


def test_nothing_is_replayed_before_the_buffer_is_filled_far_enough():
    first = [
        next(
            i
            for i, (_, proposal, _, _) in enumerate(play(replace(PLR, fill_before_replay=share)))
            if is_replay(proposal)
        )
        for share in (0.0, 0.5, 1.0)
    ]
    assert first[0] >= 1
    assert first[1] >= 1
    assert first[2] >= 2


def is_replay(proposal):
    return bool((proposal.places >= 0).any())


@partial(jax.jit, static_argnums=0)
def filled_state(curriculum, scores):
    """A buffer whose levels are 0, 1, 2, ... with given scores."""
    state = curriculum.init(jax.random.key(0))
    levels = jnp.arange(float(len(scores)))
    tasks = Task(levels, jnp.full(len(scores), 3, jnp.int32))
    proposal = replace(curriculum.propose(jax.random.key(0), state, len(scores))[1], tasks=tasks)
    return curriculum.observe(
        jax.random.key(0), state, proposal, jnp.asarray(scores, jnp.float32), jnp.ones(len(scores), bool)
    )[0]


def many_proposals(curriculum, state, num_proposals=4000):

    @jax.jit
    def propose():
        return jax.vmap(lambda key: curriculum.propose(key, state, 1)[1])(
            jax.random.split(jax.random.key(9), num_proposals)
        )

    return jax.device_get(propose())


def test_replays_have_their_probability_and_follow_the_weights():
    curriculum = PrioritizedLevelReplay(
        Numbers(), capacity=4, replay_probability=0.7, prioritization=ProportionalPrioritization(), staleness_weight=0.0
    )
    state = filled_state(curriculum, [1.0, 2.0, 0.0, 5.0])
    places = np.asarray(many_proposals(curriculum, state).places[:, 0])
    counts = [np.sum(places == place) for place in range(-1, 4)]
    by_place = 0.7 * np.array(state.score / 8.0)
    assert counts[1 + int(np.argmin(by_place))] == 0
    expected = np.array([0.3, *by_place]) * len(places)
    assert stats.chisquare(np.array(counts)[expected > 0], expected[expected > 0], sum_check=False).pvalue > 1e-3


def test_an_empty_place_is_never_replayed():
    curriculum = replace(PLR, replay_probability=1.0, fill_before_replay=0.0, staleness_weight=1.0)
    state = filled_state(curriculum, [1.0, 2.0, 3.0])
    places = many_proposals(curriculum, state).places
    assert set(np.unique(places).tolist()) == {0, 1, 2}
    _, proposal = jax.jit(curriculum.propose, static_argnums=2)(jax.random.key(0), state, 8)
    assert np.sort(proposal.places).tolist() == [-1] * 5 + [0, 1, 2]
    assert (proposal.tasks.lifetime == 3).all()


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_stay_out_and_are_counted(score):
    def spoil(levels):
        return np.where(np.arange(NUM_TASKS) % 2 == 0, score, levels)

    history = play(PLR, score=spoil)
    assert all(np.isfinite(state.score).all() for _, _, state, _ in history)
    assert [float(metrics["nonfinite_scores"]) for *_, metrics in history] == [3.0] * len(history)
    assert int(history[-1][2].num_nonfinite) == 3 * len(history)


def test_the_buffer_keeps_the_best_levels():
    history = play(replace(PLR, replay_probability=0.0), 20)
    seen = np.concatenate([proposal.tasks.level for _, proposal, _, _ in history])
    np.testing.assert_allclose(np.sort(history[-1][2].score), np.sort(seen)[-12:], rtol=1e-6)


@pytest.mark.parametrize("curriculum", [replace(PLR, robust=True), ACCEL(replace(PLR, robust=True))])
def test_a_robust_curriculum_trains_on_replayed_levels_only(curriculum):
    for _, proposal, _, _ in play(curriculum):
        np.testing.assert_array_equal(proposal.train_mask, proposal.places >= 0)


@curricula
def test_others_train_on_everything(curriculum):
    assert all(proposal.train_mask.all() for _, proposal, _, _ in play(curriculum, 4))


def test_unfinished_lives_teach_nothing():
    init, propose, observe = compiled(PLR)
    state, proposal = propose(jax.random.key(0), init(jax.random.key(0)), NUM_TASKS)
    scores = np.arange(6, dtype=np.float32)
    after, metrics = observe(jax.random.key(0), state, proposal, scores, np.zeros(6, bool))
    assert_trees_close(replace(after, clock=state.clock), state)
    assert metrics["buffer_inserted"] == 0


@pytest.mark.parametrize(("num_edits", "probability"), [(1, 0.25), (3, 0.5)])
def test_children_are_replayed_levels_after_their_edits(num_edits, probability):
    curriculum = ACCEL(replace(PLR, capacity=4, replay_probability=0.8), probability, num_edits)
    state = filled_state(curriculum.replay, [1.0, 2.0, 3.0, 4.0])
    proposals = many_proposals(curriculum, state)
    levels, places = np.asarray(proposals.tasks.level[:, 0]), np.asarray(proposals.places[:, 0])
    is_child = levels >= 1000
    assert set(np.unique(levels[is_child]).tolist()) <= {level + 1000.0 * num_edits for level in range(4)}
    assert (places[is_child] == -1).all()
    counts = [np.sum(is_child), np.sum(places >= 0)]
    assert stats.chisquare(counts, np.array([probability, 1 - probability]) * sum(counts)).pvalue > 1e-3


def test_a_child_enters_the_buffer_beside_its_parent():
    state = play(EVOLVING, 20)[-1][2]
    parents = np.asarray(state.tasks.level) % 1000
    assert (state.tasks.level >= 1000).any()
    assert len(np.unique(np.round(parents, 3))) < 12


def test_accel_evolves_grid_worlds():
    curriculum = ACCEL(PrioritizedLevelReplay(TASKS, capacity=8, replay_probability=1.0, fill_before_replay=0.1), 1.0)
    propose, observe = jax.jit(curriculum.propose, static_argnums=2), jax.jit(curriculum.observe)
    state, proposal = propose(jax.random.key(0), jax.jit(curriculum.init)(jax.random.key(0)), 4)
    state, _ = observe(jax.random.key(0), state, proposal, np.arange(4, dtype=np.float32), np.ones(4, bool))
    _, children = propose(jax.random.key(1), state, 4)
    changed = [
        np.any(np.asarray(before) != np.asarray(after))
        for before, after in zip(jax.tree.leaves(proposal.tasks), jax.tree.leaves(children.tasks))
    ]
    assert sum(changed) > 3
    assert jax.eval_shape(lambda: children) == jax.eval_shape(lambda: proposal)


SETTINGS = [
    {"capacity": 10},
    {"replay_probability": 0.9},
    {"prioritization": RankPrioritization(2.0)},
    {"prioritization": ProportionalPrioritization()},
    {"prioritization": ProportionalPrioritization(0.2)},
    {"prioritization": TopKPrioritization(3)},
    {"prioritization": TopKPrioritization(6)},
    {"staleness_weight": 0.9},
    {"fill_before_replay": 1.0},
    {"robust": True},
]


def history(curriculum):
    """All that a curriculum proposed, as one array."""
    proposals = [(proposal.tasks, proposal.train_mask) for _, proposal, _, _ in play(curriculum, 8)]
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(proposals)])


def test_every_setting_changes_what_is_proposed():
    settings = [PLR, *(replace(PLR, **setting) for setting in SETTINGS)]
    settings += [EVOLVING, replace(EVOLVING, mutation_probability=0.1), replace(EVOLVING, num_edits=2)]
    assert len({history(curriculum).tobytes() for curriculum in settings}) == len(settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capacity": 0}, "capacity must be at least 1"),
        ({"replay_probability": 1.5}, r"replay_probability must be in 0\.\.1, got 1\.5"),
        ({"staleness_weight": -0.1}, "staleness_weight must be in"),
        ({"fill_before_replay": float("nan")}, "fill_before_replay must be in"),
        ({"prioritization": TopKPrioritization(13)}, r"must be in 1\.\.12"),
        ({"replay_probability": 0.0, "robust": True}, "would never learn"),
    ],
)
def test_wrong_setting_of_replay_fails_at_construction(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(PLR, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mutation_probability": 2.0}, "use PrioritizedLevelReplay"),
        ({"num_edits": 0}, "at least 1, got 0"),
        ({"replay": replace(PLR, robust=True), "mutation_probability": 1.0}, "would never learn"),
        (
            {"replay": replace(PLR, tasks=Tasks(HandDesigned(3, 3, 5, (ObjectKind(1.0, 0.1, 0.1),))))},
            "HandDesigned has",
        ),
    ],
)
def test_wrong_setting_of_accel_fails_at_construction(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(EVOLVING, **fields)


@curricula
def test_a_buffer_smaller_than_the_number_of_tasks_is_refused(curriculum):
    with pytest.raises(ValueError, match="number of tasks of a meta-step, 13, got 12"):
        jax.eval_shape(lambda key: curriculum.propose(key, curriculum.init(key), 13), jax.random.key(0))


@pytest.mark.parametrize(
    "prioritization", [RankPrioritization(0.2), ProportionalPrioritization(), TopKPrioritization(5)]
)
def test_settings_come_back_from_data(prioritization):
    curriculum = ACCEL(PrioritizedLevelReplay(TASKS, prioritization=prioritization), 0.25)
    assert config.from_data(config.to_data(curriculum)) == curriculum


@pytest.mark.slow
def test_a_trainer_runs_on_a_curriculum_that_replays_and_evolves():
    replay = PrioritizedLevelReplay(TASKS, capacity=6, fill_before_replay=0.1)
    learner = small.altered(trainer(), curriculum=ACCEL(replay))
    step = jax.jit(learner.step)
    state = before = learner.init(jax.random.key(0))
    for i in range(2):
        state, metrics = step(jax.random.key(i), state)
    assert leaf_types(state) == leaf_types(before)
    assert metrics["buffer_filled"] == 1.0
