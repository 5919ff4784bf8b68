"""From a checkpoint to a component with formulas: lives, functions, the command line, and what is refused."""

import importlib.util
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco import cli
from metadisco.agents.optimizers import SGD
from metadisco.checkpoints import checkpoint
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core import config
from metadisco.core.types import Progress
from metadisco.curricula.randomization import DomainRandomization
from metadisco.distillation import distillation, regression, rules, sampling
from metadisco.distillation.regression import Search
from metadisco.lives.learner import Learner
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_training.evolution_trainer import MetaTrainer
from metadisco.objectives import formula_drift
from metadisco.objectives.actor_critic import A2C
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.drift import LPODrift, violations
from metadisco.objectives.exploring_a2c import ExploringA2C
from metadisco.objectives.formula_policy_gradient import FormulaPolicyGradient
from metadisco.objectives.lpg import LPG
from metadisco.objectives.mirror_learning import MirrorLearning
from metadisco.objectives.scheduled_a2c import OUTPUTS, ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from tests.support import two_states
from tests.support.remembering import ShortLives

TINY = Search(population=30, generations=2, restarts=1, num_samples=60, max_length=9)
SETTINGS = distillation.Settings(num_lives=4, search=TINY)


def place(objective, lifetime=3) -> sampling.Place:
    """Four lives on the smallest environment."""
    inner = two_states.inner_loop(objective=objective, critic=None)
    tasks = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), two_states.task())
    return sampling.Place("two states", inner, replace(tasks, lifetime=jnp.full(4, lifetime, jnp.int32)))


def test_a_drift_is_distilled_on_the_command_line_and_shown(tmp_path, capsys):
    objective = MirrorLearning(LPODrift(width=4, clip=None, temporal=True))
    inner = two_states.inner_loop(objective, Learner(SGD(0.5), SGD(0.5)), critic=None)
    trainer = MetaTrainer(inner, DomainRandomization(ShortLives()), Evolution())
    meta_params = jax.tree.map(lambda leaf: 20.0 * leaf, objective.init(jax.random.key(0)))
    original = Discovered(objective, meta_params, {"trainer": config.to_data(trainer)})
    name, out = str(checkpoint.save(original, tmp_path / "lpo")), tmp_path / "formula"
    options = ["--lives", "4", "--generations", "2", "--restarts", "1", "--length", "9", "--out", str(out)]
    assert cli.main(["distill", name, *options]) == 0
    assert "Its formulas" in capsys.readouterr().out
    found = checkpoint.load(out)
    told = found.provenance["distillation"]
    assert [part["name"] for part in told["parts"]] == ["better", "worse"]
    assert told["of"] == {"name": "lpo", "sha256": checkpoint.digest(original)}
    assert set(told["conditions"].values()) == {"holds"}
    assert found.objective.drift.better == told["parts"][0]["formula"]
    assert max(violations(found.drift_rule, found.meta_params).values()) == 0.0
    assert "## Formulas" in (out / "README.md").read_text()
    assert cli.main(["distill", name, *options]) == 2  # it is there already
    assert "exists already" in capsys.readouterr().err


def test_samples_are_what_lives_had_and_the_last_lives_are_held_out():
    objective = MirrorLearning(LPODrift(width=4))
    here = place(objective, lifetime=2)
    inner = replace(here.inner, learner=Learner(SGD(0.5), SGD(0.5), num_epochs=2))
    meta_params = objective.init(jax.random.key(0))
    found = sampling.collect([replace(here, inner=inner)], meta_params, sampling.watch_ratios, jax.random.key(1))
    count = min(inner.num_steps * inner.num_workers, sampling.MOST_PER_UPDATE)
    assert len(found) == 2 * 4 * 2 * count  # updates, lives, and halfway and at the end of an update
    assert found.held_out.sum() == len(found) // 4
    assert set(found.columns["t"]) == {0.0, 0.5}
    assert np.ptp(found.columns["l"]) > 0.0


def test_the_advantage_is_found_in_a2c():
    objective = A2C(entropy_weight=0.02)
    changed, parts = distillation.distill(Discovered(objective, ()), [place(objective)], SETTINGS)
    assert parts[0].chosen.text == "advantage"
    assert parts[0].r2 == pytest.approx(1.0)
    assert changed.objective == FormulaPolicyGradient("advantage", entropy_weight=0.02)


