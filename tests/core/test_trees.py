"""`stream` is the same as one loop after the other."""

import jax
import jax.numpy as jnp
import pytest

from metadisco.core import trees


def _one_after_the_other(trips):
    return [float(sum(range(n))) + 100.0 * i * n for i, n in enumerate(trips)]


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("trips", [[3, 1, 4, 1, 5], [0, 0, 2, 0, 7], [0, 0, 0, 0, 0], [2, 2, 2, 2, 2]])
def test_stream_equals_one_loop_after_the_other(slots, trips):
    trips_array = jnp.array(trips, jnp.int32)
    items = {"count": jnp.zeros(5, jnp.int32), "total": jnp.zeros(5), "trips": trips_array}

    def body(individual, item):
        total = item["total"] + item["count"] + 100.0 * individual
        return item | {"count": item["count"] + 1, "total": total}

    result = trees.stream(
        body,
        lambda item: item["count"] < item["trips"],
        jnp.arange(5.0),
        items,
        slots=slots,
        order=jnp.argsort(-trips_array),
    )
    assert result["count"].tolist() == trips
    assert result["total"].tolist() == _one_after_the_other(trips)


def test_stream_does_no_more_rounds_than_a_good_packing_needs():
    trips = jnp.array([8, 2, 2, 2, 2], jnp.int32)
    rounds = []

    def body(_, item):
        jax.debug.callback(lambda: rounds.append(1))
        return item - 1

    trees.stream(body, lambda item: item > 0, (), trips, slots=2, order=jnp.argsort(-trips))
    jax.effects_barrier()
    # Two slots, 16 steps of work, 8 in the longest: 8 rounds of 2.
    assert len(rounds) in (8, 16)  # the callback runs once a round or once a slot, by the version of JAX


def test_where_broadcasts_the_condition_over_trailing_axes():
    left, right = {"a": jnp.ones((2, 3))}, {"a": jnp.zeros((2, 3))}
    chosen = trees.where(jnp.array([True, False]), left, right)
    assert chosen["a"].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_index_takes_rows_of_every_leaf():
    tree = {"a": jnp.arange(4), "b": jnp.arange(8).reshape(4, 2)}
    assert trees.index(tree, jnp.array([2, 0]))["b"].tolist() == [[4, 5], [0, 1]]
