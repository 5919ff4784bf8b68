"""`metadisco tune`: the best rate is found, and what was measured is kept and used."""

import pytest

from metadisco import cli
from metadisco.commands import tuning
from metadisco.commands.tuning import Tried
from metadisco.evaluation import scales, suites

pytestmark = pytest.mark.usefixtures("empty_home")

HERE = "tests.evaluation.test_any_environment:make"


@pytest.mark.parametrize(
    ("best", "num_tried"), [(0, 3), (1, 4), (-3, 6), (9, 6)], ids=["usual", "next", "far", "out of reach"]
)
def test_rates_are_tried_until_the_best_has_a_worse_neighbor_on_either_side(best, num_tried):
    ran = []

    def run(factor):
        ran.append(factor)
        return Tried(factor, 0.0, -abs(factor / tuning.FACTOR**best - 1.0), 0.0)

    found = tuning.climb(run)
    assert found.factor == pytest.approx(tuning.FACTOR ** min(best, tuning.MOST))
    assert len(ran) == len(set(ran)) == num_tried


def test_a_rate_that_diverges_is_not_the_best():
    found = tuning.climb(lambda factor: Tried(factor, 0.0, float("nan") if factor > 0.5 else factor, 0.0))
    assert found.factor == pytest.approx(1 / tuning.FACTOR)


def test_a_scale_is_measured_kept_and_used(capsys):
    assert cli.main(["tune", HERE, "--seeds", "2", "--updates", "60"]) == 0
    said = capsys.readouterr().out
    assert "before" in said
    assert str(scales.path()) in said.replace("\n", "")
    scale = scales.read()[HERE]
    assert scale.random_return == pytest.approx(0.0, abs=0.5)
    assert scale.upper_return > 0.8  # of 1, for which action 1 has to be learned
    test_set = suites.suite(HERE).build()
    assert (test_set.lifetime, test_set.upper_anchor) == (60, "reference")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["CartPole-v1"], "suites of metadisco have their scales"),
        (["gymnax:CartPole-v1"], "has a scale of its own"),
        ([HERE, "--seeds", "1"], "--seeds must be a whole number from 2"),
        ([HERE, "--updates", "0"], "--updates must be a whole number from 1"),
        (["nothing:x"], "neither a library of environments"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_words(arguments, match, capsys):
    assert cli.main(["tune", *arguments]) == 2
    assert match in capsys.readouterr().err
