"""Settings as data: exact both ways, and errors that name the place."""

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pytest

from metadisco.core import config
from tests.support import small


class Optimizer(Protocol):
    def init(self) -> None: ...


@dataclass(frozen=True)
class Evolution:
    sigma: float = 0.1
    population: int = 8
    shaping: Literal["rank", "sign"] = "rank"
    pairs: bool = True

    def __post_init__(self):
        if self.sigma <= 0:
            raise ValueError(f"sigma = {self.sigma}: it must be above 0.")

    def init(self) -> None: ...


@dataclass(frozen=True)
class Level:
    size: int = 5
    weight: float = 1.0


@dataclass(frozen=True)
class Trainer:
    meta: Optimizer = Evolution()
    levels: tuple[Level, ...] = (Level(), Level(7, 2.0))
    widths: tuple[int, int] = (3, 4)
    name: str = "toy"
    clip: float | None = None
    rate: float = 0.1
    extra: Any = None
    hidden: int = field(default=0, init=False)


@dataclass
class Mutable:
    size: int = 1


AWKWARD = (0.1 + 0.2, 1e-320, math.inf, -math.inf, -0.0, 1 / 3, True, None, 3, "x", ((), (1,)))


@pytest.mark.parametrize("value", AWKWARD, ids=repr)
def test_round_trip_through_json_is_exact(value):
    trainer = Trainer(extra=value)
    restored = config.from_data(json.loads(json.dumps(config.to_data(trainer), allow_nan=False)))
    assert restored == trainer
    assert repr(restored) == repr(trainer)


def test_nan_survives():
    assert math.isnan(config.from_data(config.to_data(Trainer(rate=math.nan))).rate)


def test_data_holds_the_class_by_name_and_every_field():
    assert config.to_data(Level(9)) == {"class": f"{Level.__module__}:Level", "size": 9, "weight": 1.0}


@pytest.mark.parametrize("value", [np.zeros(2), np.float32(1), [1], {"a": 1}, {1}, math.sin, Mutable(), Level])
def test_value_that_is_not_data_is_refused_with_its_path(value):
    with pytest.raises(config.ConfigError, match=r"extra\.0"):
        config.to_data(Trainer(extra=(value,)))


@pytest.mark.parametrize("value", [Mutable(), 3, Level, {"class": "x"}])
def test_only_instances_of_frozen_dataclasses_are_components(value):
    with pytest.raises(config.ConfigError, match="frozen"):
        config.to_data(value)


def test_field_that_is_missing_takes_its_default():
    assert config.from_data({"class": f"{__name__}:Level", "size": 2}) == Level(2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"class": "{here}:Level", "sizes": 2}, r"no field 'sizes'.*Did you mean 'size'\? Valid: size, weight"),
        ({"class": "{here}:Levle"}, r"no component 'Levle'. Did you mean 'Level'\?"),
        ({"class": "{here}:Mutable"}, "not a component class"),
        ({"class": "{here}:math"}, "not a component class"),
        ({"class": "os:system"}, "not a component class"),
        ({"class": "os.path:join.x"}, "not the name of a component"),
        ({"class": "{here}:Level", "size": "big"}, "size = 'big' is a str; it must be int"),
        ({"class": "{here}:Level", "size": True}, "size = True is a bool; it must be int"),
        ({"class": "{here}:Level", "size": {"sized": 1}}, "size has no 'class'"),
        ({"class": "{here}:Trainer", "hidden": 3}, "no field 'hidden'"),
        ({"size": 2}, "'class'"),
        ([1], "'class'"),
        ({"class": "metadisco.nowhere:Thing"}, "Cannot import"),
        ({"class": "metadisco_evil:Thing"}, "not part of metadisco"),
    ],
)
def test_bad_data_is_refused_with_the_reason(data, message):
    data = json.loads(json.dumps(data).replace("{here}", __name__))
    with pytest.raises(config.ConfigError, match=message):
        config.from_data(data)


