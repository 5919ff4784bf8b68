"""PAIRED: what the teacher makes, that it learns from scores and from nothing else, and when."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import Adam
from metadisco.core import config, trees
from metadisco.core.files import leaf_types
from metadisco.core.types import Task
from metadisco.curricula.paired import PAIRED, teacher_loss
from metadisco.curricula.tasks import FixedLifetime, LogUniformLifetime, Tasks
from metadisco.curricula.teacher import TeacherObservations, TeacherOutputs, TeacherTrajectory
from metadisco.envs.gridworld.hand_designed import HandDesigned, ObjectKind
from metadisco.envs.gridworld.levels import GridLevels
from metadisco.lives.critic import Critic
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.gradient_trainer import GradientTrainer
from tests.support import small, traced
from tests.support.reference.gridworld import assert_legal
from tests.support.small import TASKS, assert_trees_close, inner_loop, trainer

NUM_TASKS = 12
NUM_SLOTS, NUM_COLORS = 3, 5


@dataclass(frozen=True)
class Beads:
    """Strings of beads, no color twice; a string that begins with color 0 has no second bead."""

    num_colors: int = NUM_COLORS

    @property
    def num_steps(self):
        return NUM_SLOTS

    @property
    def num_options(self):
        return self.num_colors

    def sample(self, key):
        return Task(jax.random.permutation(key, self.num_colors)[:NUM_SLOTS].astype(jnp.int32), jnp.int32(3))

    def design(self, num_bins):
        del num_bins
        return self

    def begin(self):
        return jnp.full(NUM_SLOTS, -1, jnp.int32)

    def options(self, draft, step):
        is_used = jnp.any(jnp.arange(self.num_colors)[:, None] == draft, axis=1)
        return ~is_used & ~((step == 1) & (draft[0] == 0))

    def observe(self, draft):
        return jax.nn.one_hot(draft, self.num_colors).reshape(-1)

    def place(self, draft, step, option, uniform):
        del uniform
        return jnp.where(jnp.arange(NUM_SLOTS) == step, option, draft)

    def finish(self, draft):
        return Task(draft, jnp.int32(3))


BEADS = PAIRED(Beads(), MLP((8,)), noise_size=2)
USUAL = replace(BEADS, optimizer=Adam(1e-2))
GRIDS = PAIRED(TASKS, MLP((16,)), num_bins=5, optimizer=Adam(5e-3))


@partial(jax.jit, static_argnums=(0, 3))
def propose(curriculum, key, state, num_tasks=NUM_TASKS):
    return curriculum.propose(key, state, num_tasks)


observe = jax.jit(lambda curriculum, *rest: curriculum.observe(jax.random.key(0), *rest), static_argnums=0)
ALL = np.ones(NUM_TASKS, bool)
SCORES = np.sin(np.arange(NUM_TASKS, dtype=np.float32))


@partial(jax.jit, static_argnums=0)
def first(curriculum, noise=0.0):
    state = curriculum.init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(state.teacher_params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    shaken = [leaf + noise * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    return replace(state, teacher_params=jax.tree.unflatten(structure, shaken))


def begin(curriculum, noise=0.0):
    """A first state, its proposal; `noise` shakes the teacher so that its choices are far from uniform."""
    return propose(curriculum, jax.random.key(1), first(curriculum, noise))


@partial(jax.jit, static_argnums=0)
def reconsider(curriculum, teacher_params, notes):
    """The observations of choices that were made, and what the teacher says there."""
    observations = jax.vmap(curriculum.teacher.observations)(notes)
    return observations, curriculum._evaluate_choices(teacher_params, observations, notes)


def distance(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right))
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max(initial=0.0)) for a, b in pairs)


# What is proposed


def slow_log_probs(curriculum, teacher_params, trajectory):
    """The network and the choices of one task, step by step, in NumPy."""
    design, params = curriculum.teacher.design, jax.device_get(teacher_params)
    observe_draft, find_options, place = (jax.jit(f) for f in (design.observe, design.options, design.place))
    draft, log_probs = design.begin(), []
    for step in range(design.num_steps):
        one_hot = np.eye(design.num_steps)[step]
        x = np.concatenate([np.asarray(observe_draft(draft)), trajectory.condition, one_hot])
        for layer in params["network"]["torso"]:
            x = np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)
        head = params["network"]["logits"]
        logits = x @ head["kernel"] + head["bias"] + params["table"]["logits"][step]
        options = np.flatnonzero(find_options(draft, jnp.int32(step)))
        choice = int(trajectory.choice[step])
        if not len(options):
            assert choice == -1
            log_probs.append(0.0)
            continue
        assert choice in options
        log_probs.append(logits[choice] - np.log(np.sum(np.exp(logits[options]))))
        draft = place(draft, jnp.int32(step), jnp.int32(choice), trajectory.uniform[step])
    return np.array(log_probs), draft


@pytest.mark.parametrize("curriculum", [BEADS, GRIDS], ids=["beads", "grids"])
def test_recorded_log_probs_are_those_of_a_slow_teacher(curriculum):
    state, proposal = begin(curriculum, noise=0.5)
    for i in (0, 7):
        trajectory = trees.index(jax.device_get(proposal.notes), i)
        log_probs, draft = slow_log_probs(curriculum, state.teacher_params, trajectory)
        np.testing.assert_allclose(trajectory.log_prob, log_probs, atol=1e-5)
        task = jax.jit(curriculum.teacher.design.finish)(draft)
        assert_trees_close(task, trees.index(jax.device_get(proposal.tasks), i), rtol=1e-6)


@pytest.mark.parametrize("curriculum", [BEADS, GRIDS], ids=["beads", "grids"])
def test_choices_are_as_likely_along_recomputed_observations_as_when_they_were_made(curriculum):
    state, proposal = begin(curriculum, noise=0.5)
    observations, outputs = reconsider(curriculum, state.teacher_params, proposal.notes)
    np.testing.assert_allclose(outputs.log_prob, proposal.notes.log_prob, atol=1e-5)
    entropy = np.log(np.maximum(np.asarray(observations.options).sum(-1), 1))  # of uniform choices
    assert (np.asarray(outputs.entropy) <= entropy + 1e-5).all()


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_every_level_is_legal(noise):
    curriculum = replace(GRIDS, tasks=Tasks(GridLevels(2, 3, num_walls=3, max_objects=4)))
    levels = jax.device_get(begin(curriculum, noise)[1].tasks.level)
    assert_legal(levels)
    assert_legal(jax.device_get(begin(GRIDS, noise)[1].tasks.level))


def test_a_teacher_of_strong_opinions_keeps_to_the_rules():
    _, proposal = begin(BEADS, noise=30.0)
    for beads in np.asarray(proposal.tasks.level):
        used = beads[beads >= 0]
        assert len(set(used)) == len(used) == (2 if beads[0] == 0 else 3)


def test_the_first_teacher_is_near_uniform():
    curriculum = replace(GRIDS, tasks=Tasks(GRIDS.tasks.levels, LogUniformLifetime(10, 250)))
    state = first(curriculum)
    tasks = jax.device_get(propose(curriculum, jax.random.key(1), state, 600)[1].tasks)
    bins = np.floor(5 * np.log(tasks.lifetime / 10) / np.log(25)).clip(0, 4).astype(int)
    for counts in (
        np.bincount(bins, minlength=5),
        np.bincount(tasks.level.start, minlength=16),
        np.bincount((tasks.level.object_cell >= 0).sum(1) - 1, minlength=2),
        np.histogram(tasks.level.reward[:, 0], 5, (0.0, 1.0))[0],
    ):
        assert np.abs(counts / counts.mean() - 1.0).max() < 0.6
        assert stats.chisquare(counts).pvalue > 1e-5


def test_choices_have_the_frequencies_of_their_probabilities():
    state, _ = begin(BEADS, noise=0.7)
    proposal = propose(BEADS, jax.random.key(2), state, 3000)[1]
    # The random vector is part of what a choice depends on, so probabilities are those of each proposal.
    observations, _ = reconsider(BEADS, state.teacher_params, proposal.notes)
    ask = jax.jit(jax.vmap(BEADS.teacher.evaluate_choices, in_axes=(None, 0, 0)))
    made = np.asarray(proposal.notes.choice)
    for color in range(NUM_COLORS):
        choice = made.copy()
        choice[:, 0] = color
        prob = np.exp(np.asarray(ask(state.teacher_params, observations, choice).log_prob)[:, 0])
        count = int((made[:, 0] == color).sum())
        assert abs(count - prob.sum()) < 4 * np.sqrt((prob * (1 - prob)).sum())


def test_same_key_same_proposal():
    state = first(BEADS)
    one, again, other = (propose(BEADS, jax.random.key(seed), state)[1] for seed in (3, 3, 4))
    assert_trees_close(one, again)
    assert (one.notes.choice != other.notes.choice).any()


# What it is trained on


def test_every_parameter_of_the_teacher_moves():
    state, proposal = begin(BEADS)
    after, metrics = observe(BEADS, state, proposal, SCORES, ALL)
    before, moved_to = jax.device_get((state.teacher_params, after.teacher_params))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, moved_to)
    assert all(jax.tree.leaves(moved)), moved
    assert metrics["teacher_grad_norm"] > 0


@pytest.mark.parametrize(
    ("scores", "finished"),
    [
        (SCORES, ~ALL),
        (SCORES * np.float32("nan"), ALL),
        (np.where(np.arange(NUM_TASKS) < 5, -np.float32("inf"), SCORES), np.arange(NUM_TASKS) < 5),
    ],
    ids=["none finished", "NaN", "infinite"],
)
def test_nothing_moves_where_no_score_counts(scores, finished):
    state, proposal = begin(BEADS)
    after, metrics = observe(BEADS, state, proposal, scores, finished)
    assert distance(after, state) == 0.0
    assert all(np.isfinite(metric) for metric in metrics.values())
    assert metrics["nonfinite_scores"] == np.sum(finished & ~np.isfinite(scores))


def test_only_finite_scores_of_finished_levels_are_heeded():
    state, proposal = begin(BEADS)
    finished = np.arange(NUM_TASKS) < 8
    clean, clean_metrics = observe(BEADS, state, proposal, SCORES, finished & (np.arange(NUM_TASKS) != 3))
    spoiled = SCORES.copy()
    spoiled[[3, 9, 10]] = np.nan, np.inf, 99.0
    dirty, dirty_metrics = observe(BEADS, state, proposal, spoiled, finished)
    assert_trees_close(dirty, clean)
    assert (clean_metrics["nonfinite_scores"], dirty_metrics["nonfinite_scores"]) == (0.0, 1.0)


def test_scores_are_taken_relative_to_their_mean_and_deviation():
    state, proposal = begin(BEADS)
    one = observe(BEADS, state, proposal, SCORES, ALL)[0].teacher_params
    scaled = observe(BEADS, state, proposal, np.float32(50.0) * SCORES + np.float32(7.0), ALL)[0].teacher_params
    other = observe(BEADS, state, proposal, SCORES[::-1], ALL)[0].teacher_params
    assert distance(one, scaled) < 1e-4
    assert distance(one, other) > 1e-3


def test_equal_scores_are_not_blown_up():
    curriculum = replace(BEADS, entropy_weight=0.0)
    state, proposal = begin(curriculum)
    _, metrics = observe(curriculum, state, proposal, np.full(NUM_TASKS, 1e5 / 3, np.float32), ALL)
    assert metrics["teacher_grad_norm"] < 0.05


def test_mean_and_variance_are_those_of_all_scores_with_weights_that_decay():
    curriculum = replace(BEADS, score_decay=0.9)
    state, proposal = begin(curriculum)
    seen, weights = np.zeros(0), np.zeros(0)
    for i, num in enumerate((3, 0, 1, 12)):
        scores = np.random.default_rng(i).normal(2.0, size=NUM_TASKS).astype(np.float32)
        state, metrics = observe(curriculum, state, proposal, scores, np.arange(NUM_TASKS) < num)
        kept = 0.9**num
        weights = np.append(weights * kept, np.full(num, (1 - kept) / max(num, 1)))
        seen = np.append(seen, scores[:num])
        mean = np.average(seen, weights=weights)
        np.testing.assert_allclose(state.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(metrics["regret"], mean, rtol=1e-5)
        np.testing.assert_allclose(state.variance, np.average((seen - mean) ** 2, weights=weights), rtol=1e-4)


# The loss


@jax.jit
def loss_of(log_ratio, score, value=0.0, counts=True, **weights):
    """One task of one choice."""
    zeros = jnp.zeros((1, 1))
    trajectory = TeacherTrajectory(zeros, jnp.zeros((1, 1), jnp.int32), zeros, log_prob=zeros)
    outputs = TeacherOutputs(log_prob=zeros + log_ratio, entropy=zeros + 0.7, value=zeros + value)
    settings = {"clip": 0.2, "entropy_weight": 0.0, "value_weight": 0.0} | weights
    return teacher_loss(outputs, trajectory, jnp.array([score]), jnp.array([counts]), **settings)[0]


slope_of = jax.jit(jax.grad(loss_of))


@pytest.mark.parametrize(
    ("log_ratio", "score", "slope"),
    [
        (0.0, 3.0, -3.0),
        (0.0, -3.0, 3.0),
        (0.1, 1.0, -np.exp(0.1)),
        (0.5, 1.0, 0.0),  # already much likelier than it was
        (-0.5, -1.0, 0.0),  # already much less likely
        (-0.5, 1.0, -np.exp(-0.5)),  # it lost ground that it should win
        (0.5, -1.0, np.exp(0.5)),
        (99.0, -1.0, 0.0),  # too old to say anything
    ],
)
def test_an_old_choice_is_followed_only_as_far_as_the_clip(log_ratio, score, slope):
    np.testing.assert_allclose(slope_of(log_ratio, score), slope, rtol=1e-5)


def test_the_parts_of_the_loss_add_up():
    # ratio 1, advantage 3 - 1 = 2; 0.7 nats; squared error 4
    np.testing.assert_allclose(loss_of(0.0, 3.0, 1.0, entropy_weight=0.5, value_weight=0.25), -2.0 - 0.35 + 1.0)
    assert loss_of(0.0, 3.0, 1.0, counts=False, entropy_weight=0.5, value_weight=0.25) == 0.0


def test_the_value_is_fitted_and_does_not_follow_the_advantage():
    slope = jax.jit(jax.grad(lambda value: loss_of(0.0, 3.0, value, value_weight=0.25)))(1.0)
    np.testing.assert_allclose(slope, -0.25 * 2 * 2.0)


def test_a_step_that_was_passed_over_counts_for_nothing():
    state, proposal = begin(BEADS)
    is_passed = np.asarray(proposal.notes.choice) == -1
    assert is_passed.any()
    observations, _ = reconsider(BEADS, state.teacher_params, proposal.notes)
    spoiled = replace(observations, obs=np.where(is_passed[..., None], np.float32(5.0), observations.obs))

    @jax.jit
    @jax.grad
    def gradient(teacher_params, observations: TeacherObservations):
        outputs = BEADS._evaluate_choices(teacher_params, observations, proposal.notes)
        weights = {"clip": 0.2, "entropy_weight": 0.01, "value_weight": 0.5}
        return teacher_loss(outputs, proposal.notes, SCORES, ALL, **weights)[0]

    clean, dirty = (gradient(state.teacher_params, seen) for seen in (observations, spoiled))
    assert_trees_close(clean, dirty, atol=1e-6)


# That it learns


FEATURES = {
    "walls in the upper half": lambda tasks: jnp.mean(tasks.level.walls[:, :8], axis=1),
    "objects": lambda tasks: jnp.sum(tasks.level.object_cell >= 0, axis=1) / 2,
    "reward of the first object": lambda tasks: tasks.level.reward[:, 0],
    "long lifetime": lambda tasks: tasks.lifetime >= 4,
}
BEST = dict(zip(FEATURES, (0.25, 1.0, 1.0, 1.0)))
NUM_PLAYED = 32


def features_of_grids(tasks):
    return jnp.stack([feature(tasks).astype(jnp.float32) for feature in FEATURES.values()])


def features_of_beads(tasks):
    """Whether the second bead is of the color after the first one's: it can only be learned by looking."""
    return (tasks.level[:, 1] == tasks.level[:, 0] + 1).astype(jnp.float32)[None]


