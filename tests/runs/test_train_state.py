"""A train state comes back bit for bit, or the one before it does."""

import json
import shutil

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from metadisco.core.files import CheckpointError
from metadisco.runs.train_state import Checkpoints
from tests.support.disk import flip, names, trees_equal, truncate


@struct.dataclass
class State:
    step: jax.Array
    params: dict
    keys: jax.Array
    nothing: jax.Array


def state(step=0):
    keys = jax.random.split(jax.random.key(step, impl="rbg"), 2)
    params = {"a": jnp.full((3,), step + 0.1), "b": (jnp.ones(2, bool), jnp.ones((2, 2), jnp.bfloat16)), "c": ()}
    return State(jnp.int32(step), params, keys, jnp.zeros((0, 4)))


def data(tree):
    return tree.replace(keys=jax.random.key_data(tree.keys))


SHAPES = jax.eval_shape(state)


def test_train_state_comes_back_bit_for_bit(tmp_path):
    Checkpoints(tmp_path / "run").save(7, state(7))
    step, restored = Checkpoints(tmp_path / "run").restore_latest(SHAPES)
    assert step == 7
    assert trees_equal(data(restored), data(state(7)))
    assert restored.keys.dtype == state(7).keys.dtype


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "run").restore_latest(SHAPES) is None


def test_relative_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Checkpoints("run").save(1, state(1))
    assert Checkpoints("run").restore_latest(SHAPES).step == 1


def test_newest_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 5, 10):
        checkpoints.save(step, state(step))
    assert checkpoints.steps() == [5, 10]
    assert len(names(tmp_path)) == 4


def biggest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def each(folder, change):
    for path in list(folder.rglob("*")):
        if path.is_file():
            change(path)


def edited(**changes):
    """A damage that changes entries of the manifest; None takes one out."""

    def edit(path, manifest):
        document = json.loads(manifest.read_text()) | changes
        manifest.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))

    return edit


DAMAGES = {
    "truncated file": lambda path, manifest: truncate(biggest(path)),
    "empty file": lambda path, manifest: biggest(path).write_bytes(b""),
    "flipped bit": lambda path, manifest: flip(biggest(path)),
    "garbage in every file": lambda path, manifest: each(path, lambda file: file.write_bytes(b"\x00garbage" * 9)),
    "missing file": lambda path, manifest: biggest(path).unlink(),
    "missing folder": lambda path, manifest: shutil.rmtree(path),
    "missing manifest": lambda path, manifest: manifest.unlink(),
    "truncated manifest": lambda path, manifest: truncate(manifest),
    "garbage manifest": lambda path, manifest: manifest.write_bytes(b"\xff\x00"),
    "manifest of a list": lambda path, manifest: manifest.write_text("[]"),
    "manifest without a version": edited(format_version=None),
    "manifest of a version that is none": edited(format_version="1"),
    "manifest of another step": edited(step=1),
    "manifest without files": edited(files=None),
    "manifest of no files": edited(files={}),
    "manifest of a list of files": edited(files=[]),
    "manifest of digests that are none": edited(files={"a": 1}),
    "manifest without leaves": edited(leaves=None),
    "manifest of no leaves": edited(leaves={}),
    "manifest of leaves that are none": edited(leaves={"a": 1}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_newest_checkpoint_is_skipped_for_the_one_before_naming_it(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step))
    damage(tmp_path / "0000000002", tmp_path / "0000000002.json")
    with pytest.warns(UserWarning, match=f"Skipping checkpoint {tmp_path / '0000000002'}: "):
        step, restored = checkpoints.restore_latest(SHAPES)
    assert step == 1
    assert trees_equal(data(restored), data(state(1)))


def test_saving_clears_what_is_damaged_or_unfinished(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state(5))
    (tmp_path / "0000000009").mkdir()
    (tmp_path / "0000000003").mkdir()
    (tmp_path / "0000000009.orbax-checkpoint-tmp").mkdir()
    (tmp_path / ".0000000009.json.partial").write_text("{")
    truncate(biggest(tmp_path / "0000000005"))
    checkpoints.save(4, state(4))
    assert names(tmp_path) == ["0000000004", "0000000004.json"]
    assert checkpoints.restore_latest(SHAPES).step == 4


def test_state_of_other_shapes_is_an_error_and_not_a_damage(tmp_path):
    Checkpoints(tmp_path).save(1, state(1))
    wider = state(1).replace(nothing=jnp.zeros((1, 4)))
    with pytest.raises(CheckpointError, match=r"\.nothing is float32\[0, 4\] there and float32\[1, 4\] here"):
        Checkpoints(tmp_path).restore_latest(wider)


def test_checkpoint_of_another_format_version_is_an_error_and_not_a_damage(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step))
    edited(format_version=9)(tmp_path / "0000000002", tmp_path / "0000000002.json")
    with pytest.raises(CheckpointError, match="format version 9; this metadisco reads 1"):
        checkpoints.restore_latest(SHAPES)


@pytest.mark.filterwarnings("ignore:Skipping checkpoint")
def test_where_all_checkpoints_are_damaged_none_is_restored_and_none_deleted(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step))
        flip(biggest(tmp_path / f"{step:010d}"))
    with pytest.raises(CheckpointError, match=f"All checkpoints in {tmp_path} are damaged"):
        checkpoints.restore_latest(SHAPES)
    assert checkpoints.steps() == [1, 2]


@pytest.mark.filterwarnings("ignore:Skipping checkpoint")
def test_checkpoint_that_was_never_finished_is_no_checkpoint(tmp_path):
    (tmp_path / "0000000000").mkdir()
    assert Checkpoints(tmp_path).restore_latest(SHAPES) is None


def test_keeping_one_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep at least 2"):
        Checkpoints(tmp_path, keep=1)


def test_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Cannot write checkpoint"):
        Checkpoints(tmp_path / "file" / "run").save(1, state(1))
