"""Formulas of a distilled rule: in the terminal, as pictures, and in the report of the run that they were made of."""

import io
import shutil

import jax.numpy as jnp
import pytest
from rich.console import Console

from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.objectives.exploring_a2c import OUTPUTS, ExploringA2C
from metadisco.objectives.formula_drift import FormulaDrift
from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.reports import formulas
from metadisco.reports.inspection import formulas as in_terminal

DRIFT = FormulaDrift("A * (r - 1.25)", "A * (r - 0.75)")
ORIGINAL = Discovered(PPO(), ())
FRONT = [
    {"formula": "0.01", "length": 1, "error": 1.0},
    {"formula": "A * (r - 1.25)", "length": 5, "error": 0.03},
]


def distilled(of=ORIGINAL) -> Discovered:
    """PPO as a distillation leaves it."""
    parts = [
        {"name": "better", "formula": DRIFT.better, "length": 5, "r2": 0.961, "latex": "", "front": FRONT},
        {"name": "worse", "formula": DRIFT.worse, "length": 5, "r2": 0.5, "latex": "", "front": FRONT[:1]},
    ]
    told = {"of": {"name": "mine", "sha256": checkpoint.digest(of)}, "parts": parts, "r2_of_slope": 0.875}
    return Discovered(MirrorLearning(DRIFT), DRIFT.written, {"distillation": told})


def shown(discovered) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(in_terminal.section(discovered))
    return stream.getvalue()


def test_the_terminal_has_the_formulas_their_fronts_and_how_good_they_are():
    text = shown(distilled())
    for part in ("A * (r - 1.25)", "A * (r - 0.75)", "0.961", "0.01", "(0.000)", "0.875"):
        assert part in text
    assert in_terminal.section(ORIGINAL) is None


def test_formulas_are_shown_with_the_constants_that_they_have_now():
    tuned = {"better": jnp.array([1.5]), "worse": DRIFT.written["worse"]}
    assert "A * (r - 1.5)" in shown(Discovered(MirrorLearning(DRIFT), tuned))


def test_each_kind_of_formula_is_known():
    gradient = FormulaPolicyGradient("0.5 * advantage")
    assert formulas.texts(Discovered(gradient, gradient.written)) == ("policy gradient", {"pi_hat": "0.5 * advantage"})
    explorer = ExploringA2C(formulas=("0.5 * novelty", "1 - novelty"))
    meta_params = {"a2c": {}, "bonus": {"bonus": jnp.array([0.25])}}
    kind, found = formulas.texts(Discovered(explorer, meta_params))
    assert (kind, found) == ("schedule", dict(zip(OUTPUTS, ("0.25 * novelty", "1 - novelty"))))
    assert formulas.texts(ORIGINAL) == ("", {})


def test_a_front_is_drawn_with_the_chosen_formula():
    figure = formulas.front_figure(formulas.parts(distilled())["better"])
    line, chosen = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[1.0, 0.0], [5.0, 0.97]]
    assert chosen.get_xydata().tolist() == [[5.0, 0.97]]


@pytest.fixture
def run(tmp_path):
    """The parts of a run folder that the section reads."""
    checkpoint.save(Discovered(PPO(), ()), tmp_path / "objective")
    return tmp_path


def test_the_report_of_a_run_shows_the_formulas_of_its_rule(run):
    assert formulas.section(run) == ""
    checkpoint.save(distilled(checkpoint.load(run / "objective")), run / formulas.FOLDER)
    html = str(formulas.section(run))
    assert "A * (r - 1.25)" in html
    assert "R² 0.961" in html
    assert html.count("<svg") == 2


def test_formulas_of_another_rule_are_not_shown(run):
    other = Discovered(MirrorLearning(DRIFT), DRIFT.written)
    checkpoint.save(distilled(other), run / formulas.FOLDER)
    assert "of another objective" in str(formulas.section(run))
    shutil.rmtree(run / formulas.FOLDER)
    checkpoint.save(Discovered(PPO(), ()), run / formulas.FOLDER)
    assert "has no formulas" in str(formulas.section(run))


@pytest.mark.parametrize(
    "parts", [None, "x", [1], [{"name": "better"}], [{"name": "b", "formula": "r", "front": [{}]}]]
)
def test_what_a_distillation_is_said_to_have_found_is_read_with_care(parts):
    told = {"distillation": {"parts": parts}}
    found = Discovered(MirrorLearning(DRIFT), DRIFT.written, told)
    assert formulas.parts(found) == {}
    assert "A * (r - 1.25)" in shown(found)
