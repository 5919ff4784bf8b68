"""The notebooks: kept without outputs, and free of warnings and of our machine's paths when executed."""

import ast
import base64
import copy
import importlib
import re

import nbformat
import numpy as np
import pytest

from metadisco.reports import chart_style, plots
from notebooks import pages
from notebooks.execute import TINY, clean, execute, notebooks, warnings, with_parameters, without_outputs

PATHS = notebooks()
NUM_PICTURES = {
    "01_quickstart": 3,
    "02_what_did_it_discover": 6,
    "03_your_own_objective": 3,
    "04_design_a_curriculum": 4,
    "05_your_own_environment": 4,
    "06_in_your_own_training_loop": 2,
}
# Folders of machines, as in `/tmp/x`; `/` inside a word or a relative path is fine.
ABSOLUTE = re.compile(r"(?<![\w.:/<-])/(tmp|var|root|work|home|Users|opt|usr|mnt|data)/\w|file://")

everyone = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code(path):
    """Its cells of code."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def is_there(module, name):
    """Whether a module has a name, as an attribute or as a module in it."""
    return hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}") is not None


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook):
    """Bytes of the PNG images in the outputs."""
    found = [output.get("data", {}).get("image/png") for output in outputs(notebook)]
    return [base64.b64decode(image) for image in found if image]


def texts(notebook):
    """What is shown as text, of any kind."""
    found = [output.get("text", "") for output in outputs(notebook)]
    for output in outputs(notebook):
        found += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return found


def test_there_are_six():
    assert [path.stem for path in PATHS] == list(NUM_PICTURES)


@everyone
def test_it_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook == without_outputs(copy.deepcopy(notebook)), (
        "clear its outputs; `make notebooks` writes them elsewhere"
    )
    assert not outputs(notebook)
    assert path.stat().st_size < 50_000


def test_outputs_and_traces_of_a_machine_are_cleared():
    cell = nbformat.v4.new_code_cell("1 + 1", outputs=[nbformat.v4.new_output("stream", text="2")], execution_count=3)
    cell.metadata = {"execution": {"iopub.status.busy": "2000-01-01"}, "tags": ["parameters"]}
    cleared = without_outputs(nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}})).cells[0]
    assert (cleared.outputs, cleared.execution_count) == ([], None)
    assert cleared.metadata == {"tags": ["parameters"]}


@everyone
def test_what_it_takes_from_metadisco_is_there(path):
    """All that can be said of code without running it, so that the quick tests notice a name that has gone."""
    tree = ast.parse(
        "\n".join(cell.source for cell in code(path) if not cell.source.startswith("%%")).replace("\n%", "\n# %")
    )
    taken = [
        (node.module, alias.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    taken += [
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    taken = {(module, name) for module, name in taken if module.partition(".")[0] == "metadisco"}
    assert taken
    assert not [f"{module}.{name}" for module, name in sorted(taken) if not is_there(module, name)]


@everyone
def test_it_is_a_page_of_the_documentation(path):
    assert (pages.PAGES / f"{path.stem}.md").read_text() == pages.page(path), "run python -m notebooks.pages"
    assert f"notebooks/{path.stem}.md" in (pages.PAGES.parents[1] / "mkdocs.yml").read_text()


@everyone
def test_one_cell_has_the_parameters_and_opens_without_a_word_of_tests(path):
    notebook = nbformat.read(path, as_version=4)
    tagged = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert not re.search(r"tiny|environ\b|\btests?\b", tagged[0].source.lower())
    changed = with_parameters(copy.deepcopy(notebook), TINY[path.stem])
    (cell,) = [cell for cell in changed.cells if "parameters" in cell.metadata.get("tags", [])]
    last = {each.targets[0].id: ast.literal_eval(each.value) for each in ast.parse(cell.source).body}
    assert {name: last[name] for name in TINY[path.stem]} == TINY[path.stem]
    assert len(changed.cells) == len(notebook.cells)


def test_a_parameter_that_a_notebook_does_not_have_is_refused():
    notebook = nbformat.read(PATHS[0], as_version=4)
    with pytest.raises(ValueError, match="must assign NOTHING"):
        with_parameters(notebook, {"NOTHING": 1})


def test_a_chart_shows_itself_where_nobody_has_heard_of_pyplot():
    image, size = plots.profile({"a2c": np.array([[0.2], [0.6]])})._repr_png_()
    assert image.startswith(b"\x89PNG")
    assert size == {"width": chart_style.WIDTH, "height": chart_style.HEIGHT}


@pytest.mark.slow  # up to half a minute each
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_runs_and_shows_its_pictures(path, tmp_path):
    executed = execute(path, tmp_path, is_tiny=True)
    assert not warnings(executed)
    notebook = clean(executed)
    nbformat.validate(notebook)
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    found = pictures(notebook)
    assert len(found) == NUM_PICTURES[path.stem]
    assert all(image.startswith(b"\x89PNG") and len(image) > 5_000 for image in found)
    assert not [text for text in texts(notebook) if "Figure(" in text or ABSOLUTE.search(text)]
    assert all("execution" not in cell.metadata for cell in notebook.cells)
