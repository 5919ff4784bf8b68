"""The example `experiments/loops/in_rejax.py`: a drift in the PPO of another library."""

import functools

import jax
import jax.numpy as jnp
import pytest

from metadisco.checkpoints.checkpoint import Discovered
from metadisco.objectives.drift import PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning

pytest.importorskip("rejax", reason="rejax is not installed: make setup-dev")  # its import warns

from experiments.loops import in_rejax

CLIP, NUM_UPDATES = 0.05, 3
SIZE = {
    "num_envs": 4, "num_steps": 16, "num_epochs": 4, "num_minibatches": 2, "learning_rate": 0.1, "clip_eps": CLIP,
    "total_timesteps": NUM_UPDATES * 4 * 16, "agent_kwargs": {"hidden_layer_sizes": (8,)},
}  # fmt: skip
PPO = Discovered(MirrorLearning(PPODrift(CLIP)), ()).drift


@functools.cache
def trained(algorithm, **settings):
    """Parameters of actor and critic after each of three updates of CartPole, eight minibatches each."""
    agent = in_rejax.create(algorithm, **SIZE, **settings)

    def update(state, _):
        state = agent.train_iteration(state)
        return state, (state.actor_ts.params, state.critic_ts.params)

    run = jax.jit(lambda key: jax.lax.scan(update, agent.init_state(key), length=NUM_UPDATES)[1])
    return jax.tree.leaves(run(jax.random.key(0)))


def differences(left, right):
    """The largest difference of a parameter after each update."""
    return [max(float(jnp.max(jnp.abs(a[n] - b[n]))) for a, b in zip(left, right)) for n in range(NUM_UPDATES)]


def test_the_drift_of_ppo_makes_it_the_ppo_of_the_library():
    own, ours = trained(in_rejax.PPO), trained(in_rejax.DriftPPO, drift=PPO)
    assert max(differences(own, ours)) < 1e-4
    assert all(jnp.max(jnp.abs(leaf[0] - leaf[2])) > 0.01 for leaf in ours)  # and all of it has learnt


def test_another_drift_makes_another_agent_and_is_told_how_much_of_training_is_over():
    """Nothing of training is over at the first update, a third at the second; then the drift ends."""

    def drift(ratio, advantage, progress):
        return jnp.where(progress < 0.2, PPO(ratio, advantage, progress), 0.0)

    first, second, third = differences(trained(in_rejax.PPO), trained(in_rejax.DriftPPO, drift=drift))
    assert first < 1e-4
    assert second > 0.1
    assert third > 0.1
