"""The names of presets."""

from collections.abc import Callable
from functools import partial

from metadisco.core import config
from metadisco.presets import drifts, grid_worlds
from metadisco.presets.base import Preset

PRESETS: dict[str, Callable[[], Preset]] = {
    "quickstart": grid_worlds.quickstart,
    "smoke": grid_worlds.smoke,
    "exploring-a2c-long": grid_worlds.exploring_a2c_long,
    "scheduled-a2c-quick": grid_worlds.scheduled_a2c_quick,
    "scheduled-a2c": grid_worlds.scheduled_a2c,
    "scheduled-a2c-nres": grid_worlds.scheduled_a2c_nres,
    "scheduled-ppo-quick": drifts.scheduled_ppo,
    "scheduled-ppo-grid": grid_worlds.scheduled_ppo_grid,
    "open-quick": drifts.open_quick,
    "open-grid": grid_worlds.open_grid,
    "ta-lpg-quick": grid_worlds.ta_lpg_quick,
    "ta-lpg-grid": grid_worlds.ta_lpg_grid,
    "lpg-grid": grid_worlds.lpg_grid,
    "lpg-grid-pes": grid_worlds.lpg_grid_pes,
    "groove-grid-es": grid_worlds.groove_grid_es,
    "self-evolving-quick": grid_worlds.self_evolving_quick,
    "lpg-grid-gradient": grid_worlds.lpg_grid_gradient,
    **{name: partial(grid_worlds.replay_by, name, score) for name, score in grid_worlds.SCORES.items()},
    **{
        f"{prefix}-{name}": partial(drifts.drift, f"{prefix}-{name}", make, temporal=prefix == "ta-lpo")
        for prefix in ("lpo", "ta-lpo")
        for name, make in drifts.DRIFTS.items()
    },
}


def preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        config.ConfigError: where there is none of that name; lists the valid ones and the nearest match.
    """
    if name not in PRESETS:
        raise config.ConfigError(f"unknown preset {name!r}.{config.nearest(name, PRESETS)}")
    return PRESETS[name]()
