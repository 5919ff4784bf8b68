"""The example `experiments/loops/in_rejax.py`: a drift in the PPO of another library."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import metadisco
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.objectives.drift import PPODrift
from metadisco.objectives.mirror_learning import MirrorLearning

pytest.importorskip("rejax", reason="rejax is not installed: make setup-dev")

from experiments.loops import in_rejax
from tests.support.small import assert_trees_close

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


def test_a_schedule_takes_its_scaled_step_by_its_own_loss():
    """One step of an agent with rejax's actor, by the objective's own functions and by the algorithm."""
    schedule = metadisco.load("scheduled-a2c-quick")
    objective, weights = schedule.objective, schedule.meta_params
    agent = in_rejax.create(in_rejax.AnyObjective, discovered=schedule, **SIZE)
    agent = agent.replace(num_epochs=1, num_minibatches=1)

    def outputs(params, obs):
        log_probs = [
            agent.actor.apply(params[0], obs, jnp.full(len(obs), action), method="log_prob_entropy")[0]
            for action in range(2)
        ]
        return {"logits": jnp.stack(log_probs, axis=-1), "value": agent.critic.apply(params[1], obs)}

    @jax.jit
    def both(key):
        state = agent.init_state(key)
        params, progress = (state.actor_ts.params, state.critic_ts.params), metadisco.Progress(0, NUM_UPDATES)
        seen = agent.collect_trajectories(state)[1]
        now, after = (jax.vmap(outputs, (None, 0))(params, obs) for obs in (seen.obs, seen.next_obs))
        predictions = metadisco.Predictions(now, after)
        targets, memory = objective.targets(weights, state.memory, predictions, seen, progress)

        def loss(params):
            return objective.loss(weights, targets, jax.vmap(outputs, (None, 0))(params, seen.obs), seen, progress)[0]

        updates, _ = optax.adam(0.1).update(jax.grad(loss)(params), optax.adam(0.1).init(params))
        factors = list(objective.step_factors(targets).values())
        scaled = [optax.tree.scale(factor, update) for factor, update in zip(factors, updates)]
        expected = [optax.apply_updates(*each) for each in zip(params, scaled)]
        state = agent.train_iteration(state)
        return (*expected, memory), (state.actor_ts.params, state.critic_ts.params, state.memory), factors

    expected, found, factors = both(jax.random.key(0))
    assert_trees_close(found, expected, rtol=1e-4, atol=1e-5)
    assert min(abs(factor - 1.0) for factor in factors) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ta-lpo-quick", "scheduled-a2c-quick"])
def test_agents_learn(name):
    agent = in_rejax.agent_of(metadisco.load(name), total_timesteps=65_536, eval_freq=32_768, num_envs=16)
    _, (_, returns) = jax.jit(agent.train)(jax.random.key(0))
    begin, *_, end = returns.mean(axis=1)
    assert begin < 60.0
    assert end > 150.0
