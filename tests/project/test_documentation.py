"""What the documentation says is true: examples of docstrings and pages run, commands exist, links lead somewhere.

A page is run from top to bottom as one module. What a fence of Python prints is what the fence of text below it shows.
Comments above a fence change that: `<!-- slow -->` leaves it to the slow tests, `<!-- not run: reason -->` excludes it.
"""

import ast
import contextlib
import doctest
import importlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest

import metadisco
from experiments import reproduction
from metadisco import cli
from metadisco.checkpoints import checkpoint
from metadisco.core import config
from metadisco.evaluation import suites
from metadisco.presets import registry

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HEAVY = (  # modules whose examples take seconds each; checks of metadisco.testing run in tests/contracts anyway
    *("accel", "alp_gmm", "brax_adapter", "paired", "plr", "fixed", "teacher"),
    *("testing.curricula", "testing.environments", "testing.meta_optimizers", "testing.objectives"),
)
FENCE = re.compile(
    r"(?m)(?:^<!-- (?P<mark>(?:(?!-->).)*?) -->\n)?^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$", re.DOTALL
)


class Fence(NamedTuple):
    """A block of code in a page."""

    language: str
    code: str
    line: int
    mark: str  # what the comment above it says


def fences(page: Path) -> list[Fence]:
    text = page.read_text()
    return [
        Fence(each["language"], each["code"], text.count("\n", 0, each.start("code")), each["mark"] or "")
        for each in FENCE.finditer(text)
    ]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "metadisco").rglob("*.py"))
    if ">>> " in path.read_text()
]
SCRIPTS = [page for page in PAGES if any(fence.language == "python" for fence in fences(page))]
SLOW_SCRIPTS = [page for page in SCRIPTS if any(fence.mark == "slow" for fence in fences(page))]
COMMANDS = [
    pytest.param(line.partition(" # ")[0].strip(), id=f"{page.stem}-{line.split(' # ')[0].strip()}"[:90])
    for page in PAGES
    for fence in fences(page)
    if fence.language == "bash"
    for line in fence.code.splitlines()
    if line.startswith("metadisco ") and " windy:" not in line  # a module of its page, see test_first_evening.py
]


@pytest.mark.parametrize(
    "module",
    [pytest.param(each, marks=[pytest.mark.slow] if each.endswith(HEAVY) else []) for each in MODULES],
)
def test_examples_of_docstrings_print_what_they_say(module):
    found = doctest.DocTestFinder().find(importlib.import_module(module))
    assert any(each.examples for each in found), "no example is where doctest looks for it"
    assert not doctest.testmod(importlib.import_module(module)).failed


def run_page(page: Path, *, slow: bool) -> int:
    """Run the fences of a page, in order, and return how many."""
    module = types.ModuleType(f"page_{page.stem.replace('-', '_').lower()}")
    sys.modules[module.__name__] = module
    num_run, printed = 0, None
    for fence in fences(page):
        if fence.language == "text" and printed is not None:
            assert printed == fence.code, f"{name(page)}:{fence.line}"
        printed = None
        if fence.language != "python" or fence.mark.startswith("not run: ") or (fence.mark == "slow" and not slow):
            continue
        assert fence.mark in ("", "slow"), f"{name(page)}:{fence.line}: <!-- {fence.mark} --> is not a mark"
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * fence.line + fence.code, name(page), "exec"), module.__dict__)
        num_run, printed = num_run + 1, output.getvalue()
    return num_run


@pytest.mark.parametrize("page", SCRIPTS, ids=name)
def test_code_of_pages_runs_and_prints_what_they_show(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not run_page(page, slow=False):
        pytest.skip("all of its code is marked as slow or as not run")


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW_SCRIPTS, ids=name)
def test_slow_code_of_pages_runs_too(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_page(page, slow=True)


@pytest.mark.parametrize("page", SCRIPTS, ids=name)
def test_code_of_pages_that_is_not_run_is_python(page):
    for fence in fences(page):
        if fence.language == "python":
            ast.parse(fence.code)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_pages_are_commands(command, capsys):
    known, rest = cli._parser().parse_known_args(shlex.split(command)[1:])
    capsys.readouterr()
    if known.command == "discover":
        trainer = registry.preset(known.preset).trainer
        settings = {path: value for path, value in cli._overrides(rest).items() if ":" not in value}
        config.replace_fields(trainer, settings)
    else:
        assert not rest
    if known.command == "evaluate":
        assert all(suites.find(suite) for suite in known.suite or [])
    named = getattr(known, "checkpoints", None) or [getattr(known, "checkpoint", "runs/")]
    assert all(each.startswith("runs/") or each in checkpoint.zoo_names() for each in named)


def test_the_reference_has_everything_that_is_public():
    pages = [page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")]
    listed = [each for page in pages for each in re.findall(r"(?m)^::: metadisco\.(\w+)$", page)]
    assert sorted(listed) == sorted(metadisco.__all__)


def test_the_tables_of_the_reproduction_page_are_those_of_the_results():
    written = reproduction.sections(ROOT / reproduction.RESULTS)
    assert written in (ROOT / reproduction.PAGE).read_text(), "run python -m experiments.reproduction"


def test_the_site_is_built_without_a_warning_and_without_anything_from_elsewhere(tmp_path):
    pytest.importorskip("zensical")
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "paths: [.]" in settings
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "mkdocs.yml").write_text(settings.replace("paths: [.]", f"paths: [{ROOT}]"))
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    build = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert build.returncode == 0, build.stdout + build.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    elsewhere = re.compile(r"""<(script|img|link|iframe)\b[^>]*?\b(src|href)=["']?(https?:)?//""")
    assert not [page for page in pages if elsewhere.search(page.read_text())]
    if CHROMIUM is not None:
        widest = sorted(pages, key=lambda page: page.read_text().count("</th>"))[-6:]
        assert not {page.name: wide for page in widest if (wide := tables_too_wide(page, tmp_path / "profile"))}


def tables_too_wide(page: Path, profile: Path, width: int = 1400) -> list[str]:
    """The beginnings of the tables of a page that a browser of this width has to scroll."""
    script = """<script>addEventListener("load", () => document.querySelectorAll("table").forEach(table => {
        let box = table.parentElement;
        while (box.tagName !== "BODY" && getComputedStyle(box).overflowX === "visible") box = box.parentElement;
        const [right, edge] = [table, box].map(each => each.getBoundingClientRect().right);
        const told = {className: "too-wide", textContent: table.innerText.slice(0, 40)};
        if (table.scrollWidth > table.clientWidth + 1 || right > edge + 1)
            document.body.append(Object.assign(document.createElement("pre"), told));
    }))</script>"""
    looked_at = page.with_name(f"looked-at-{page.name}")
    looked_at.write_text(page.read_text().replace("</body>", f"{script}</body>"))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
        f"--window-size={width},1000", "--virtual-time-budget=3000", "--dump-dom", looked_at.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "</table>" in shown
    return re.findall(r'<pre class="too-wide">(.*?)</pre>', shown, re.DOTALL)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to look at tables with")
@pytest.mark.parametrize(("columns", "is_wide"), [(3, False), (60, True)])
def test_a_table_that_is_too_wide_is_seen(columns, is_wide, tmp_path):
    page = tmp_path / "page.html"
    row = "<td>one column</td>" * columns
    page.write_text(f"<body><div style='overflow-x: auto'><table><tr>{row}</tr></table></div></body>")
    page.write_text(page.read_text().replace("<td>", "<td style='white-space: nowrap'>"))
    assert bool(tables_too_wide(page, tmp_path / "profile")) is is_wide
