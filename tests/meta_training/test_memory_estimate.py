"""A run that does not fit into memory is refused, and the sizes that are named are those that it has."""

import jax
import pytest

from metadisco.meta_training import memory_estimate
from tests.support import small


def test_a_run_that_does_not_fit_is_refused_with_the_sizes_that_it_has(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: 1000)
    # 64 pairs on two devices are 64 lives each, of which those with a mean of half the longest fill half.
    with pytest.raises(ValueError, match=r"num_tasks \(now 64\), slots \(32\), inner.num_workers \(4\)"):
        memory_estimate.check(small.trainer(num_tasks=64, slots=None))


def test_a_run_that_fits_is_not(monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: memory_estimate.estimate(small.trainer()))
    memory_estimate.check(small.trainer())
