"""A folder of arrays comes back as it was, or not at all with the reason."""

import json

import numpy as np
import pytest
import safetensors.numpy

from metadisco.core.files import CheckpointError
from metadisco.core.tensor_folder import TensorFolder

KIND = TensorFolder("thing.json", "thing.safetensors", "arrays_sha256", version=1, keys=frozenset({"size"}))
ARRAYS = {"a": np.arange(3, dtype=np.float32), "b": np.array([True, False])}


@pytest.fixture
def folder(tmp_path):
    blob = safetensors.numpy.save(ARRAYS, KIND.metadata)
    KIND.write(tmp_path / "thing", KIND.seal({"size": 3}, blob), blob, beside={"README.md": b"hi"}, overwrite=False)
    return tmp_path / "thing"


def test_document_and_arrays_come_back(folder):
    document, arrays = KIND.read(folder, safetensors.numpy.load_file)
    assert document["size"] == 3
    np.testing.assert_equal(arrays, ARRAYS)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "thing.json", "thing.safetensors"]
    assert KIND.is_in(folder)


def test_what_is_not_json_is_refused_before_anything_is_written():
    with pytest.raises(CheckpointError, match="only JSON values"):
        KIND.seal({"size": float("nan")}, b"")


def test_other_arrays_are_refused(folder):
    (folder / "thing.safetensors").write_bytes(safetensors.numpy.save({"a": np.zeros(3)}, KIND.metadata))
    with pytest.raises(CheckpointError, match="does not match the digest"):
        KIND.read(folder, safetensors.numpy.load_file)


def test_bytes_that_are_no_arrays_are_refused_though_their_digest_is_right(tmp_path):
    KIND.write(tmp_path / "thing", KIND.seal({"size": 3}, b"nonsense"), b"nonsense", overwrite=False)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        KIND.read(tmp_path / "thing", safetensors.numpy.load_file)


def test_a_changed_or_incomplete_document_is_refused(folder):
    document = json.loads((folder / "thing.json").read_text())
    (folder / "thing.json").write_text(json.dumps(document | {"size": 4}))
    with pytest.raises(CheckpointError, match="was changed"):
        KIND.read(folder, safetensors.numpy.load_file)
    other = TensorFolder("thing.json", "thing.safetensors", "arrays_sha256", version=1, keys=frozenset({"color"}))
    (folder / "thing.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="has no color"):
        other.read(folder, safetensors.numpy.load_file)