@partial(jax.jit, static_argnums=(0, 1, 5))
def histories(curriculum, features_of, which, delay, seed, num_steps=60):
    """Means of features of what is proposed [steps, features], and metrics.

    Scores are the feature `which`, or random numbers if it is negative. Lives last for `delay` meta-steps and end in
    turns.
    """

    def step(carry, i):
        state, held = carry
        propose_key, score_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        state, new = curriculum.propose(propose_key, state, NUM_PLAYED)
        row = jnp.arange(NUM_PLAYED) % delay
        proposal = trees.where(row == i % delay, new, held)
        scores = jnp.where(which < 0, jax.random.normal(score_key, (NUM_PLAYED,)), features_of(proposal.tasks)[which])
        state, metrics = curriculum.observe(score_key, state, proposal, scores, row == (i + 1) % delay)
        return (state, proposal), (jnp.mean(features_of(new.tasks), axis=1), metrics)

    first = curriculum.propose(jax.random.key(seed), curriculum.init(jax.random.key(seed)), NUM_PLAYED)
    return jax.lax.scan(step, first, jnp.arange(num_steps))[1]


def rise(history):
    """From the first meta-steps to the last."""
    return history[-10:].mean(0) - history[:5].mean(0)


@pytest.mark.parametrize("name", FEATURES)
def test_the_teacher_learns_to_make_what_scores_well(name):
    which = list(FEATURES).index(name)
    history = np.asarray(histories(GRIDS, features_of_grids, which, 1, 0)[0])[:, which]
    assert rise(history) > 0.5 * (BEST[name] - history[:5].mean())


