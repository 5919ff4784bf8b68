"""Presets: named meta-training runs, with the tests of their objectives."""

from dataclasses import dataclass
from typing import Any

from metadisco.meta_training.trainer import Trainer
from metadisco.presets.catalog import PRESETS as CATALOG


@dataclass(frozen=True)
class Preset:
    """A run that can be started by name.

    Attributes:
        name: what it is called on the command line.
        description: one line.
        trainer: the meta-training run, which is also its configuration.
        minutes: wall-clock cap of meta-training; None for none. A run that reaches its last meta-step earlier stops
            there.
        env_steps: cap on the environment steps of meta-training, antagonists included; None for none.
        suites: what the result is tested on, each `NAME` or `NAME@LIFETIME`.
        baselines: hand-written objectives beside it; None for all that are tuned for its agents.
        num_seeds: agents per test task.
        validate_every: meta-steps between tests on the validation levels; 0 for never.
        num_validation_levels: how many of the validation levels such a test uses.
    """

    name: str
    description: str
    trainer: Trainer
    minutes: float | None = None
    env_steps: float | None = None
    suites: tuple[str, ...] = ("grid-unseen",)
    baselines: tuple[str, ...] | None = None
    num_seeds: int = 2
    validate_every: int = 30
    num_validation_levels: int = 32


def catalogued(name: str, trainer: Trainer, **settings: Any) -> Preset:
    """A preset with the catalog's description and suites of its name; `settings` are further fields of `Preset`."""
    return Preset(name, CATALOG[name].description, trainer, suites=CATALOG[name].suites, **settings)
