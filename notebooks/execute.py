"""Run the notebooks and write them with what they show: `make notebooks`, or python notebooks/execute.py notebooks/02*

The files here have no outputs; executed notebooks go into build/notebooks, which git ignores. A notebook is executed
from top to bottom by a new kernel in a folder of its own, so that its runs leave nothing here. What would differ from
machine to machine is left out of the file. The tests execute them too, at tiny sizes: a notebook opens with a cell of
sizes, tagged `parameters`, after which `TINY` is assigned then.
"""

import argparse
import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
BUILD = FOLDER.parent / "build" / "notebooks"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
TINY: dict[str, dict[str, object]] = {
    "01_quickstart": {"META_STEPS": 3, "TEST_LEVELS": 2, "LIFETIME": 4},
    "02_what_did_it_discover": {"TEST_LEVELS": 2, "LIFETIME": 2, "LIFETIMES": (2, 3), "LATE": (0.5,)},
    "03_your_own_objective": {"META_STEPS": 2, "NUM_TASKS": 2, "TEST_LEVELS": 2, "LIFETIMES": (2, 3)},
    "04_design_a_curriculum": {"META_STEPS": 2, "NUM_TASKS": 4, "CAPACITY": 8, "LIFETIMES": (2, 3)},
    "05_your_own_environment": {"META_STEPS": 2, "NUM_TASKS": 2, "TEST_LEVELS": 2, "LIFETIMES": (2, 4)},
    "06_in_your_own_training_loop": {"UPDATES": 2, "SEEDS": 2, "ENVIRONMENTS": ("CartPole-v1",)},
}
"""Sizes at which a test executes each notebook."""
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebooks() -> list[Path]:
    """All of them, in order."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def execute(path: Path, folder: Path, *, is_tiny: bool = False, seconds: int = 900) -> nbformat.NotebookNode:
    """Execute a notebook and return it with its outputs; the file stays as it is.

    Args:
        path: of the notebook.
        folder: where its kernel runs.
        is_tiny: whether it runs at the sizes of `TINY` instead of its own.
        seconds: of a cell at most.

    Raises:
        nbclient.exceptions.CellExecutionError: where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if is_tiny:
        notebook = with_parameters(notebook, TINY[path.stem])
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
    )
    tiny = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling is all that takes time then
    with _environment(tiny if is_tiny else dict.fromkeys(tiny)):
        client.execute()
    return notebook


def with_parameters(notebook: nbformat.NotebookNode, values: dict[str, object]) -> nbformat.NotebookNode:
    """A notebook whose cell tagged `parameters` ends with other values of names that it has.

    Raises:
        ValueError: where it has no such cell, or the cell does not have a name.
    """
    found = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assigned = {line.partition(" = ")[0] for cell in found for line in cell.source.splitlines()}
    if len(found) != 1 or not set(values) <= assigned:
        raise ValueError(f"one cell tagged `parameters` must assign {', '.join(values)}; got {sorted(assigned)}")
    found[0].source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    return notebook


def warnings(notebook: nbformat.NotebookNode) -> list[str]:
    """What cells wrote to stderr."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.get("name") == "stderr"]


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what differs from machine to machine."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":  # warnings name files of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)
            if "text/plain" in data:
                data["text/plain"] = ESCAPES.sub("", data["text/plain"])
    return notebook


def without_outputs(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook as it is kept in git: its cells alone."""
    notebook = clean(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


@contextlib.contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    """Environment variables as given, None for unset, and afterwards as they were."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="[default: all]")
    parser.add_argument("--out", type=Path, default=BUILD, help="folder [default: build/notebooks]")
    known = parser.parse_args()
    known.out.mkdir(parents=True, exist_ok=True)
    for path in known.notebooks or notebooks():
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder))
        print(*warnings(notebook), f"{path.name}: {time.perf_counter() - begun:.0f} s", sep="\n")
        nbformat.write(clean(notebook), known.out / path.name)


if __name__ == "__main__":
    main()
