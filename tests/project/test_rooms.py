"""The house has floors: a module imports from its own room and those below (docs/architecture.md)."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the ground up. Imports go down only; docs/architecture.md says what lives where.
ROOMS = (
    *("core", "runs", "envs", "agents", "objectives", "checkpoints", "lives", "curricula", "meta_optimizers"),
    *("meta_training", "evaluation", "presets", "reports", "commands", "testing", "cli", "__main__", ""),
)
STRANGERS = {"curricula", "meta_optimizers"}  # neighbors that never import each other

# Slow to import or optional at run time: the function that needs one imports it.
LAZY = frozenset(
    {"ale_py", "brax", "gymnasium", "gymnax", "matplotlib", "rich", "scipy", "tensorboardX", "tyro", "wandb"}
)
MAY_IMPORT_AT_TOP: dict[str, frozenset[str]] = {}  # {"metadisco.module": frozenset({"library"})}, with the reason

PICKLES = frozenset({"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"})


def package_sources() -> dict[str, str]:
    """Source text of every module of the package, by its dotted name."""
    sources = {}
    for path in sorted((ROOT / "metadisco").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return sources


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that the code imports, inside functions too; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def names_imported_at_top(tree: ast.Module) -> Iterator[str]:
    """Like `imported_names`, without what only runs in a function or is only read by a type checker."""

    def prune(node: ast.AST) -> list[ast.AST]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return []
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return [child for statement in node.orelse for child in prune(statement)]
        children = [kept for child in ast.iter_child_nodes(node) for kept in prune(child)]
        return [node, *children] if isinstance(node, ast.Import | ast.ImportFrom) else children

    for statement in prune(tree):
        yield from imported_names(statement)


def room(name: str) -> str:
    """The room of a module or of what is imported: `metadisco.envs.base` -> `envs`; the package itself is ``."""
    first = name.partition(".")[2].partition(".")[0]
    return first if first in ROOMS else ""


def violations(sources: dict[str, str]) -> list[str]:
    """Imports that go up, or between strangers."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imported_names(ast.parse(source))
        if name.split(".")[0] == "metadisco"
        if ROOMS.index(room(name)) > ROOMS.index(room(module)) or {room(name), room(module)} == STRANGERS
    ]


def early_imports(sources: dict[str, str]) -> list[str]:
    """Slow libraries that are imported when a module is, one sentence each."""
    return sorted(
        f"{module} imports {library} at its top: let the function that needs it import it"
        for module, source in sources.items()
        for library in {name.split(".")[0] for name in names_imported_at_top(ast.parse(source))}
        if library in LAZY - MAY_IMPORT_AT_TOP.get(module, frozenset())
    )


def dangerous_code(sources: dict[str, str]) -> list[str]:
    """Pickles and calls that run text as code, one sentence each."""
    found = []
    for module, source in sources.items():
        tree = ast.parse(source)
        libraries = {name.split(".")[0] for name in imported_names(tree)}
        found += [f"{module} imports {library}" for library in libraries & PICKLES]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
                found.append(f"{module}:{node.lineno} calls {node.func.id}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                found.append(f"{module}:{node.value.lineno} allows pickles")
    return sorted(found)


def test_imports_go_down_only():
    assert violations(package_sources()) == []


def test_every_module_has_a_room_that_the_page_of_the_architecture_describes():
    table = (ROOT / "docs/architecture.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    page = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert page == [name for name in ROOMS if name not in {"cli", "__main__", ""}]
    assert {path.stem for path in (ROOT / "metadisco").iterdir() if not path.name.startswith("__")} == {*page, "cli"}


def test_slow_libraries_are_imported_by_the_function_that_needs_them():
    assert not early_imports(package_sources())


def test_no_pickle_and_no_eval():
    assert not dangerous_code(package_sources())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metadisco.envs.base", "from metadisco.agents import agent"),
        ("metadisco.envs.base", "from metadisco import agents"),
        ("metadisco.envs.base", "def late():\n    import metadisco.meta_training.domain"),
        ("metadisco.envs.base", "from metadisco import load"),
        ("metadisco.envs.base", "import metadisco"),
        ("metadisco.meta_optimizers.gradient", "from metadisco.curricula.base import Curriculum"),
        ("metadisco.curricula.plr", "from metadisco.meta_optimizers import base"),
    ],
)
def test_an_import_against_the_rule_is_found(module, source):
    assert len(violations({module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metadisco.cli", "from metadisco.commands import discovery"),
        (
            "metadisco.meta_training.domain",
            "from metadisco.curricula import base\nimport metadisco.meta_optimizers.base",
        ),
        ("metadisco.envs.base", "from metadisco.core import trees\nimport jax"),
    ],
)
def test_an_import_with_the_rule_passes(module, source):
    assert violations({module: source}) == []


@pytest.mark.parametrize(
    "source",
    [
        "import matplotlib.pyplot as plt",
        "from scipy import stats",
        "try:\n    import brax\nexcept ImportError:\n    brax = None",
        "class Plot:\n    from rich import print",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jax\nelse:\n    import gymnax",
    ],
)
def test_a_slow_import_at_the_top_is_found(source):
    assert len(early_imports({"metadisco.reports": source})) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def plot():\n    import matplotlib.pyplot as plt",
        "class Plot:\n    def draw(self):\n        from rich.table import Table",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import matplotlib",
    ],
)
def test_a_slow_import_in_a_function_passes(source):
    assert not early_imports({"metadisco.reports": source})


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "eval('1')", "exec('x = 1')", "np.load(path, allow_pickle=True)"],
)
def test_dangerous_code_is_found(source):
    assert len(dangerous_code({"metadisco.checkpoints.checkpoint": source})) == 1


def test_harmless_lookalikes_pass():
    source = "ast.literal_eval('1')\nmodel.eval()\nnp.load(path, allow_pickle=False)"
    assert not dangerous_code({"metadisco.checkpoints.checkpoint": source})


def test_importing_everything_leaves_the_choice_of_devices_open():
    modules = ", ".join(sorted(set(package_sources()) - {"metadisco.__main__"}))
    code = f"import {modules}, jax; jax.config.update('jax_num_cpu_devices', 3); assert jax.device_count() == 3"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
