"""Compiled programs are dropped before there are too many."""

import jax
import pytest

from metadisco.core import devices


@pytest.mark.parametrize(("num_maps", "is_dropped"), [(40, False), (60, True)])
def test_programs_are_dropped_where_half_of_the_maps_are_taken(num_maps, is_dropped, monkeypatch):
    calls = []
    monkeypatch.setattr(jax, "clear_caches", lambda: calls.append(1))
    monkeypatch.setattr(devices, "_num_maps", lambda: num_maps)
    monkeypatch.setattr(devices, "_max_maps", lambda: 100)
    devices.forget_if_many()
    assert bool(calls) == is_dropped


def test_maps_are_counted_where_there_are_maps():
    if devices._MAPS.exists():
        assert 10 < devices._num_maps() < devices._max_maps()
