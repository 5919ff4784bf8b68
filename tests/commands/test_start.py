"""A run can begin at an objective that exists, says so ever after, and keeps its beginning when it goes on."""

import json
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import pytest

import metadisco
from metadisco import cli
from metadisco.checkpoints.checkpoint import Discovered, load, save
from metadisco.commands import discovery, start, sweep
from metadisco.core import config
from metadisco.curricula.randomization import DomainRandomization
from metadisco.curricula.tasks import FixedLifetime, Tasks
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_training.evolution_trainer import MetaTrainer
from metadisco.presets.base import Preset
from metadisco.runs import loop
from metadisco.runs.run_folder import RunError, read_config
from tests.support import small, two_states
from tests.support.toy import quiet


@dataclass(frozen=True)
class Pay:
    """Levels of `TwoStates`."""

    def sample(self, key):
        return jax.random.uniform(key, (2,))


@dataclass(frozen=True)
class Wide(two_states.Linear):
    """Another shape."""

    def init(self, key):
        return {"w": jnp.zeros(5)}


def preset(objective=two_states.Linear(), num_steps=1):
    inner = replace(two_states.inner_loop(objective), critic=None)
    trainer = MetaTrainer(inner, DomainRandomization(Tasks(Pay(), FixedLifetime(2))), Evolution(), 2, num_steps)
    return Preset("tiny", "tiny", trainer, suites=(), validate_every=0)


ORIGIN = {"preset": "earlier", "seed": 7, "meta_steps": 12, "start": {"name": "first", "sha256": "0" * 64}}
META_PARAMS = {"w": jnp.array([0.5, 0.25, -1.0, 2.0])}


@pytest.fixture
def given(tmp_path):
    """A folder with an objective to begin at."""
    return save(Discovered(two_states.Linear(), META_PARAMS, ORIGIN), tmp_path / "given")


@pytest.mark.parametrize("kind", ["evolution", "gradient", "several", "seeds"])
def test_every_trainer_begins_at_given_meta_params(kind):
    from metadisco.meta_training.batched_seeds import BatchedSeeds
    from metadisco.meta_training.evolution_trainer import EvolutionTrainer
    from metadisco.meta_training.gradient_trainer import GradientTrainer

    single = preset().trainer
    (domain,) = single.domains
    trainer = {
        "evolution": single,
        "gradient": GradientTrainer((replace(domain, inner=two_states.inner_loop()),), num_steps=1),
        "several": EvolutionTrainer((domain, replace(domain, name="twin")), Evolution(), 1),
        "seeds": BatchedSeeds(single, (3, 4)),
    }[kind]
    state = trainer.init(jax.random.key(0), META_PARAMS)
    found = [trainer.trainer.meta_params(trainer.of_seed(state, seed)) for seed in (3, 4)] if kind == "seeds" else []
    for meta_params in found or [trainer.meta_params(state)]:
        assert meta_params["w"].tolist() == META_PARAMS["w"].tolist()


def test_a_run_begins_there_and_says_so(given, tmp_path):
    console = quiet()
    out = tmp_path / "run"
    discovery.discover(preset(), out, start=given, console=console)
    lineage = read_config(out)["provenance"]["start"]
    digest = json.loads((given / "objective.json").read_text())["meta_params_sha256"]
    assert lineage == {"name": str(given), "sha256": digest, **ORIGIN}
    assert load(out).provenance["start"] == lineage
    assert load(out / "start").meta_params["w"].tolist() == META_PARAMS["w"].tolist()
    card = (out / "objective" / "README.md").read_text()
    words = f"(preset earlier, seed 7, meta-steps 12, sha256 {digest[:16]}), begun at first (sha256 0000000000000000)"
    assert f"- begun at: {given} {words}" in card
    said = console.file.getvalue()
    assert f"begins at {given} (preset earlier, seed 7, meta-steps 12), with the same settings" in said
    moved = load(out).meta_params["w"] - META_PARAMS["w"]
    assert 0 < float(jnp.max(jnp.abs(moved))) < 0.05  # one step of Adam from there


def test_what_differs_in_settings_is_said():
    drift = metadisco.MirrorLearning(metadisco.LPODrift(width=4))
    found = start.find(Discovered(drift, drift.init(jax.random.key(0))))
    other = replace(drift, drift=metadisco.LPODrift(width=4, threshold=1e-3))
    inner = replace(two_states.inner_loop(other), critic=None)
    said = found.describe(small.altered(preset().trainer, inner=inner))
    assert "settings differ" in said
    assert "drift.threshold: 0.0001 -> 0.001" in said


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_there(given, tmp_path, monkeypatch):
    out, restore = tmp_path / "run", loop.restore
    monkeypatch.setattr(loop, "restore", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        discovery.discover(preset(), out, start=given, console=quiet())
    (given / "objective.json").unlink()  # the copy counts
    inits = []
    monkeypatch.setattr(loop, "restore", lambda *each: inits.append(each[-1]) or restore(*each))
    discovery.discover(preset(), out, resume=True, console=quiet())
    assert inits[0](jax.random.key(0)).meta.meta_params["w"].tolist() == META_PARAMS["w"].tolist()
    assert load(out).provenance["start"]["name"] == str(given)


def test_a_run_that_goes_on_refuses_another_beginning(given, tmp_path):
    out = tmp_path / "run"
    discovery.discover(preset(), out, console=quiet())
    with pytest.raises(RunError, match=r"began at random meta-parameters, not at .*given"):
        discovery.discover(preset(), out, start=given, resume=True, console=quiet())


def test_a_beginning_of_another_shape_is_refused_before_anything_runs(given, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "run", lambda *_, **__: pytest.fail("too late"))
    words = r"given: meta_params\['w'\] is float32\[4\] in the file and float32\[5\] in tests.commands.test_start:Wide"
    with pytest.raises(config.ConfigError, match=words):
        discovery.discover(preset(Wide()), tmp_path / "run", start=given, console=quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", "quickstart", "--resume"], "keeps its beginning"),
        (["--from", "quikstart"], "Did you mean 'quickstart'?"),
        (["--from", "lpo-quick"], "cannot begin at lpo-quick: meta_params"),
        (["--from", "lpo-quick", "--seeds", "2"], "cannot begin at lpo-quick: meta_params"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["discover", "smoke", *options]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_every_run_of_a_sweep_begins_there_also_when_it_goes_on(given, tmp_path, seeds, monkeypatch):
    planned, out, finish = sweep.plan(preset(), {}, seeds), tmp_path / "sweep", discovery.finish
    monkeypatch.setattr(discovery, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sweep.run(planned, out, start=given, console=quiet())
    monkeypatch.setattr(discovery, "finish", finish)
    (given / "objective.json").unlink()
    assert sweep.run(planned, out, resume=True, console=quiet()) == 0
    for seed in seeds:
        found = load(out / "preset" / f"seed{seed}")
        assert found.provenance["start"]["name"] == str(given)
        assert float(jnp.max(jnp.abs(found.meta_params["w"] - META_PARAMS["w"]))) < 0.05