def test_a_schedule_that_is_constant_is_found_to_be_so():
    objective = ScheduledA2C(width=4)
    meta_params = objective.init(jax.random.key(0))
    meta_params["out_bias"] = jnp.linspace(-0.3, 0.3, len(OUTPUTS))
    changed, parts = distillation.distill(Discovered(objective, meta_params), [place(objective)], SETTINGS)
    assert (
        changed.objective.formulas
        == tuple(part.chosen.text for part in parts)
        == tuple(map(str, np.linspace(-0.3, 0.3, len(OUTPUTS)).round(4)))
    )
    told = jnp.linspace(-1.0, 1.0, len(objective.features))
    ours, theirs = (
        each.coefficients(own, told)
        for each, own in ((changed.objective, changed.meta_params), (objective, meta_params))
    )
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5), ours, theirs)


@pytest.mark.parametrize("kind", [ExploringA2C(), ScheduledMirrorLearning()], ids=lambda kind: type(kind).__name__)
def test_formulas_take_the_place_of_every_net_of_a_schedule(kind):
    meta_params = kind.init(jax.random.key(0))
    rule = rules.of(Discovered(kind, meta_params))
    told = np.random.default_rng(0).normal(size=(8, len(kind.features))).astype(np.float32)
    functions = rule.functions(sampling.Samples({"told": told}, np.arange(8) % 4 == 3))
    found = {each.name: each.parsed(f"0.5 * {next(iter(each.inputs))}") for each in functions}
    objective, constants = rule.component(found)
    assert checkpoint.misfit_of(objective, constants) == ""
    row = jnp.asarray(told[0])
    says = (
        objective.a2c.rule.say(constants["a2c"], row)
        if isinstance(kind, ExploringA2C)
        else (objective.rule.say(constants["schedule"], row))
    )
    np.testing.assert_allclose(list(says.values()), 0.5 * told[0, 0], rtol=1e-6)


def test_what_a_schedule_is_told_is_what_its_targets_see():
    objective = ScheduledA2C(width=4)
    meta_params = objective.init(jax.random.key(0)) | {"out": jax.random.normal(jax.random.key(1), (4, len(OUTPUTS)))}
    here = place(objective)
    life = here.inner.begin(jax.random.key(2), jax.tree.map(lambda leaf: leaf[0], here.tasks))
    experience, _, _ = here.inner.act(life)
    _, batch, _ = here.inner.learn_from(meta_params, life, experience)
    told = sampling.watch_schedule(here.inner, meta_params, life, experience, life, batch)["told"][0]
    expected = objective.coefficients(meta_params, told)
    np.testing.assert_allclose(batch.targets.coefficients.policy_step[0, 0], expected.policy_step, rtol=1e-5)
    assert isinstance(life.progress, Progress)


@pytest.mark.slow
def test_lpg_is_distilled_into_statistics_of_steps():
    objective = LPG(width=4, num_predictions=3, embedding_width=4)
    discovered = Discovered(objective, objective.init(jax.random.key(0)))
    longer = replace(SETTINGS, search=Search(population=60, generations=10, restarts=1, max_length=9))
    changed, parts = distillation.distill(discovered, [place(objective)], longer)
    assert isinstance(changed.objective, FormulaPolicyGradient)
    assert parts[0].name == "pi_hat"
    assert parts[0].r2 > 0.3


def test_samples_far_out_are_left_to_the_conditions():
    columns = {"l": np.float32([0.0, 2.0, 0.1]), "A": np.float32([1.0, 1.0, 9.0]), "t": np.float32([0.0, 0.0, 0.0])}
    assert len(rules.usual(sampling.Samples(columns, np.zeros(3, bool)))) == 1
    assert formula_drift.BRANCHES == ("better", "worse")


def test_without_the_libraries_one_sentence_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyoperon" else find(name))
    assert cli.main(["distill", "lpo-quick"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'metadisco[distill]'" in error


def test_a_rule_of_another_kind_is_refused_before_anything_is_lived():
    with pytest.raises(config.ConfigError, match="a Disco103 cannot be distilled: there are formulas for drifts"):
        rules.of(Discovered(Disco103(5, 7, 3.0, width=4, memory_width=3), ()))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="at least 4 lives"):
        distillation.Settings(num_lives=3)
    with pytest.raises(ValueError, match=r"tolerance must be in \[0, 1\)"):
        distillation.Settings(tolerance=1.0)
    with pytest.raises(ValueError, match=r"Search.restarts must be at least 1"):
        regression.Search(restarts=0)


def test_formulas_of_a_schedule_are_as_many_as_its_outputs():
    with pytest.raises(config.ConfigError, match=r"ScheduledA2C.formulas has 1: write one for each of policy_step"):
        ScheduledA2C(formulas=("0.5",))
    assert json.loads(json.dumps(config.to_data(ScheduledA2C(formulas=("0.5",) * len(OUTPUTS)))))["formulas"]
