"""Levels left in the folder of a run, and what another run makes of them."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from metadisco.commands.discovery import snapshots as leaving
from metadisco.core import config
from metadisco.core.files import CheckpointError
from metadisco.curricula import buffer as level_buffer
from metadisco.curricula.accel import ACCEL
from metadisco.curricula.fixed import FixedSet, SavedTasks
from metadisco.curricula.level_files import Levels, load_levels, save_levels
from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.snapshots import find_snapshots, level_keeper, save_snapshot, snapshot_interval
from metadisco.curricula.tasks import LogUniformLifetime, Tasks
from metadisco.presets.base import Preset
from metadisco.runs.hooks import Snapshot
from tests.support import small, toy
from tests.support.disk import trees_equal
from tests.support.small import LEVELS, TASKS, assert_trees_close
from tests.support.toy import numbers_logged

PLR = PrioritizedLevelReplay(TASKS, capacity=6)
STEPS = 3


@struct.dataclass
class IdleState:
    step: jax.Array  # [] int32
    curricula: tuple


@dataclass(frozen=True)
class Idle:
    """A trainer that lives no life: a level's score is its lifetime and a little noise."""

    curriculum: Any
    num_steps: int = STEPS

    @property
    def domains(self):
        return (self,)  # all that is asked of it is its curriculum

    def init(self, key):
        return IdleState(jnp.int32(0), (self.curriculum.init(key),))

    def step(self, key, state):
        propose_key, score_key, observe_key = jax.random.split(key, 3)
        curriculum, proposal = self.curriculum.propose(propose_key, state.curricula[0], 4)
        scores = proposal.tasks.lifetime + jax.random.uniform(score_key, (4,))
        curriculum, metrics = self.curriculum.observe(observe_key, curriculum, proposal, scores, jnp.ones(4, bool))
        return IdleState(state.step + 1, (curriculum,)), metrics | {"fitness": jnp.mean(scores)}


def run(folder, trainer, **options):
    """A tiny run, wired up as in a discovery."""
    leave = leaving(Preset("tiny", "", trainer), 3)
    hooks = [] if leave is None else [Snapshot("levels", 2, leave)]
    return toy.run(trainer, folder, hooks, **options)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run with a level buffer: its folder and its last state."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    return folder, run(folder, Idle(PLR)).state


@pytest.fixture(scope="module")
def folder(first):
    return str(find_snapshots(first[0])[STEPS])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_run_leaves_its_levels_at_an_interval_and_at_its_end(first):
    folder, state = first
    snapshots = find_snapshots(folder)
    assert list(snapshots) == [2, STEPS]  # nothing was played at 0
    last = load_levels(snapshots[STEPS])
    assert trees_equal(last.buffer, state.curricula[0])
    assert last.tasks == TASKS
    assert last.provenance == {"preset": "tiny", "seed": 3, "meta_step": STEPS}


def test_resumed_run_leaves_the_same_files(first, tmp_path):
    run(tmp_path / "run", Idle(PLR), steps=2)
    run(tmp_path / "run", Idle(PLR), resume=True)
    assert contents(tmp_path / "run" / "levels") == contents(first[0] / "levels")


@pytest.mark.slow
def test_another_run_trains_on_the_levels_of_a_run(first, folder, tmp_path):
    trainer = small.altered(small.trainer(), curriculum=FixedSet(SavedTasks(folder)))
    result = run(tmp_path / "second", trainer, steps=2)
    assert np.isfinite([row["fitness"] for row in numbers_logged(tmp_path / "second")]).all()
    assert trees_equal(jax.device_get(result.state.curricula[0]), load_levels(folder).played())
    assert find_snapshots(tmp_path / "second") == {}  # a fixed set is no buffer


def test_run_with_warm_start_begins_with_the_levels_of_a_run(folder, tmp_path):
    result = run(tmp_path / "second", Idle(replace(PLR, warm_start=folder)), steps=2)
    snapshots = find_snapshots(tmp_path / "second")
    assert list(snapshots) == [0, 2]
    assert_trees_close(load_levels(snapshots[0]).played(), load_levels(folder).played())
    assert (result.state.curricula[0].num_plays >= 1).sum() == 6


def test_only_curricula_with_a_buffer_keep_levels():
    assert level_keeper(DomainRandomization(TASKS)) is None
    for curriculum in (PLR, ACCEL(PLR)):
        assert level_keeper(curriculum) is curriculum
        assert curriculum.tasks is TASKS


def test_levels_that_nobody_played_are_not_left(tmp_path):
    assert save_snapshot(tmp_path, 5, PLR, PLR.init(jax.random.key(0)), {}) is None
    assert not list(tmp_path.iterdir())


