"""What must hold for the repository as a whole, so that it installs everywhere and says nothing about our machines."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = sorted((ROOT / "constraints").glob("*.txt"))
LONGEST_MODULE = 350  # lines

PIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?==[0-9][A-Za-z0-9.]*")
MACHINE_PATH = re.compile(rb"(?<![\w.$}-])/(root|work|home/\w+|Users/\w+)/\w")
# The character classes keep this file from matching itself.
PACKAGE_INDEX = re.compile(rb"\bpy[p]i\.(org|io)|python[h]osted\.|/[s]imple/|index[-_][u]rl|find[-_][l]inks", re.I)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def repository_files() -> list[Path]:
    """Files that are in git or would be added to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listing.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def lines_that_match(pattern: re.Pattern[bytes]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100].decode(errors='replace')}"
        for path in repository_files()
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_are_names_and_versions_only(path):
    lines = path.read_text().splitlines()
    assert not [line for line in lines if not PIN.fullmatch(line)]
    names = [canonical(line.split("==")[0]) for line in lines]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_pin_every_dependency_within_its_range(path):
    pins = dict(line.split("==") for line in path.read_text().splitlines())
    pins = {canonical(name): Version(version) for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["dev"], *extras["notebooks"], *extras["docs"]]:
        requirement = Requirement(text)
        assert pins[canonical(requirement.name)] in requirement.specifier, text


def test_every_supported_python_has_a_constraints_file():
    listed = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert {path.stem for path in CONSTRAINTS} == {f"py{version.replace('.', '')}" for version in listed}
    supported = SpecifierSet(PROJECT["requires-python"])
    assert all(version in supported for version in listed)


def test_no_file_names_a_path_of_our_machines():
    assert not lines_that_match(MACHINE_PATH)


def test_no_file_names_a_package_index():
    assert not lines_that_match(PACKAGE_INDEX)


@pytest.mark.parametrize("text", [b"in ~root~x", b"'~work~main'", b"~home~ann~x", b"file:~~~Users~ann~x"])
def test_a_path_of_a_machine_is_recognized(text):
    assert MACHINE_PATH.search(text.replace(b"~", b"/"))


@pytest.mark.parametrize("text", [b"https:~~host~work~x", b"$HOME~work~x", b"tests~root~x", b"~homework~x"])
def test_other_paths_pass(text):
    assert not MACHINE_PATH.search(text.replace(b"~", b"/"))


@pytest.mark.parametrize("text", [b"--index-~url x", b"https://py~pi.org", b"https://mirror/~simple/jax"])
def test_a_package_index_is_recognized(text):
    assert PACKAGE_INDEX.search(text.replace(b"~", b""))


def test_package_and_project_have_the_same_version():
    tree = ast.parse((ROOT / "metadisco" / "__init__.py").read_text())
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    version = assigned.get("__version__")
    if not isinstance(version, ast.Constant):
        pytest.skip("metadisco.__version__ is not written out: it is that of the installed package")
    assert version.value == PROJECT["version"]


def test_modules_are_short():
    modules = (ROOT / "metadisco").rglob("*.py")
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    assert not {path: length for path, length in lengths.items() if length > LONGEST_MODULE}
