"""The page of the first evening: its file, its commands and its code, in their order, as a stranger runs them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.test_documentation import fences

PAGE = Path(__file__).parents[2] / "docs" / "first-evening.md"
NUMBER = re.compile(r"\d+(\.\d+)?")


def test_the_environment_is_one_file_that_keeps_the_contract(tmp_path, monkeypatch):
    (source,) = [each.code for each in fences(PAGE) if each.language == "python" and not each.mark]
    (tmp_path / "windy.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import windy

    from metadisco.testing import check_environment

    check_environment(windy.make_env(), (), run=False)  # the slow test lets it walk


@pytest.mark.slow
def test_everything_runs_in_its_order_and_says_what_the_page_says(tmp_path):
    where = os.environ | {"XDG_DATA_HOME": str(tmp_path / "data"), "COLUMNS": "120", "PYTHONPATH": str(PAGE.parents[1])}
    first, said = True, None
    for fence in fences(PAGE):
        if fence.language == "text":
            for line in fence.code.splitlines():
                assert NUMBER.sub("#", line) in NUMBER.sub("#", said), f"line {fence.line}: {line} is not in\n{said}"
            continue
        if fence.language == "python" and first:
            (tmp_path / "windy.py").write_text(fence.code)
            first, commands = False, []
        elif fence.language == "python":
            commands = [[sys.executable, "-c", fence.code]]
        else:
            commands = [[sys.executable, "-m", *shlex.split(line)] for line in fence.code.splitlines()]
        said = ""
        for command in commands:
            done = subprocess.run(
                command, cwd=tmp_path, env=where, capture_output=True, text=True, timeout=1200, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            said += done.stdout
    assert (tmp_path / "runs/evening/objective/objective.json").exists()
    assert (tmp_path / "scores.json").exists()
