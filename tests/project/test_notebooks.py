"""The notebooks: that they still run, and that what they have stored is real, whole and says nothing of our machine."""

import base64
import re

import nbformat
import numpy as np
import pytest

from metadisco.reports import chart_style, plots
from notebooks.execute import KERNEL, clean, digest, execute, notebooks

PATHS = notebooks()
FAST = {"03_your_own_objective"}  # the others take up to half a minute each
NUM_PICTURES = {
    "01_quickstart": 3,
    "02_what_did_it_discover": 5,
    "03_your_own_objective": 3,
    "04_design_a_curriculum": 4,
    "05_your_own_environment": 4,
    "06_in_your_own_training_loop": 2,
}
# Folders of machines, as in `/tmp/x`; `/` inside a word or a relative path is fine.
ABSOLUTE = re.compile(r"(?<![\w.:/<-])/(tmp|var|root|work|home|Users|opt|usr|mnt|data)/\w|file://")

everyone = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook):
    """Bytes of the PNG images in the outputs."""
    found = [output.get("data", {}).get("image/png") for output in outputs(notebook)]
    return [base64.b64decode(image) for image in found if image]


def texts(notebook):
    """What is stored as text, of any kind."""
    found = [output.get("text", "") for output in outputs(notebook)]
    for output in outputs(notebook):
        found += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return found


def test_there_are_six():
    assert [path.stem for path in PATHS] == list(NUM_PICTURES)


@everyone
def test_stored_outputs_are_of_this_very_code(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.code_sha256 == digest(notebook), "run `make notebooks` after a change of code"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@everyone
def test_stored_outputs_are_free_of_errors_and_warnings(path):
    notebook = nbformat.read(path, as_version=4)
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not [text for text in texts(notebook) if "Figure(" in text or "NaN" in text]


@everyone
def test_stored_pictures_are_there(path):
    stored = pictures(nbformat.read(path, as_version=4))
    assert len(stored) == NUM_PICTURES[path.stem]
    assert all(image.startswith(b"\x89PNG") and len(image) > 5_000 for image in stored)
    assert path.stat().st_size < 1_500_000


@everyone
def test_nothing_stored_is_of_our_machine(path):
    notebook = nbformat.read(path, as_version=4)
    assert not [text for text in texts(notebook) if ABSOLUTE.search(text)]
    assert notebook.metadata.kernelspec == KERNEL
    assert set(notebook.metadata) == {"kernelspec", "language_info", "code_sha256"}
    assert all("execution" not in cell.metadata for cell in notebook.cells)


@everyone
def test_one_cell_has_the_parameters(path):
    notebook = nbformat.read(path, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert "METADISCO_TINY" in tagged[0].source


def test_a_chart_shows_itself_where_nobody_has_heard_of_pyplot():
    image, size = plots.profile({"a2c": np.array([[0.2], [0.6]])})._repr_png_()
    assert image.startswith(b"\x89PNG")
    assert size == {"width": chart_style.WIDTH, "height": chart_style.HEIGHT}


def marked(path):
    return pytest.param(path, id=path.stem, marks=() if path.stem in FAST else pytest.mark.slow)


@pytest.mark.parametrize("path", [marked(path) for path in PATHS])
def test_it_runs(path, tmp_path):
    notebook = clean(execute(path, tmp_path, is_tiny=True))
    assert len(pictures(notebook)) == NUM_PICTURES[path.stem]
    assert notebook.metadata.code_sha256 == digest(notebook)
