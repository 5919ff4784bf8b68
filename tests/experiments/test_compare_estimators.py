"""Arms of the comparison of estimators spend the same environment steps, and unfinished ones are left out."""

import json

import pytest

from experiments import compare_estimators
from metadisco.core import config


@pytest.mark.parametrize("lifetime", [16, 250])
def test_arms_differ_in_the_estimator_and_spend_the_same(lifetime):
    known = compare_estimators.parser().parse_args([])
    trainers = {arm: compare_estimators.trainer(arm, lifetime, known) for arm in compare_estimators.ARMS}
    assert len({config.class_name(each.meta_optimizer) + repr(each.meta_optimizer) for each in trainers.values()}) == 6
    for arm, trainer in trainers.items():
        inner = trainer.domains[0].inner
        rollouts = trainer.num_steps * compare_estimators.rollouts_per_step(arm, lifetime, known)
        assert rollouts * inner.num_workers * inner.num_steps == pytest.approx(5e8, rel=0.02), arm
        rate = trainer.meta_optimizer.learning_rate
        assert float(rate(trainer.num_steps)) == pytest.approx(0.2 * 0.03, rel=1e-3)


def test_rows_are_of_finished_runs_alone(tmp_path):
    known = compare_estimators.parser().parse_args(["--runs", str(tmp_path), "--seeds", "2"])
    assert compare_estimators.row_of("persistent ES", 64, known) is None
    rows = [{"arm": "persistent ES", "lifetime": 64, "iqm": 0.5, "minutes": 2.0}]
    rows += [{"arm": "whole-life ES", "lifetime": each, "iqm": 0.25, "minutes": 1.0} for each in (64, 250)]
    table = compare_estimators.as_table(json.loads(json.dumps(rows)))
    assert "| persistent ES | 0.500 |  | 2.000 |  |" in table
