"""What is said of the duration of a meta-test before it runs."""

import jax
import pytest

from metadisco.evaluation import duration, suites
from metadisco.evaluation.agents_under_test import TrainedObjective, inner_loops
from metadisco.evaluation.meta_test import plan, run_tests
from metadisco.presets import registry
from tests.support.toy import quiet


def planned(suites, num_levels=None):
    trainer = registry.preset("smoke").trainer
    return plan([TrainedObjective("discovered", inner_loops(trainer), ())], suites, num_levels, ["a2c"])


def test_it_grows_with_levels_lifetimes_and_seeds():
    base = duration.seconds(planned(["grid-unseen"], 32), 2)
    assert base > 2 * duration.COMPILE_SECONDS  # two agents
    for tests, num_seeds in ((planned(["grid-unseen"], 320), 2), (planned(["grid-unseen@640"], 32), 2)):
        assert duration.seconds(tests, num_seeds) > base
    assert duration.seconds(planned(["grid-unseen"], 32), 20) == duration.seconds(planned(["grid-unseen"], 320), 2)


def test_on_an_accelerator_there_is_no_estimate(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert duration.seconds(planned(["grid-tiny"]), 2) is None


def test_it_is_said_before_anything_is_drawn(monkeypatch):
    class DrawnError(Exception):
        pass

    def build(self):
        raise DrawnError

    monkeypatch.setattr(suites.RequestedSuite, "build", build)
    console = quiet()
    with pytest.raises(DrawnError):
        run_tests(planned(["grid-tiny"]), num_seeds=2, seed=0, console=console)
    assert "Testing 2 agents on 1 suite: about a minute here." in console.file.getvalue()
