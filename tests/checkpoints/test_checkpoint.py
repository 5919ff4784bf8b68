"""A portable objective comes back as it was, or not at all with the reason."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax.core import FrozenDict

from metadisco.checkpoints import checkpoint, stored_trees
from metadisco.checkpoints.checkpoint import Discovered, load, save
from metadisco.commands import discovery
from metadisco.core import config, moved
from metadisco.core.files import CheckpointError, hash_document
from metadisco.core.provenance import provenance
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.objectives.lpg import LPG
from metadisco.presets.registry import preset
from metadisco.runs.train_state import Checkpoints
from tests.support.disk import flip, names, trees_equal, truncate


@dataclass(frozen=True)
class Rule:
    width: int = 4
    features: tuple[str, ...] = ("reward", "n/N")

    def init(self, key):
        if self.width == 0:
            return ()
        return {"net": {"kernel": jax.random.normal(key, (2, self.width)), "bias": jnp.zeros(self.width, jnp.bfloat16)}}


def discovered(width=4):
    rule = Rule(width)
    scores = {"grid": {"a2c": {"iqm": 0.5, "num_tasks": 256}, "discovered": {"iqm": 0.75, "num_tasks": 256}}}
    return Discovered(rule, rule.init(jax.random.key(1)), provenance(seed=3, preset="toy"), scores)


@pytest.mark.parametrize("width", [4, 0])
def test_portable_objective_comes_back_as_it_was(tmp_path, width):
    before = discovered(width)
    after = load(save(before, tmp_path / "deep" / "rule"))
    assert after.objective == before.objective
    assert trees_equal(after.meta_params, before.meta_params)
    assert (after.provenance, after.evaluation) == (before.provenance, before.evaluation)


def test_folder_holds_json_safetensors_and_card_and_nothing_else(tmp_path):
    save(discovered(), tmp_path / "rule")
    assert names(tmp_path) == ["rule"]
    assert names(tmp_path / "rule") == ["README.md", "meta_params.safetensors", "objective.json"]
    document = json.loads((tmp_path / "rule" / "objective.json").read_text())
    assert document["features"] == ["reward", "n/N"]
    assert document["meta_params"]["net/kernel"] == {"shape": [2, 4], "dtype": "float32"}
    assert "| discovered | 0.750 | 256 |" in (tmp_path / "rule" / "README.md").read_text()


def test_same_objective_is_the_same_bytes(tmp_path):
    before = discovered()
    files = [(save(before, tmp_path / name) / "meta_params.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_existing_folder_is_not_overwritten(tmp_path):
    save(discovered(), tmp_path / "rule")
    with pytest.raises(CheckpointError, match="overwrite=True"):
        save(discovered(), tmp_path / "rule")
    save(discovered(3), tmp_path / "rule", overwrite=True)
    assert load(tmp_path / "rule").objective.width == 3


def test_overwrite_never_replaces_what_is_not_an_objective(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(CheckpointError, match="name another folder"):
        save(discovered(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "words"


def test_leftovers_of_a_killed_save_do_no_harm(tmp_path):
    (tmp_path / ".rule.partial").mkdir()
    (tmp_path / ".rule.partial" / "objective.json").write_text("{")
    assert load(save(discovered(), tmp_path / "rule")).objective == Rule()
    assert names(tmp_path) == ["rule"]


W = jnp.arange(6.0).reshape(2, 3)
TREES = {
    "list": [W, {"b": [W + 1, W + 2]}],
    "tuple": (W, (W + 1,)),
    "frozen dict": FrozenDict({"net": {"w": W}, "rest": [W]}),
    "none": {"w": W, "bias": None},
    "bare array": W,
    "keys": {"a/b": W, "a": {"b": W + 1, "~": W + 2}, "": {"": W + 3}, "__metadata__": W + 4},
    "empty": {"w": W, "none": {}, "nor": [], "here": ()},
    "no arrays": {},
}


@dataclass(frozen=True)
class Shaped:
    """An objective whose meta-parameters are one of TREES, as far as they are concerned."""

    tree: str

    def init(self, key):
        return jax.tree.map(lambda leaf: leaf + jax.random.normal(key, leaf.shape), TREES[self.tree])


@pytest.mark.parametrize("name", list(TREES))
def test_meta_params_come_back_with_their_structure(tmp_path, name):
    before = Discovered(Shaped(name), TREES[name])
    after = load(save(before, tmp_path / "rule")).meta_params
    assert type(after) is type(TREES[name])
    assert jax.tree.structure(after) == jax.tree.structure(TREES[name])
    assert trees_equal(after, TREES[name])
    stored_trees.check_init(Shaped(name))


@pytest.mark.parametrize("name", ["list", "frozen dict", "bare array", "keys"])
def test_a_train_state_of_any_structure_can_be_kept(tmp_path, name):
    state = Evolution().init(jax.random.key(0), TREES[name], 2)
    Checkpoints(tmp_path).save(1, state)
    assert trees_equal(Checkpoints(tmp_path).restore_latest(state).state, state)


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


@pytest.mark.parametrize(
    ("meta_params", "words"),
    [
        ([1.0], r"meta_params\[0\] is a float"),
        ({"a": jax.random.key(0)}, r"meta_params\['a'\] is an array of key"),
        ({"a": "text"}, "is a str"),
        ({"a": {1: W}}, "has the key 1"),
        ({"a": Pair(W, W)}, "is a Pair"),
        ({"a": W + 1j}, "array of complex64"),
    ],
)
def test_meta_params_that_cannot_be_built_again_are_refused(tmp_path, meta_params, words):
    with pytest.raises(CheckpointError, match=words):
        save(Discovered(Rule(), meta_params), tmp_path / "rule")
    assert names(tmp_path) == []


@dataclass(frozen=True)
class Paired(LPG):
    def init(self, key):
        return Pair(super().init(key), W)

    def targets(self, meta_params, *rest):
        return super().targets(meta_params[0], *rest)


def test_an_objective_that_cannot_be_kept_is_refused_before_it_is_trained(monkeypatch):
    monkeypatch.setattr(discovery.memory_estimate, "check", lambda _: pytest.fail("too late"))
    smoke = preset("smoke")
    trainer = config.replace_fields(smoke.trainer, {"inner.objective": Paired()})
    with pytest.raises(CheckpointError, match="meta_params is a Pair"):
        discovery.discover(replace(smoke, trainer=trainer), "not-used")


@pytest.mark.parametrize("name", checkpoint.zoo_names())
def test_shipped_objectives_are_written_as_they_were(tmp_path, name):
    """The arrays byte for byte, and the document in present names."""
    folder = save(load(name), tmp_path / name)
    assert (folder / TENSORS).read_bytes() == (checkpoint.ZOO / name / TENSORS).read_bytes()
    ours, shipped = (json.loads((each / JSON).read_text()) for each in (folder, checkpoint.ZOO / name))
    assert ours | {"sha256": ""} == moved.current(shipped) | {"sha256": ""}


@pytest.mark.parametrize(
    "change", [lambda tree: tree["list"].append("/9"), lambda tree: tree["list"].pop(), lambda tree: tree.clear()]
)
def test_a_damaged_description_is_refused(tmp_path, change):
    folder = save(Discovered(Shaped("list"), TREES["list"]), tmp_path / "rule")
    edit(folder / JSON, lambda document: change(document["structure"]), sign=True)
    with pytest.raises(CheckpointError, match="description of the meta-parameters"):
        load(folder)


def edit(path, change, *, sign=False):
    document = json.loads(path.read_text())
    change(document)
    if sign:  # as somebody would who knows the format
        document["sha256"] = hash_document(document)
    path.write_text(json.dumps(document))


def swap_tensors(folder):
    save(discovered(5), folder.parent / "other")
    blob = (folder.parent / "other" / "meta_params.safetensors").read_bytes()
    (folder / "meta_params.safetensors").write_bytes(blob)
    digest = hashlib.sha256(blob).hexdigest()
    edit(folder / "objective.json", lambda document: document.update(meta_params_sha256=digest), sign=True)


JSON, TENSORS = "objective.json", "meta_params.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: truncate(folder / TENSORS), "truncated, damaged or tampered"),
        (lambda folder: flip(folder / TENSORS), "truncated, damaged or tampered"),
        (lambda folder: (folder / TENSORS).unlink(), "not complete"),
        (lambda folder: truncate(folder / JSON), "truncated or damaged"),
        (lambda folder: (folder / JSON).write_text("[]"), "truncated or damaged"),
        (lambda folder: (folder / JSON).unlink(), "not a checkpoint folder"),
        (
            lambda folder: edit(folder / JSON, lambda document: document.update(format_version=2)),
            "format version 2; this",
        ),
        (
            lambda folder: edit(folder / JSON, lambda document: document.pop("evaluation")),
            "changed after it was written",
        ),
        (lambda folder: edit(folder / JSON, lambda document: document.pop("features"), sign=True), "has no features"),
        (
            lambda folder: edit(folder / JSON, lambda document: document["objective"].update(width=5)),
            "changed after it was written",
        ),
        (
            lambda folder: edit(folder / JSON, lambda document: document["objective"].update(width=5), sign=True),
            "does not fit its objective",
        ),
        (swap_tensors, "shapes"),
    ],
)
def test_damaged_or_tampered_objective_is_refused_with_the_reason(tmp_path, damage, message):
    damage(save(discovered(), tmp_path / "rule"))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "rule")


def test_objective_of_an_unknown_module_is_refused(tmp_path):
    folder = save(discovered(), tmp_path / "rule")
    edit(folder / JSON, lambda document: document["objective"].update({"class": "antigravity:Rule"}), sign=True)
    with pytest.raises(config.ConfigError, match="not part of metadisco"):
        load(folder)


def test_zoo_is_loaded_by_name_and_an_unknown_name_gets_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ZOO", tmp_path)
    save(discovered(), tmp_path / "ta-lpg-grid")
    assert checkpoint.zoo_names() == ("ta-lpg-grid",)
    assert load("ta-lpg-grid").objective == Rule()
    with pytest.raises(CheckpointError, match=re.escape("'lpg-grid'. Did you mean 'ta-lpg-grid'?")):
        load("lpg-grid")


def test_run_folder_stands_for_its_objective(tmp_path):
    save(discovered(), tmp_path / "run" / "objective")
    assert load(tmp_path / "run").objective == Rule()