def test_the_teacher_learns_from_levels_that_come_back_late():
    which = list(FEATURES).index("long lifetime")
    history, metrics = histories(GRIDS, features_of_grids, which, 3, 0)
    assert rise(history[:, which]) > 0.3
    assert metrics["teacher_stale"].max() > 0.0


def test_the_teacher_stays_where_it_is_if_scores_do_not_depend_on_the_level():
    runs = [histories(GRIDS, features_of_grids, -1, 1, seed) for seed in range(4)]
    rises = np.mean([rise(history) for history, _ in runs], axis=0)
    assert np.abs(rises).max() < 0.15  # by chance
    kept = [metrics["teacher_entropy"][-1] / metrics["teacher_entropy"][0] for _, metrics in runs]
    assert np.mean(kept) > 0.8, kept


def test_the_teacher_learns_choices_that_go_with_earlier_ones():
    history, _ = histories(USUAL, features_of_beads, 0, 1, 0)
    assert rise(history)[0] > 0.5


# Settings


NUMBERS = {
    "optimizer.learning_rate": 2e-2,
    "clip": 0.01,
    "entropy_weight": 0.3,
    "value_weight": 0.0,
    "score_decay": 0.5,
}


@partial(jax.jit, static_argnums=0)
def observe_with(curriculum, values, *rest):
    return traced.with_values(curriculum, values).observe(jax.random.key(0), *rest)


