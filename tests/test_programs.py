"""Compiled programs are dropped before there are too many."""

import jax
import pytest

from metadisco import programs


@pytest.mark.parametrize(("num_maps", "is_dropped"), [(40, False), (60, True)])
def test_programs_are_dropped_where_half_of_the_maps_are_taken(num_maps, is_dropped, monkeypatch):
    calls = []
    monkeypatch.setattr(jax, "clear_caches", lambda: calls.append(1))
    monkeypatch.setattr(programs, "_num_maps", lambda: num_maps)
    monkeypatch.setattr(programs, "_max_maps", lambda: 100)
    programs.forget_if_many()
    assert bool(calls) == is_dropped


def test_maps_are_counted_where_there_are_maps():
    if programs._MAPS.exists():
        assert 10 < programs._num_maps() < programs._max_maps()
