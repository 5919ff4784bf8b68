"""Layers of the package: a module imports from its own subpackage and from those below (docs/architecture.md)."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Bottom to top. Imports go down only; docs/architecture.md says what each subpackage holds.
ROOMS = (
    *("core", "runs", "envs", "agents", "objectives", "checkpoints", "lives", "curricula", "meta_optimizers"),
    *(
        "testing",
        "meta_training",
        "evaluation",
        "distillation",
        "presets",
        "reports",
        "commands",
        "",
        "cli",
        "__main__",
    ),
)
INDEPENDENT = {"curricula", "meta_optimizers"}  # neither imports the other


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


def room(name: str) -> str:
    """The room of a module or of what is imported: `metadisco.envs.base` -> `envs`; the package itself is ``."""
    first = name.partition(".")[2].partition(".")[0]
    return first if first in ROOMS else ""


def violations(sources: dict[str, str]) -> list[str]:
    """Imports that go up, or between independent subpackages."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imported_names(ast.parse(source))
        if name.split(".")[0] == "metadisco"
        if ROOMS.index(room(name)) > ROOMS.index(room(module)) or {room(name), room(module)} == INDEPENDENT
    ]


def test_imports_go_down_only():
    assert violations(package_sources()) == []


def test_every_module_has_a_room_that_the_page_of_the_architecture_describes():
    table = (ROOT / "docs/architecture.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    page = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert page == [name for name in ROOMS if name not in {"cli", "__main__", ""}]
    assert {path.stem for path in (ROOT / "metadisco").iterdir() if path.name[:2] != "__"} == {*page, "cli", "py"}
    for name, modules in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", table, flags=re.MULTILINE):
        present = {path.stem for path in (ROOT / "metadisco" / name).iterdir()} - {"__init__", "__pycache__"}
        listed = set(re.findall(r"`(\w+)/?`", modules))
        assert listed <= present, name
        assert listed == present or name in {"envs", "testing"}, name  # of which the page names the kinds


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


def test_importing_everything_leaves_slow_libraries_and_the_choice_of_devices_alone():
    """Ruff sees what is imported at the top of a file (pyproject.toml); this sees a class body or a `try`, too."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
    slow = {*settings["banned-module-level-imports"]} - {"rich"}  # flax imports rich
    assert slow
    modules = ", ".join(sorted(set(package_sources()) - {"metadisco.__main__"}))
    code = f"import sys, {modules}, jax; assert not {slow} & set(sys.modules), {slow} & set(sys.modules); "
    code += "jax.config.update('jax_num_cpu_devices', 3); assert jax.device_count() == 3"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