def trained(curriculum, **numbers):
    """A teacher that was told of the same levels three times, which are old for it from the second time on."""
    state, proposal = begin(USUAL)
    values = traced.values_of(curriculum, NUMBERS) | numbers
    for i in range(3):
        state, _ = observe_with(curriculum, values, state, proposal, np.roll(SCORES, i) + i, ALL)
    return state.teacher_params


@pytest.fixture(scope="module")
def trained_as_usual():
    return trained(USUAL)


@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_of_training_changes_the_teacher(trained_as_usual, path):
    assert distance(trained(USUAL, **{path: NUMBERS[path]}), trained_as_usual) > 1e-4


def test_the_number_of_epochs_changes_the_teacher(trained_as_usual):
    assert distance(trained(replace(USUAL, num_epochs=2)), trained_as_usual) > 1e-4


@pytest.mark.parametrize("setting", [{"network": MLP((9,))}, {"noise_size": 3}], ids=["network", "noise_size"])
def test_every_setting_of_the_network_changes_what_it_has_in_mind(setting):
    usual, changed = (
        np.asarray(begin(curriculum)[1].notes.log_prob) for curriculum in (BEADS, replace(BEADS, **setting))
    )
    assert (usual != changed).any()


def test_the_number_of_bins_changes_what_is_proposed():
    choices = [np.asarray(begin(replace(GRIDS, num_bins=num_bins))[1].notes.choice) for num_bins in (2, 5)]
    lifetimes = [choice[:, -1].max() for choice in choices]
    assert lifetimes == [1, 4]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"tasks": Tasks(HandDesigned(3, 3, 5, (ObjectKind(1.0, 0.1, 0.1),)))},
            "HandDesigned has no design.*use GridL",
        ),
        ({"num_bins": 1}, "num_bins must be at least 2, got 1"),
        ({"noise_size": -1}, "noise_size must be at least 0, got -1"),
        ({"num_epochs": 0}, "num_epochs must be at least 1, got 0"),
        ({"clip": 0.0}, "clip must be in"),
        ({"clip": 1.0}, "0.2 is usual"),
        ({"entropy_weight": -0.1}, "use 0 to do without"),
        ({"value_weight": float("nan")}, "value_weight must be finite"),
        ({"score_decay": 1.0}, "1 excluded, got 1.0"),
    ],
)
def test_wrong_setting_fails_at_construction(setting, message):
    with pytest.raises(ValueError, match=message):
        replace(GRIDS, **setting)