def test_module_of_others_is_imported_only_when_allowed(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Thing:\n    size: int = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = {"class": "their_package:Thing", "size": 4}
    with pytest.raises(config.ConfigError, match=r'allow=\("their_package",\)'):
        config.from_data(data)
    assert config.from_data(data, allow=("their_package",)).size == 4


def test_a_package_that_the_user_trusts_is_imported_wherever_a_file_names_it(tmp_path, monkeypatch):
    (tmp_path / "our_package.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Thing:\n    size: int = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "_trusted", set())
    data = {"class": "our_package:Thing", "size": 4}
    with pytest.raises(config.ConfigError, match="--allow our_package on the command line"):
        config.from_data(data)
    with pytest.raises(config.ConfigError, match="not the name of a module"):
        config.trust("our-package")
    config.trust("our_package")
    assert config.from_data(data).size == 4


def test_values_are_checked_by_the_component_itself():
    with pytest.raises(ValueError, match=r"sigma = -1\.0: it must be above 0"):
        config.from_data(config.to_data(Trainer()) | {"meta": {"class": f"{__name__}:Evolution", "sigma": -1.0}})


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("meta.sigma", 0.5, lambda trainer: trainer.meta.sigma == 0.5),
        ("meta.sigma", "1e-3", lambda trainer: trainer.meta.sigma == 0.001),
        ("meta.sigma", 2, lambda trainer: type(trainer.meta.sigma) is float),
        ("meta.population", "1e3", lambda trainer: trainer.meta.population == 1000),
        ("meta.shaping", "sign", lambda trainer: trainer.meta.shaping == "sign"),
        ("meta.pairs", "false", lambda trainer: trainer.meta.pairs is False),
        ("levels.1.size", "9", lambda trainer: trainer.levels == (Level(), Level(9, 2.0))),
        ("widths", "5,6", lambda trainer: trainer.widths == (5, 6)),
        ("name", "12", lambda trainer: trainer.name == "12"),
        ("clip", "none", lambda trainer: trainer.clip is None),
        ("clip", "inf", lambda trainer: trainer.clip == math.inf),
        ("meta", f"{__name__}:Evolution", lambda trainer: trainer.meta == Evolution()),
        ("meta", Evolution(3.0), lambda trainer: trainer.meta.sigma == 3.0),
    ],
)
def test_field_is_replaced_by_its_path(path, value, read):
    assert read(config.replace_field(Trainer(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("meta.sigm", 1, r"'meta.sigm'. Did you mean 'meta.sigma'\? Valid: meta.pairs, meta.population"),
        ("mta", 1, r"Did you mean 'meta'\?"),
        ("levels.2.size", 1, r"Valid: levels.0, levels.1"),
        ("name.size", 1, "name = 'toy' has no fields"),
        ("hidden", 1, "Unknown field"),
        ("meta.sigma", "wide", "meta.sigma = 'wide' is a str; it must be float"),
        ("meta.population", 1.5, "it must be int"),
        ("meta.population", "true", "it must be int"),
        ("meta.shaping", "rang", "Literal"),
        ("widths", "1,2,3", "has 3 items; it must have 2"),
        ("meta", 3, "it must be Optimizer"),
        ("levels", "__import__('os').getcwd()", "is a str; it must be tuple"),
    ],
)
def test_bad_replacement_is_refused_with_the_reason(path, value, message):
    with pytest.raises(config.ConfigError, match=message):
        config.replace_field(Trainer(), path, value)


def test_fields_replaced_together_need_to_fit_only_together():
    assert config.replace_fields(Trainer(), {"meta.sigma": 0.2, "meta.population": 4, "rate": 1}) == Trainer(
        meta=Evolution(0.2, 4), rate=1.0
    )


def test_diff_names_what_differs_with_both_values():
    other = config.replace_fields(Trainer(), {"meta.sigma": 0.2, "levels.1.size": 8, "clip": 1.0})
    assert [str(item) for item in config.diff(Trainer(), config.to_data(other))] == [
        "meta.sigma: 0.1 -> 0.2",
        "levels.1.size: 7 -> 8",
        "clip: None -> 1.0",
    ]


def test_diff_of_another_class_names_the_classes_alone():
    (difference,) = config.diff(Trainer(), Trainer(meta=Level()))
    assert str(difference) == f"meta: '{__name__}:Evolution' -> '{__name__}:Level'"


def test_diff_of_equal_components_is_empty():
    assert config.diff(Trainer(clip=math.nan), Trainer(clip=math.nan)) == []


@dataclass(frozen=True)
class Several:
    """Parts in a tuple."""

    parts: tuple[Level, ...]
    rate: float = 1.0


def test_what_is_inside_the_only_item_of_a_tuple_may_be_named_without_the_tuple():
    assert config.replace_fields(Several((Level(2),)), {"size": "7", "rate": 2}) == Several((Level(7),), 2.0)
    with pytest.raises(config.ConfigError, match="Unknown field 'size'"):
        config.replace_fields(Several((Level(2), Level(3))), {"size": 7})


def test_a_component_of_another_kind_is_refused_where_a_protocol_is_wanted():
    with pytest.raises(config.ConfigError, match=r"inner.torso = .*:Return is no Torso: it has no init"):
        config.replace_field(small.trainer(), "inner.torso", "metadisco.meta_training.level_scores:Return")
