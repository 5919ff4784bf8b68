"""Numbers that published scores and resumed runs depend on."""

import jax
import numpy as np
import pytest

from metadisco.core import keys
from metadisco.core.keys import KeyPurpose, SeedPurpose


def test_purposes_of_a_life_are_what_they_were_and_differ():
    values = {purpose.name: purpose.value for purpose in KeyPurpose}
    assert values == {
        "TRAIN": 0,
        "TEST": 1,
        "VALIDATE": 2,
        "SHUFFLE": 3,
        "CRITIC": 4,
        "ENVIRONMENT": 5,
        "REMEMBER": 6,
        "SCORE": 2_147_483_647,
    }
    assert len(set(values.values())) == len(KeyPurpose.__members__)  # an alias would be a name without a member


def test_purposes_of_a_seed_are_what_they_were_and_above_all_meta_steps():
    assert {purpose.name: purpose.value for purpose in SeedPurpose} == {
        "EVALUATE": 2_000_000_099,
        "INIT": 4_294_967_295,
    }
    assert len(SeedPurpose.__members__) == 2


@pytest.mark.parametrize("purpose", [*KeyPurpose, SeedPurpose.EVALUATE])
def test_a_purpose_folds_as_its_number_does_compiled_or_not(purpose):
    key = jax.random.key(3)
    wanted = jax.random.key_data(jax.random.fold_in(key, np.uint32(purpose.value)))
    for fold in (jax.random.fold_in, jax.jit(jax.random.fold_in, static_argnums=1)):
        np.testing.assert_array_equal(jax.random.key_data(fold(key, purpose)), wanted)


def test_keys_of_a_life_differ_from_each_other():
    life_key = keys.split_initial(jax.random.key(0)).life
    evaluation_key = keys.of_evaluation(life_key)
    folded = [purpose for purpose in KeyPurpose if purpose != KeyPurpose.TEST]  # under which rollouts are numbered
    drawn = [keys.at_update(life_key, purpose, number) for purpose in folded for number in range(3)]
    drawn += [keys.at_rollout(evaluation_key, number) for number in (0, keys.FIRST_ROLLOUT, keys.FIRST_ROLLOUT + 1)]
    data = {jax.random.key_data(key).tobytes() for key in drawn}

    assert len(data) == len(drawn)
