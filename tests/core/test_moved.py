"""Names that files have written stay names that are understood."""

import json
from pathlib import Path

import pytest

from metadisco.checkpoints import checkpoint
from metadisco.core import config, moved
from metadisco.runs import run_folder

RELEASE = json.loads((Path(__file__).parents[1] / "data" / "release_0_1.json").read_text())
ZOO = [json.loads((checkpoint.ZOO / name / "objective.json").read_text()) for name in checkpoint.zoo_names()]


def class_names(data):
    """All that some JSON names as a class."""
    if isinstance(data, dict):
        own = {data["class"]} if isinstance(data.get("class"), str) else set()
        return own.union(*map(class_names, data.values()))
    return set().union(*map(class_names, data)) if isinstance(data, list) else set()


@pytest.mark.parametrize("name", sorted({*RELEASE["classes"], *class_names(ZOO)}))
def test_every_class_of_the_release_before_and_of_the_zoo_is_found(name):
    assert config.class_name_of(config.resolve(name)) == moved.current_name(name)


@pytest.mark.parametrize("preset", sorted(RELEASE["runs"]))
def test_the_settings_of_a_run_of_the_release_before_are_read_and_differ_in_nothing(preset):
    written = RELEASE["runs"][preset]
    trainer = config.from_data(written)
    assert config.diff(written, trainer) == []
    assert numbers(config.to_data(trainer)) >= numbers(written)


def numbers(data):
    """All values in some settings, as a set, whatever the fields are called."""
    if isinstance(data, dict):
        return set().union(*(numbers(value) for name, value in data.items() if name != "class"))
    return set().union(*map(numbers, data)) if isinstance(data, list) else {(type(data).__name__, data)}


def test_a_run_folder_of_the_release_before_is_read_in_present_names(tmp_path):
    for name, trainer in RELEASE["runs"].items():
        folder = tmp_path / name
        folder.mkdir()
        document = {"format_version": 1, "seed": 3, "trainer": trainer, "provenance": {"preset": name}}
        (folder / "config.json").write_text(json.dumps(document))
        read = run_folder.read_config(folder)["trainer"]
        assert class_names(read) == {moved.current_name(each) for each in class_names(read)}
        assert run_folder.objective_of(read)["class"].startswith("metadisco.objectives.")


def test_the_provenance_of_the_zoo_is_read_in_present_names():
    for name in checkpoint.zoo_names():
        provenance = checkpoint.load(name).provenance
        assert class_names(provenance) == {moved.current_name(each) for each in class_names(provenance)}


def test_names_and_fields_change_at_any_depth(monkeypatch):
    monkeypatch.setattr(moved, "MODULES", {"old": "new.place"})
    monkeypatch.setattr(moved, "CLASSES", {"old:Thing": "other:Better"})
    monkeypatch.setattr(moved, "FIELDS", {"old:Thing": lambda fields: {"width": fields.pop("size"), **fields}})
    data = [{"class": "old:Thing", "size": 3, "inside": {"class": "old:Rest", "many": [{"class": "kept:Same"}]}}, 1]
    assert moved.current(data) == [
        {
            "width": 3,
            "class": "other:Better",
            "inside": {"class": "new.place:Rest", "many": [{"class": "kept:Same"}]},
        },
        1,
    ]
    assert data[0]["size"] == 3  # what was read is left as it is
