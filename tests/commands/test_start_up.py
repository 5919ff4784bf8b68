"""What a person waits for before anything is computed: help, lists and completion need none of the slow libraries."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import metadisco
from metadisco import cli, objectives
from metadisco.checkpoints import checkpoint
from metadisco.commands import listing
from metadisco.evaluation import catalog, environments, suites
from metadisco.presets import catalog as preset_catalog
from metadisco.presets import registry

SLOW = {
    *("jax", "flax", "optax", "numpy", "scipy", "matplotlib", "tensorboardX", "brax", "gymnax", "gymnasium", "orbax"),
    *("chex", "evosax", "safetensors", "jinja2", "PIL"),
}
QUICK = [
    ["--help"],
    ["--version"],
    ["discover", "--help"],
    ["list", "presets"],
    ["list", "suites"],
    ["list", "objectives"],
    ["list", "checkpoints"],
]


def test_help_version_and_lists_import_no_slow_library():
    code = f"""
import contextlib, sys
import metadisco
from metadisco import cli
for arguments in {QUICK}:
    with contextlib.suppress(SystemExit):
        cli.main(arguments)
    assert not {SLOW} & set(sys.modules), (arguments, {SLOW} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_slow_libraries_are_imported_by_what_uses_them():
    """The names of the list above are right: something of the package imports each of the first ones."""
    code = "import sys, metadisco; metadisco.LPG, metadisco.load; assert {'jax', 'flax', 'numpy'} <= set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_found_and_type_checkers_are_told_of_the_same():
    tree = ast.parse(Path(metadisco.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {alias.name: node.module for node in block.body if node.module != "typing" for alias in node.names}
    assert told == metadisco._HOME_OF
    assert set(told) == set(metadisco.__all__) <= set(dir(metadisco))
    for name, module in told.items():
        assert getattr(metadisco, name) is getattr(sys.modules[module], name)
    assert metadisco.Battery is metadisco.TestSet
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        metadisco.nothing  # noqa: B018


@pytest.mark.parametrize("command", [["-m", "metadisco"], ["-m", "metadisco.cli"]])
def test_the_version_is_said(command):
    done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"metadisco {metadisco.__version__}\n"


def complete(line: str, tmp_path: Path) -> list[str]:
    """What TAB offers at the end of a command line."""
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    environment = os.environ | asked | {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    subprocess.run([sys.executable, "-m", "metadisco"], env=environment, check=True)
    return [each.strip() for each in answer.read_text().splitlines()]


def test_tab_completes_commands_presets_and_options(tmp_path):
    assert complete("metadisco disc", tmp_path) == ["discover"]
    assert complete("metadisco discover groove-grid-", tmp_path) == ["groove-grid-es"]
    assert complete("metadisco discover smoke --resu", tmp_path) == ["--resume"]
    assert "presets" in complete("metadisco list ", tmp_path)


def test_the_catalogs_name_what_there_is():
    assert list(preset_catalog.PRESETS) == list(registry.PRESETS)
    for name, make in registry.PRESETS.items():
        entry, preset = preset_catalog.PRESETS[name], make()
        assert (entry.description, entry.suites, name) == (preset.description, preset.suites, preset.name)
        assert entry.meta_steps == preset.trainer.num_steps
    members = [name for group in catalog.GROUPS.values() for name in group]
    assert sorted(members) == sorted(environments.NAMES)
    assert set(suites.SUITES) == {*catalog.GRID_SUITES, *environments.NAMES}
    for name in catalog.GRID_SUITES:
        assert suites.SUITES[name].description == catalog.GRID_SUITES[name]


def test_presets_say_what_they_cost(capsys):
    assert cli.main(["list", "presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = [line for name in registry.PRESETS for line in lines if line.split()[:1] == [name]]
    assert len(starts) == len(registry.PRESETS)
    assert all(" min " in line or "not measured" in line for line in starts)


def test_objectives_are_listed_by_the_names_of_their_papers():
    assert {"A2C", "PPO", "DPO", "LPO", "TA-LPO", "LPG", "TA-LPG"} <= set(listing.OBJECTIVES)
    assert set(objectives.__all__) - {"MirrorLearning", "WithCountBonus", "WithOptimizer"} <= set(listing.OBJECTIVES)
    for words, where in listing.OBJECTIVES.values():
        assert words
        expression = ast.parse(where.partition(";")[0], mode="eval")
        names = {node.attr for node in ast.walk(expression) if isinstance(node, ast.Attribute)}
        assert names <= set(metadisco.__all__), where


def test_a_checkpoint_whose_run_stopped_early_says_so(capsys):
    assert cli.main(["list", "checkpoints"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in checkpoint.zoo_names():
        document = json.loads((checkpoint.ZOO / name / "objective.json").read_text())["provenance"]
        of_preset, asked = preset_catalog.PRESETS[name].meta_steps, document["trainer"]["num_steps"]
        done = f"{document['meta_steps']:,}"
        wanted = f"{name} stopped early, after {done} of {of_preset:,} meta-steps of its preset"
        assert (wanted in shown) is (document["meta_steps"] < of_preset), name
        card = (checkpoint.ZOO / name / "README.md").read_text()
        assert (f"stopped early, after {done} of {asked:,}" in card) is (document["meta_steps"] < asked), name
