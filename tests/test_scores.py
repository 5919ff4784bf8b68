"""Scores of levels: what an antagonist had that the agents had not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.curricula.plr import PrioritizedLevelReplay
from metadisco.learner import SGD, Learner
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.lpg import LPG
from metadisco.scores import AlgorithmicRegret, BestReturn
from tests import small

BEST = jnp.array([0.5, -jnp.inf, 0.0, 2.0])
INNER = small.inner_loop()


def spend(inner, population, births):
    return inner.live(population, births, slots=4)[1]


def regret(score):
    return score.score(INNER, small.births(4), BEST, spend)


def test_best_return_is_what_the_best_agent_got_and_costs_nothing():
    scores, num_updates = regret(BestReturn())
    np.testing.assert_array_equal(scores, BEST)
    assert num_updates == 0


def test_algorithmic_regret_is_the_antagonists_return_less_the_best_agents():
    births = small.births(4)
    antagonist = small.inner_loop(A2C(entropy_weight=0.0), learner=Learner(SGD(160.0), SGD(4.0)))
    _, outcomes = antagonist.live((), births, slots=4)
    scores, num_updates = regret(AlgorithmicRegret())
    np.testing.assert_allclose(scores[0], outcomes.fitness[0] - 0.5, rtol=1e-5)
    np.testing.assert_allclose(scores[3], outcomes.fitness[3] - 2.0, rtol=1e-5)
    assert num_updates == jnp.sum(births.task.lifetime)


def test_a_level_whose_agents_diverged_has_no_finite_regret():
    assert jnp.isfinite(regret(AlgorithmicRegret())[0]).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    "change", [{"antagonist": A2C(entropy_weight=5.0)}, {"learner": Learner(SGD(1e-6), SGD(4.0))}], ids=["rule", "rate"]
)
def test_every_setting_matters(change):
    inner = replace(INNER, num_test_workers=32)
    births = replace(small.births(4), task=replace(small.births(4).task, lifetime=jnp.full(4, 8)))
    plain, changed = (
        score.score(inner, births, jnp.zeros(4), spend)[0]
        for score in (AlgorithmicRegret(), AlgorithmicRegret(**change))
    )
    assert jnp.any(plain != changed)


def test_an_antagonist_with_meta_parameters_is_refused():
    with pytest.raises(ValueError, match="without meta-parameters"):
        AlgorithmicRegret(antagonist=LPG(width=4))


def test_levels_of_high_regret_are_kept_and_replayed_and_antagonists_are_counted():
    replay = PrioritizedLevelReplay(small.TASKS, capacity=8, replay_probability=1.0, fill_before_replay=0.5)
    trainer = replace(small.trainer(), curriculum=replay, score=AlgorithmicRegret())
    state = trainer.init(jax.random.key(0))
    step = jax.jit(trainer.step)
    state, first = step(jax.random.key(0), state)
    state, second = step(jax.random.key(1), state)
    assert first["replayed"] == 0.0
    assert second["replayed"] == 1.0
    assert jnp.sum(state.curriculum.is_filled) == 4
    assert first["agent_updates"] == 12 * first["lifetime"]  # four pairs and their antagonists
