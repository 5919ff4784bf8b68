"""The published file of Disco103: read as it is, and refused by the name of the array that is wrong."""

import io

import jax
import numpy as np
import pytest

import metadisco
from metadisco.checkpoints import disco103
from metadisco.core.files import CheckpointError
from metadisco.objectives.disco103 import Disco103
from tests.golden import disco103_inputs as inputs

ARRAYS = inputs.weights(disco103.names_and_shapes(Disco103()))
NAME = "lstm/~/meta_lstm/~unroll/mlp_2/~/linear_0/w"
COMES_FROM = "get it again from https://github.com/google-deepmind/disco_rl/"


def write(folder, arrays):
    np.savez(folder / "disco_103.npz", **arrays)
    return folder


def without(name):
    return {other: array for other, array in ARRAYS.items() if other != name}


def test_the_file_has_the_arrays_of_the_publication():
    shapes = disco103.names_and_shapes(Disco103())
    assert len(shapes) == 42
    assert sum(np.prod(shape) for shape in shapes.values()) == 754_778
    assert shapes["lstm/lstm/linear/w"] == (283, 1024)
    assert shapes["lstm/sequential_1/conv1_d/w"] == (1, 516, 16)
    assert shapes["lstm/~/meta_lstm/~unroll/lstm/linear/w"] == (144, 512)


def test_every_number_of_the_file_is_in_the_meta_parameters(tmp_path):
    discovered = metadisco.load_disco103(write(tmp_path, ARRAYS))
    assert discovered.objective == Disco103()
    shapes = jax.eval_shape(discovered.objective.init, jax.random.key(0))
    assert jax.tree.map(np.shape, discovered.meta_params) == jax.tree.map(np.shape, shapes)
    ours = np.sort(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(discovered.meta_params)]))
    np.testing.assert_array_equal(ours, np.sort(np.concatenate([np.ravel(array) for array in ARRAYS.values()])))


def test_it_can_be_saved_and_the_card_names_whom_to_thank(tmp_path):
    discovered = metadisco.load_disco103(write(tmp_path, ARRAYS) / "disco_103.npz")
    folder = metadisco.save(discovered, tmp_path / "saved")
    again = metadisco.load(folder)
    assert again.objective == discovered.objective
    jax.tree.map(np.testing.assert_array_equal, again.meta_params, discovered.meta_params)
    card = (folder / "README.md").read_text()
    section = card.partition("## License")[2].partition("## ")[0]
    for part in ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/legalcode", "Google LLC", "J. Oh"):
        assert part in section
    assert "unchanged" in section
    assert "without warranties" in section


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        (without(NAME), f"has no array {NAME!r}"),
        (ARRAYS | {NAME: ARRAYS[NAME].T}, rf"{NAME!r} is float32\[16, 29\] and must be float32\[29, 16\]"),
        (ARRAYS | {NAME: ARRAYS[NAME].astype(np.float64)}, rf"{NAME!r} is float64\[29, 16\]"),
        (ARRAYS | {NAME: np.where(ARRAYS[NAME] > 0.3, np.nan, ARRAYS[NAME])}, f"{NAME!r} has numbers that are not"),
        (ARRAYS | {"lstm/more/w": ARRAYS[NAME]}, "an array 'lstm/more/w', which Disco103 has not"),
    ],
    ids=["missing", "shape", "type", "nan", "unknown"],
)
def test_an_array_that_is_wrong_is_named(arrays, complaint, tmp_path):
    with pytest.raises(CheckpointError, match=complaint) as raised:
        metadisco.load_disco103(write(tmp_path, arrays))
    assert COMES_FROM in str(raised.value)


def test_a_damaged_array_is_named(tmp_path):
    file = write(tmp_path, ARRAYS) / "disco_103.npz"
    content = bytearray(file.read_bytes())
    place = content.index(ARRAYS[NAME].tobytes())
    content[place + 100] ^= 255
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"the array {NAME!r} is damaged") as raised:
        metadisco.load_disco103(file)
    assert COMES_FROM in str(raised.value)


@pytest.mark.parametrize("keep", [0, 1000, 2_000_000])
def test_a_truncated_file_is_refused(keep, tmp_path):
    file = write(tmp_path, ARRAYS) / "disco_103.npz"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or no npz file") as raised:
        metadisco.load_disco103(file)
    assert COMES_FROM in str(raised.value)


def test_a_file_of_objects_and_one_array_alone_are_refused(tmp_path):
    file = write(tmp_path, ARRAYS | {NAME: np.array([{}], dtype=object)}) / "disco_103.npz"
    with pytest.raises(CheckpointError, match=NAME):
        metadisco.load_disco103(file)
    buffer = io.BytesIO()
    np.save(buffer, ARRAYS[NAME])
    file.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="truncated or no npz file"):
        metadisco.load_disco103(file)


def test_a_file_that_is_not_there_is_refused_with_where_it_comes_from(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read") as raised:
        metadisco.load_disco103(tmp_path / "no_such_file.npz")
    assert COMES_FROM in str(raised.value)