def test_settings_come_back_from_data():
    curriculum = replace(GRIDS, tasks=Tasks(GridLevels(), FixedLifetime(9)), entropy_weight=0.1)
    assert config.from_data(config.to_data(curriculum)) == curriculum


# Inside a trainer


@pytest.mark.slow
def test_a_trainer_runs_on_a_teacher():
    learner = small.altered(trainer(), curriculum=GRIDS)
    step = jax.jit(learner.step)
    state = before = learner.init(jax.random.key(0))
    for i in range(2):
        state, metrics = step(jax.random.key(i), state)
    assert leaf_types(state) == leaf_types(before)
    assert metrics["teacher_grad_norm"] > 0
    assert distance(state.curricula[0].teacher_params, before.curricula[0].teacher_params) > 0


def test_a_trainer_by_meta_gradients_keeps_how_levels_were_made():
    learner = GradientTrainer((Domain(inner_loop(critic=Critic()), GRIDS, num_tasks=4, slots=2),))
    key = jax.random.key(0)
    state = jax.eval_shape(learner.init, key)
    assert state.proposal.notes.choice.shape == (4, GRIDS.teacher.design.num_steps)
    after, metrics = jax.eval_shape(learner.step, key, state)
    assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, state)
    assert "teacher_entropy" in metrics
