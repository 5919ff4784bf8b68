"""The net of schedules as the candidates of low-rank evolution have it."""

import jax
import jax.numpy as jnp
import pytest

from metadisco.core.lowrank import LowRank, dense
from metadisco.core.types import Progress
from metadisco.objectives.scheduled_a2c import ScheduledA2C
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from tests.support import small
from tests.support.rollouts import experience, random_net

PROGRESS = Progress(jnp.int32(3), jnp.int32(20))


def thinned(leaf):
    """A matrix with a perturbation of rank 1; vectors as they are."""
    if leaf.ndim < 2:
        return leaf
    left, right = (jax.random.normal(jax.random.key(size), (size, 1)) for size in leaf.shape)
    return LowRank(leaf, left, right, jnp.float32(0.1))


@pytest.mark.parametrize("objective", [ScheduledA2C(width=4), ScheduledMirrorLearning(width=4)], ids=repr)
def test_low_rank_weights_are_their_full_matrices(objective):
    trajectory, predictions = experience()
    thin = jax.tree.map(thinned, random_net(objective))
    full = jax.tree.map(dense, thin, is_leaf=lambda leaf: isinstance(leaf, LowRank))
    state = objective.init_state(jax.random.key(0), None, predictions.agent_params, 3)
    told, other = (objective.targets(each, state, predictions, trajectory, PROGRESS) for each in (thin, full))
    small.assert_trees_close(told, other, rtol=1e-4, atol=1e-5)