def test_snapshots_are_found_in_the_order_of_their_steps(tmp_path):
    for name in ("10", "9", ".8.partial", "x7", "06"):
        (tmp_path / "levels" / name).mkdir(parents=True)
    (tmp_path / "levels" / "5").touch()
    assert list(find_snapshots(tmp_path)) == [6, 9, 10]
    assert find_snapshots(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(("num_steps", "interval"), [(1, 1), (7, 1), (10, 1), (11, 2), (2500, 250)])
def test_interval_gives_ten_snapshots_or_fewer(num_steps, interval):
    assert snapshot_interval(num_steps) == interval


@pytest.fixture
def scored(tmp_path):
    """Four levels with scores in places 0, 2, 3 and 5 of a buffer, as a folder."""
    tasks = jax.jit(jax.vmap(TASKS.sample))(jax.random.split(jax.random.key(5), 6))
    buffer = level_buffer.empty(jax.tree.map(lambda leaf: leaf[0], tasks), 6).replace(
        tasks=tasks,
        score=jnp.array([1.0, 9.0, 3.0, 2.0, 9.0, 4.0]),
        is_filled=jnp.array([True, False, True, True, False, True]),
        num_plays=jnp.array([1, 0, 5, 2, 0, 7]),
        born=jnp.array([3, -1, 8, 9, -1, 20]),
        last_seen=jnp.array([3, 0, 18, 19, 0, 28]),
        clock=jnp.int32(30),
    )
    return tasks, str(save_levels(Levels(buffer, TASKS), tmp_path / "levels"))


@pytest.mark.parametrize("capacity", [5, 4, 2])
def test_warm_start_takes_the_best_levels_with_their_scores(scored, capacity):
    tasks, folder = scored
    curriculum = PrioritizedLevelReplay(TASKS, capacity=capacity, warm_start=folder)
    buffer = jax.jit(curriculum.init)(jax.random.key(0))
    best, num = np.array([5, 2, 3, 0])[:capacity], min(4, capacity)
    assert trees_equal(
        jax.tree.map(lambda leaf: leaf[:num], buffer.tasks), jax.tree.map(lambda leaf: leaf[best], tasks)
    )
    np.testing.assert_array_equal(buffer.score, [4.0, 3.0, 2.0, 1.0, 0.0][:capacity])
    np.testing.assert_array_equal(buffer.num_plays, [7, 5, 2, 1, 0][:capacity])
    np.testing.assert_array_equal(buffer.born, [0, 0, 0, 0, -1][:capacity])
    np.testing.assert_array_equal(buffer.last_seen, np.zeros(capacity))
    np.testing.assert_array_equal(buffer.is_filled, np.arange(capacity) < 4)
    assert (int(buffer.clock), int(buffer.num_nonfinite)) == (0, 0)


def test_warm_start_is_traced_like_a_cold_one(scored):
    warm = PrioritizedLevelReplay(TASKS, capacity=5, warm_start=scored[1])
    cold = replace(warm, warm_start="")
    shapes = [jax.eval_shape(each.init, jax.random.key(0)) for each in (warm, cold)]
    assert shapes[0] == shapes[1]
    assert_trees_close(jax.jit(warm.init)(jax.random.key(0)), warm.init(jax.random.key(0)))
    assert config.from_data(config.to_data(warm)) == warm


def test_levels_of_a_warm_start_are_replayed_at_once(scored):
    curriculum = PrioritizedLevelReplay(TASKS, capacity=5, warm_start=scored[1], replay_probability=1.0)
    _, proposal = jax.jit(curriculum.propose, static_argnums=2)(
        jax.random.key(1), curriculum.init(jax.random.key(0)), 4
    )
    assert sorted(proposal.places.tolist()) == [0, 1, 2, 3]
    assert (proposal.born == 0).all()


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (Tasks(LEVELS, LogUniformLifetime(1, 9)), r"lifetimes\.longest: 5 -> 9"),
        (Tasks(replace(LEVELS, max_side=5), TASKS.lifetimes), r"levels\.max_side: 4 -> 5"),
    ],
    ids=["distribution", "shape"],
)
def test_warm_start_refuses_levels_of_other_tasks(scored, tasks, words):
    curriculum = PrioritizedLevelReplay(tasks, capacity=5, warm_start=scored[1])
    with pytest.raises(ValueError, match=rf"are of other tasks:\n  {words}"):
        curriculum.init(jax.random.key(0))


def test_warm_start_refuses_what_holds_no_levels(tmp_path):
    with pytest.raises(CheckpointError, match="not a folder of levels"):
        replace(PLR, warm_start=str(tmp_path)).init(jax.random.key(0))
    empty = level_buffer.empty(TASKS.sample(jax.random.key(0)), 3)
    save_levels(Levels(empty, TASKS), tmp_path / "levels")
    with pytest.raises(CheckpointError, match="ever played"):
        replace(PLR, warm_start=str(tmp_path / "levels")).init(jax.random.key(0))


def test_a_buffer_cannot_begin_with_more_levels_than_it_holds():
    tasks = jax.vmap(TASKS.sample)(jax.random.split(jax.random.key(5), 3))
    with pytest.raises(ValueError, match="cannot hold 3"):
        level_buffer.begin(tasks, jnp.ones(3), jnp.ones(3, jnp.int32), 2)
