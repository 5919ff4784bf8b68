"""What is shipped: every objective of the zoo loads, says where it came from, and has been tested."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import compare_zoo
from metadisco.checkpoints import card, checkpoint
from metadisco.commands import discovery
from metadisco.evaluation import meta_test, results

RESULTS = Path(__file__).parents[2] / "docs" / "results"
FAST = "ta-lpg-quick"  # whose nets are small


def test_something_is_shipped():
    assert "ta-lpg-quick" in checkpoint.zoo_names()


@pytest.mark.parametrize("name", checkpoint.zoo_names())
def test_a_shipped_objective_is_verified_and_says_where_it_came_from(name):
    discovered = checkpoint.load(name)  # digests, shapes and class are checked here
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(discovered.meta_params))
    assert {"command", "commit", "seed", "meta_steps", "minutes", "hardware"} <= set(discovered.provenance)
    assert not discovered.provenance["commit"].endswith("-dirty")
    for suite, agents in discovered.evaluation.items():
        assert "discovered" in agents
        assert len(agents) > 3, suite  # the two anchors, and a baseline
    assert len(discovered.evaluation) >= 2
    text = (checkpoint.ZOO / name / "README.md").read_text()
    for told in (
        f'metadisco.load("{name}")',
        "Apache-2.0",
        discovered.provenance["command"],
        "## Inputs",
        *discovered.evaluation,
        card.ZOO_SCORES,
    ):
        assert told in text


@pytest.mark.parametrize("name", checkpoint.zoo_names())
def test_the_document_keeps_headline_suites_and_the_card_shows_all(name):
    """Scores stand in docs/results; in the document there are those of its own meta-test and of one small suite."""
    measured = json.loads((RESULTS / "zoo.json").read_text())["scores"]
    meta_test = json.loads((RESULTS / f"{name}.json").read_text())
    evaluation = checkpoint.load(name).evaluation
    assert {suite: evaluation[suite] for suite in meta_test} == meta_test
    assert set(evaluation) == {*meta_test, compare_zoo.QUICK}
    shown = (checkpoint.ZOO / name / "README.md").read_text().split("\n")
    assert not [suite for suite, agents in measured.items() if name in agents and suite not in shown]


@pytest.mark.parametrize("name", checkpoint.zoo_names())
def test_agents_can_live_by_a_shipped_objective(name):
    discovered = checkpoint.load(name)
    inner = discovery.inner_loop(discovered)
    assert inner.objective == discovered.objective
    shapes = jax.eval_shape(inner.objective.init, jax.random.key(0))
    assert jax.tree.map(np.shape, discovered.meta_params) == jax.tree.map(lambda leaf: leaf.shape, shapes)


@pytest.mark.parametrize(
    "name", [name if name == FAST else pytest.param(name, marks=pytest.mark.slow) for name in checkpoint.zoo_names()]
)
def test_a_number_of_its_card_comes_out_again(name):
    """Other machines round otherwise, and a life amplifies that; eight updates leave it small."""
    discovered = checkpoint.load(name)
    row = discovered.evaluation["grid-tiny"]["discovered"]
    found = meta_test.meta_test(discovered, ["grid-tiny"], num_seeds=row["num_seeds"], seed=row["seed"], baselines=())
    again = results.summarize(found["grid-tiny"]["discovered"])
    assert again["num_tasks"] == row["num_tasks"]
    assert again["mean_return"] == pytest.approx(row["mean_return"], abs=0.02)
    assert again["iqm"] == pytest.approx(row["iqm"], abs=0.05)
