"""Whatever is typed and whatever has become of files: success, or exit code 2 and a sentence."""

import functools
import itertools

import pytest

from metadisco.core import config
from metadisco.evaluation import meta_test
from metadisco.presets import registry
from metadisco.reports import inspection
from metadisco.runs import loop
from tests.support import fuzz

FAST, SLOW = 300, 10_000


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """Makes cases of a seed; what they would compute is left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "_trusted", set())
    check_memory = meta_test._check_memory

    def refuse_or_stop(tests, *, num_seeds, **_):
        check_memory(tests, num_seeds)
        fuzz.stop()

    monkeypatch.setattr(meta_test, "run_tests", refuse_or_stop)
    monkeypatch.setattr(loop, "compile_chunk", fuzz.stop)
    for name, make in registry.PRESETS.items():  # each takes a tenth of a second to be made
        monkeypatch.setitem(registry.PRESETS, name, functools.cache(make))
    monkeypatch.setattr(inspection, "inspect", lambda *_, **__: None)
    return lambda seed, presets: fuzz.Cases(tmp_path, seed, presets)


def failures(cases, num, most=20):
    found = (fuzz.check(case) for case in itertools.islice(cases, num))
    return list(itertools.islice(filter(None, found), most))


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*begun with jax", "ignore:Skipping checkpoint")
def test_random_input_succeeds_or_is_refused_in_a_sentence(cases):
    assert failures(cases(0, fuzz.QUICK_PRESETS), FAST) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.filterwarnings("ignore:.*begun with jax", "ignore:Skipping checkpoint")
def test_much_random_input_succeeds_or_is_refused_in_a_sentence(cases):
    assert failures(cases(1, fuzz.PRESETS), SLOW) == []
