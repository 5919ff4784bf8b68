"""Every result says where it comes from."""

import jax

from metadisco.core.provenance import provenance


def test_provenance_says_where_a_result_comes_from():
    origin = provenance(seed=3)
    assert {"command", "date", "commit", "versions", "hardware", "seed"} <= origin.keys()
    assert origin["versions"]["jax"] == jax.__version__
