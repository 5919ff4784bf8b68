"""Fixed sets of tasks, and levels that one run hands over to another."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metadisco.core import config
from metadisco.core.files import CheckpointError, hash_document
from metadisco.curricula import buffer as level_buffer
from metadisco.curricula.fixed import DrawnTasks, FixedSet, SavedTasks
from metadisco.curricula.level_files import Levels, load_levels, save_levels
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.tasks import Tasks
from metadisco.envs.gridworld.levels import GridLevels
from tests.support.disk import flip, names, trees_equal, truncate
from tests.support.small import TASKS, assert_trees_close

DRAWN = DrawnTasks(TASKS, num_levels=5, seed=3)
init = jax.jit(lambda curriculum, seed: curriculum.init(jax.random.key(seed)), static_argnums=0)
propose = jax.jit(lambda curriculum, key, state, num: curriculum.propose(key, state, num), static_argnums=(0, 3))


@pytest.fixture(scope="module")
def levels():
    curriculum = PrioritizedLevelReplay(TASKS, capacity=6)

    @jax.jit
    def played():
        key = jax.random.key(0)
        state, proposal = curriculum.propose(key, curriculum.init(key), 4)
        scores = jnp.array([0.5, jnp.nan, 2.0, 1.0])
        return curriculum.observe(key, state, proposal, scores, jnp.ones(4, bool))[0]

    return Levels(played(), TASKS, {"run": "a", "seed": 3})


@pytest.fixture
def folder(tmp_path, levels):
    return save_levels(levels, tmp_path / "deep" / "levels")


def test_a_fixed_set_is_drawn_from_uniformly():
    curriculum = FixedSet(DRAWN)
    state = init(curriculum, 0)
    _, proposal = propose(curriculum, jax.random.key(1), state, 4000)
    walls, everything = np.asarray(proposal.tasks.level.walls), np.asarray(state.level.walls)
    counts = [(walls == one).all(axis=1).sum() for one in everything]
    assert sum(counts) == 4000
    assert stats.chisquare(counts).pvalue > 1e-3
    assert (np.asarray(proposal.places) == -1).all()
    assert np.asarray(proposal.train_mask).all()


def test_the_set_does_not_depend_on_the_key_of_the_run():
    curriculum = FixedSet(DRAWN)
    assert_trees_close(init(curriculum, 0), init(curriculum, 1))


def test_seed_and_number_decide_the_set():
    drawn, other, more = (jax.jit(each.all)() for each in (DRAWN, replace(DRAWN, seed=4), replace(DRAWN, num_levels=7)))
    assert (np.asarray(other.level.walls) != drawn.level.walls).any()
    assert_trees_close(drawn, jax.tree.map(lambda leaf: np.asarray(leaf)[:5], more))


def test_a_fixed_set_learns_nothing():
    curriculum = FixedSet(DRAWN)
    state, proposal = propose(curriculum, jax.random.key(0), init(curriculum, 0), 2)
    after, metrics = curriculum.observe(jax.random.key(0), state, proposal, np.ones(2), np.ones(2, bool))
    assert after is state
    assert metrics == {}


def test_fixed_sets_come_back_from_data():
    for curriculum in (FixedSet(DRAWN), FixedSet(SavedTasks("runs/a/levels"))):
        assert config.from_data(config.to_data(curriculum)) == curriculum


@pytest.mark.parametrize(
    "make", [lambda: DrawnTasks(TASKS, 0), lambda: DrawnTasks(TASKS, seed=-1), lambda: SavedTasks("")]
)
def test_impossible_sets_are_refused(make):
    with pytest.raises(ValueError, match="use "):
        make()


def test_saved_levels_come_back_as_they_were(folder, levels):
    after = load_levels(folder)
    assert trees_equal(after.buffer, levels.buffer)
    assert (after.tasks, after.provenance) == (levels.tasks, levels.provenance)
    assert names(folder) == ["curriculum.json", "curriculum.safetensors"]
    assert names(folder.parent) == ["levels"]


def test_a_run_can_use_the_played_levels_of_another(folder, levels):
    curriculum = FixedSet(SavedTasks(str(folder)))
    state = init(curriculum, 0)
    assert_trees_close(state, curriculum.init(jax.random.key(0)))
    assert state.lifetime.shape == (3,)
    order = np.argsort(-np.asarray(levels.buffer.score)[np.asarray(levels.buffer.is_filled)])
    played = np.flatnonzero(levels.buffer.is_filled)[order]
    np.testing.assert_array_equal(state.level.walls, levels.buffer.tasks.level.walls[played])
    _, proposal = propose(curriculum, jax.random.key(1), state, 8)
    assert (np.asarray(proposal.tasks.lifetime) > 0).all()


def test_a_buffer_without_levels_is_no_set(tmp_path):
    buffer = jax.jit(lambda: level_buffer.empty(TASKS.sample(jax.random.key(0)), 3))()
    folder = save_levels(Levels(buffer, TASKS), tmp_path / "levels")
    with pytest.raises(CheckpointError, match="ever played"):
        SavedTasks(str(folder)).all()


def test_levels_are_overwritten_only_when_asked_for(folder, levels):
    with pytest.raises(CheckpointError, match="overwrite=True"):
        save_levels(levels, folder)
    save_levels(Levels(levels.buffer, TASKS, {"run": "b"}), folder, overwrite=True)
    assert load_levels(folder).provenance == {"run": "b"}


def test_what_is_not_levels_is_never_overwritten(tmp_path, levels):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(CheckpointError, match="name another folder"):
        save_levels(levels, tmp_path, overwrite=True)


def test_levels_of_other_tasks_are_not_saved(tmp_path, levels):
    with pytest.raises(CheckpointError, match=r"does not fit its tasks: \.tasks\.level\.walls is bool\[6, 16\] there"):
        save_levels(Levels(levels.buffer, Tasks(GridLevels())), tmp_path / "levels")
    assert names(tmp_path) == []


def test_provenance_must_be_json(tmp_path, levels):
    with pytest.raises(CheckpointError, match="JSON"):
        save_levels(Levels(levels.buffer, TASKS, {"score": float("nan")}), tmp_path / "levels")


def edit(folder, change, *, sign):
    document = json.loads((folder / "curriculum.json").read_text())
    change(document)
    if sign:  # as somebody would who knows the format
        document["sha256"] = hash_document(document)
    (folder / "curriculum.json").write_text(json.dumps(document))


DAMAGES = {
    "no folder": (lambda folder: (folder / "curriculum.json").unlink(), "has no curriculum.json"),
    "no arrays": (lambda folder: (folder / "curriculum.safetensors").unlink(), "is not complete"),
    "short arrays": (lambda folder: truncate(folder / "curriculum.safetensors"), "truncated, damaged or tampered"),
    "changed arrays": (lambda folder: flip(folder / "curriculum.safetensors"), "truncated, damaged or tampered"),
    "short document": (lambda folder: truncate(folder / "curriculum.json"), "truncated or damaged"),
    "changed document": (lambda folder: edit(folder, lambda d: d.update(capacity=7), sign=False), "digest differs"),
    "another version": (lambda folder: edit(folder, lambda d: d.update(format_version=2), sign=True), "version 2"),
    "another capacity": (lambda folder: edit(folder, lambda d: d.update(capacity=7), sign=True), "does not fit"),
    "no capacity": (lambda folder: edit(folder, lambda d: d.update(capacity="7"), sign=True), "at least 1"),
    "missing key": (lambda folder: edit(folder, lambda d: d.pop("tasks"), sign=True), "has no tasks"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_levels_are_refused_with_the_reason(folder, damage):
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        load_levels(folder)


def test_tasks_of_unknown_code_are_not_imported(folder):
    edit(folder, lambda d: d["tasks"].update({"class": "antigravity_of_others:Tasks"}), sign=True)
    with pytest.raises(config.ConfigError, match="not part of metadisco"):
        load_levels(folder)
