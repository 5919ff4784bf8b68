"""Warnings of scores by which levels cannot be told apart."""

import io
import json
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.meta_training.level_scores import Learnability, Return
from metadisco.runs import loop
from metadisco.runs.score_watch import MIN_SCORES, WINDOW, ScoreWatch
from tests.support import small
from tests.support.toy import Toy


def rows(scores, first=1, domain="", nonfinite=0.0):
    """One row for each meta-step with these scores."""
    found = []
    for step, each in enumerate(scores, start=first):
        finite = [score for score in each if np.isfinite(score)]
        found.append(
            {
                "step": step,
                f"nonfinite_scores{domain}": float(len(each) - len(finite)) + nonfinite,
                f"num_scored{domain}": float(len(finite)),
                f"score_low{domain}": min(finite, default=np.nan),
                f"score_high{domain}": max(finite, default=np.nan),
            }
        )
    return found


def test_a_constant_score_is_reported_once_per_window_with_its_value():
    watch = ScoreWatch()
    warnings = watch.look(rows([[0.25] * 4] * (3 * WINDOW)))
    assert len(warnings) == 3
    assert f"meta-steps {WINDOW + 1} to {2 * WINDOW}: all {4 * WINDOW} scores of levels were 0.25" in warnings[1]
    assert "Use a score" in warnings[1]


def test_a_score_that_is_never_finite_is_reported():
    (warning,) = ScoreWatch().look(rows([[np.nan, np.inf]] * WINDOW))
    assert f"meta-steps 1 to {WINDOW}: none of {2 * WINDOW} scores of levels was finite" in warning
    assert "learning rates" in warning


@pytest.mark.parametrize(
    "scores",
    [
        [[0.25] * 4] * (WINDOW - 1) + [[0.25, 0.5]],
        [[0.25] * 4] * (WINDOW - 1) + [[0.2, 0.2]],  # the same in each meta-step, but not in all of them
        [[np.nan] * 4] * (WINDOW - 1) + [[0.2, 0.1]],
        [[]] * WINDOW,  # no life has ended
        [[0.25] * (MIN_SCORES - 1)] + [[]] * (WINDOW - 1),
        [[0.25] * 4] * (WINDOW - 1),  # the window is not over
    ],
    ids=["one differs", "it moves", "some are finite", "none", "too few", "not over"],
)
def test_nothing_is_said_where_nothing_is_known_to_be_wrong(scores):
    assert ScoreWatch().look(rows(scores)) == []


def test_rounding_is_no_difference():
    assert len(ScoreWatch().look(rows([[1.0, 1.0 + 1e-7]] * WINDOW))) == 1
    assert not ScoreWatch().look(rows([[1.0, 1.0 + 1e-4]] * WINDOW))


def test_windows_do_not_depend_on_how_rows_come_in():
    every, watch = rows([[0.5] * 4] * (2 * WINDOW) + [[0.5, 0.1]] * WINDOW), ScoreWatch()
    one_by_one = [warning for row in every for warning in watch.look([row])]
    assert one_by_one == ScoreWatch().look(every)
    assert len(one_by_one) == 2


def test_each_domain_is_looked_at_alone_and_named():
    both = [a | b for a, b in zip(rows([[0.5] * 4] * WINDOW, domain="/A"), rows([[0.5, 0.6]] * WINDOW, domain="/B"))]
    (warning,) = ScoreWatch().look(both)
    assert "scores of levels of A were 0.5" in warning


def test_a_curriculum_that_learns_from_no_score_may_have_any():
    without = [
        {name: value for name, value in row.items() if "nonfinite" not in name} for row in rows([[0.0] * 4] * WINDOW)
    ]
    assert ScoreWatch().look(without) == []


@dataclass(frozen=True)
class Constant(Toy):
    """A toy whose curriculum is told 0.125 by four lives in each meta-step."""

    num_steps: int = 2 * WINDOW

    def step(self, key, state):
        state, metrics = super().step(key, state)
        score = jnp.float32(0.125)
        told = {"nonfinite_scores": jnp.float32(0), "num_scored": jnp.float32(4)}
        return state, metrics | told | {"score_low": score, "score_high": score}


def test_the_warning_is_in_the_log_of_a_run(tmp_path):
    console = Console(file=io.StringIO(), width=80)
    loop.run(Constant(), tmp_path / "run", loop.RunOptions(seed=0), track=(), console=console)
    printed = console.file.getvalue()
    assert printed.count("Warning: ") == 2
    assert f"Warning: meta-steps 1 to {WINDOW}: all {4 * WINDOW} scores of levels were 0.125" in printed
    heartbeat = json.loads((tmp_path / "run" / "heartbeat.json").read_text())
    assert heartbeat["warning"].startswith(f"Warning: meta-steps {WINDOW + 1} to {2 * WINDOW}")


@pytest.mark.slow
@pytest.mark.parametrize(("score", "num_warnings"), [(Learnability(threshold=1e6), 1), (Return(), 0)], ids=repr)
def test_a_real_run_is_warned_of_a_score_that_is_the_same_on_all_levels(score, num_warnings, tmp_path):
    curriculum = PrioritizedLevelReplay(small.TASKS, capacity=8)
    trainer = small.altered(small.trainer(), curriculum=curriculum, score=score, num_steps=WINDOW)
    console = Console(file=io.StringIO(), width=80)
    loop.run(trainer, tmp_path / "run", loop.RunOptions(seed=0), track=(), console=console)
    assert console.file.getvalue().count("Warning: ") == num_warnings
