"""The house has floors: a module imports from its own floor and the ones below (docs/architecture.md)."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the ground up. A name stands for the module and, for a package, for everything in it.
LAYERS = (
    (
        *(
            "types",
            "trees",
            "design",
            "returns",
            "lowrank",
            "config",
            "differences",
            "moved",
            "stats",
            "files",
            "provenance",
        ),
        *("rollcall", "distributed"),
    ),
    ("envs",),
    ("tasks",),
    ("agents",),
    ("objectives",),
    ("test_set", "critic", "host_life", "learner", "life", "normalization"),
    ("baselines", "settings"),
    ("meta", "curricula"),
    ("antagonists", "domain", "gradient_trainer", "mixed_trainer", "population", "scores", "trainer", "unroll"),
    ("card", "checkpoint", "results", "run_folder", "trackers", "train_state", "zoo"),  # what is on disk
    (
        "chunks",
        "contestants",
        "evaluation",
        "loop",
        "memory",
        "programs",
        "progress",
        "seeds",
        "signals",
        "suite_lookup",
        "suites",
    ),
    ("drift_presets", "presets"),
    (
        "chart_style",
        "comparison",
        "comparison_folder",
        "discovery",
        "drift_plots",
        "inspection",
        "listing",
        "plots",
        "report",
        "sweep",
        "sweep_table",
        "testing",
        "cli",
        "__main__",
        "",
    ),  # "": the package itself
)
STRANGERS = (("meta", "curricula"),)  # neighbors that never import each other

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


def family(module: str) -> str:
    """The part of a dotted name that has a floor: `metadisco.envs.base` -> `envs`, `metadisco` -> ``."""
    return module.partition(".")[2].partition(".")[0]


def floor(name: str) -> int | None:
    return next((level for level, names in enumerate(LAYERS) if name in names), None)


def layer_violations(sources: dict[str, str]) -> list[str]:
    """What the sources do against the order of the layers, one sentence each."""
    found = []
    for module, source in sources.items():
        here = family(module)
        if floor(here) is None:
            found.append(f"{module} has no floor: put {here!r} into LAYERS in {Path(__file__).name}")
            continue
        for name in imported_names(ast.parse(source)):
            if name.startswith("."):
                found.append(f"{module} imports {name} relatively: write the full name")
            elif name.split(".")[0] == "metadisco":
                found += _assess(module, here, name, sources)
    return sorted(set(found))


def _assess(module: str, here: str, name: str, sources: dict[str, str]) -> list[str]:
    is_submodule = any(known == name or known.startswith(f"{name}.") for known in sources)
    there = family(name if is_submodule or name.count(".") > 1 else "metadisco")
    if floor(there) is None:
        return [f"{module} imports {name}, which has no floor: put {there!r} into LAYERS in {Path(__file__).name}"]
    if floor(there) > floor(here):
        return [f"{module} imports {name}, which is on a higher floor"]
    if any({here, there} == set(pair) for pair in STRANGERS):
        return [f"{module} imports {name}: {here} and {there} never import each other"]
    return []


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


def test_modules_import_only_from_their_floor_and_below():
    assert not layer_violations(package_sources())


def test_page_of_the_architecture_has_every_module_on_its_floor():
    table = (ROOT / "docs/architecture.md").read_text().partition("| layer |")[2].partition("\n\n")[0]
    page = [set(re.findall(r"`(\w+)`", line.split("|")[2])) for line in table.splitlines()[2:]]
    present = {family(module) for module in package_sources()} - {"", "__main__"}
    assert page == [present & set(names) for names in LAYERS]


def test_slow_libraries_are_imported_by_the_function_that_needs_them():
    assert not early_imports(package_sources())


def test_no_pickle_and_no_eval():
    assert not dangerous_code(package_sources())


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("metadisco.envs.base", "from metadisco.agents import agent", "higher floor"),
        ("metadisco.envs.base", "from metadisco import learner", "higher floor"),
        ("metadisco.envs.base", "def late():\n    import metadisco.meta_training.trainer", "higher floor"),
        ("metadisco.envs.base", "from metadisco import load", "higher floor"),
        ("metadisco.envs.base", "import metadisco", "higher floor"),
        (
            "metadisco.meta_optimizers.gradient",
            "from metadisco.curricula.base import Curriculum",
            "never import each other",
        ),
        ("metadisco.curricula.plr", "from metadisco.meta_optimizers import base", "never import each other"),
        ("metadisco.envs.base", "from . import rollout", "relatively"),
        ("metadisco.attic", "", "no floor"),
        ("metadisco.cli", "from metadisco.attic import thing", "no floor"),
    ],
)
def test_an_import_against_the_layers_is_found(module, source, complaint):
    sources = {"metadisco.lives.learner": "", "metadisco.meta_optimizers.base": ""} | {module: source}
    (violation,) = layer_violations(sources)
    assert complaint in violation
    assert module in violation


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metadisco.cli", "from metadisco import load, trainer"),
        (
            "metadisco.meta_training.trainer",
            "from metadisco.curricula import base\nfrom metadisco.meta_optimizers import base as meta",
        ),
        ("metadisco.envs.base", "from metadisco import trees\nfrom metadisco.core.types import Key"),
        ("metadisco.meta_optimizers.evolution", "from metadisco.meta_optimizers.base import LifeFn"),
    ],
)
def test_an_import_with_the_layers_passes(module, source):
    sources = {
        "metadisco.meta_training.trainer": "",
        "metadisco.core.trees": "",
        "metadisco.meta_optimizers.base": "",
    } | {module: source}
    assert not layer_violations(sources)


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
