"""What equal components share is computed once, and what has no hash is computed anyway."""

from metadisco.core.caching import once_for_equal
from metadisco.runs.compiled_steps import compile_chunk
from tests.support.toy import Toy


def _counted():
    calls = []

    @once_for_equal(maxsize=2)
    def double(items, *, times=2):
        calls.append(items)
        return items * times

    return double, calls


def test_equal_arguments_are_computed_once_and_others_anew():
    double, calls = _counted()
    assert [double((1,)), double((1,)), double((1,), times=3)] == [(1, 1), (1, 1), (1, 1, 1)]
    assert len(calls) == 2


def test_arguments_without_a_hash_are_computed_every_time():
    double, calls = _counted()
    assert [double([1]), double([1]), double((1,), times=2)] == [[1, 1], [1, 1], (1, 1)]
    assert len(calls) == 3


def test_a_program_is_traced_once_for_equal_trainers_and_again_for_another(monkeypatch):
    traced, step = [], Toy.step

    def counted(self, key, state):
        traced.append(self)
        return step(self, key, state)

    monkeypatch.setattr(Toy, "step", counted)
    for rate in (0.123, 0.123, 0.456):  # of no other test
        compile_chunk(Toy(rate=rate))
    assert traced == [Toy(rate=0.123), Toy(rate=0.456)]
