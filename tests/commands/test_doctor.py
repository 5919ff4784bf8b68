"""`metadisco doctor`: a sound installation is called so, and what is wrong is said with its cure."""

import importlib.metadata
import re

import jax
import pytest

from metadisco import cli
from metadisco.commands import doctor


def test_a_sound_installation_is_called_so(capsys):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"jax:         {jax.__version__}" in said
    assert "compiles and computes" in said
    assert said.rstrip().endswith("this installation works")


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("jax<0.1", 'jax is .*: pip install "jax<0.1"'),
        ("no-such-package>=2", 'no-such-package is not installed: pip install "no-such-package>=2"'),
    ],
)
def test_what_is_missing_or_too_old_is_said_with_its_cure(requirement, said, monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [requirement, 'wandb>=99; extra == "wandb"'])
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    (found,) = doctor.unmet([requirement])
    assert f"wrong:       {found}" in shown
    assert "wandb>=99" not in shown
    assert re.fullmatch(said, found)


def test_a_jax_that_does_not_compute_is_wrong(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no backend")

    monkeypatch.setattr(doctor, "_devices", broken)
    assert cli.main(["doctor"]) == 1
    assert "JAX does not compute: no backend" in capsys.readouterr().out
