"""Mirror learning against a slow reference, and what it must and must not depend on."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from metadisco.agents.optimizers import SGD
from metadisco.core.types import Progress, Trajectory
from metadisco.curricula.randomization import DomainRandomization
from metadisco.lives.learner import Learner
from metadisco.meta_optimizers.evolution import Evolution
from metadisco.meta_optimizers.lowrank_evolution import LowRankEvolution
from metadisco.meta_optimizers.schedules import Decay
from metadisco.meta_training.domain import Domain
from metadisco.meta_training.evolution_trainer import EvolutionTrainer
from metadisco.meta_training.truncation import Unroll
from metadisco.objectives.actor_critic import A2CTargets
from metadisco.objectives.drift import DPODrift, LPODrift, PPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from tests.support import remembering, small, two_states
from tests.support.reference import mirror_learning as reference

T, B, A = 6, 4, 3
PROGRESS = Progress(jnp.int32(3), jnp.int32(20))


def _experience(seed=0):
    """Targets, outputs and a trajectory whose actions another policy took."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    index, no = np.zeros((T, B), np.int32), np.zeros((T, B), bool)
    action = rng.integers(0, A, (T, B)).astype(np.int32)
    log_prob = np.log(rng.uniform(0.1, 0.6, (T, B)).astype(np.float32))
    trajectory = Trajectory(index, action, log_prob, draw(T, B), no, no, index)
    return A2CTargets(draw(T, B), draw(T, B)), {"logits": draw(T, B, A), "value": draw(T, B, 1)}, trajectory


@partial(jax.jit, static_argnums=0)
def _loss(objective, outputs, targets=None, trajectory=None, meta_params=(), progress=PROGRESS):
    known_targets, _, known_trajectory = _experience()
    targets, trajectory = targets or known_targets, trajectory or known_trajectory
    return objective.loss(meta_params, targets, outputs, trajectory, progress)[0]


def test_the_loss_of_ppo_equals_the_numpy_reference():
    targets, outputs, trajectory = _experience()
    loss = _loss(PPO(clip=0.3, value_weight=0.7, entropy_weight=0.2), outputs)
    arrays = (outputs["logits"], outputs["value"][..., 0], trajectory.action, trajectory.log_prob)
    slow = reference.ppo_loss(
        *map(np.asarray, (*arrays, targets.advantage, targets.value)), clip=0.3, value_weight=0.7, entropy_weight=0.2
    )
    np.testing.assert_allclose(loss, slow, rtol=1e-5)


def test_where_the_policy_has_not_moved_the_gradient_is_that_of_the_policy_gradient():
    targets, outputs, trajectory = _experience()
    log_probs = special.log_softmax(outputs["logits"], axis=-1)
    chosen = np.take_along_axis(log_probs, trajectory.action[..., None], axis=-1)[..., 0]
    trajectory = trajectory.replace(log_prob=chosen)
    for drift in (PPODrift(), DPODrift()):
        objective = MirrorLearning(drift, value_weight=0.0, entropy_weight=0.0)
        gradient = jax.jit(
            jax.grad(lambda logits, each=objective: _loss(each, {**outputs, "logits": logits}, trajectory=trajectory))
        )
        normal = (targets.advantage - np.mean(targets.advantage)) / np.std(targets.advantage)
        one_hot = np.eye(A)[trajectory.action]
        expected = -normal[..., None] * (one_hot - np.exp(log_probs)) / (T * B)
        np.testing.assert_allclose(gradient(outputs["logits"]), expected, rtol=1e-3, atol=1e-6)


def test_only_the_value_loss_reaches_the_value_and_only_the_rest_the_policy():
    _, outputs, _ = _experience()
    gradient = lambda objective: jax.jit(jax.grad(lambda outputs: _loss(objective, outputs)))(outputs)  # noqa: E731
    assert not np.any(gradient(PPO(value_weight=0.0))["value"])
    assert np.all(gradient(PPO())["value"])
    with_value, without = (gradient(PPO(value_weight=weight))["logits"] for weight in (1.0, 0.0))
    np.testing.assert_array_equal(with_value, without)


def test_a_scale_of_the_advantages_makes_no_difference():
    targets, outputs, _ = _experience()
    scaled = targets.replace(advantage=5.0 * targets.advantage - 2.0)
    np.testing.assert_allclose(_loss(PPO(), outputs), _loss(PPO(), outputs, scaled), rtol=1e-4)


def test_equal_advantages_leave_the_policy_alone_and_have_a_derivative():
    targets, outputs, _ = _experience()

    def policy_loss(outputs, advantage):
        return _loss(PPO(value_weight=0.0, entropy_weight=0.0), outputs, targets.replace(advantage=advantage))

    slopes = jax.jit(jax.grad(policy_loss, argnums=(0, 1)))
    by_outputs, by_advantage = slopes(outputs, np.full((T, B), 2.0, np.float32))
    assert not np.any(by_outputs["logits"])
    assert np.all(np.isfinite(by_advantage))


@partial(jax.jit, static_argnums=0)
def _slopes(objective, outputs, trajectory):
    meta_params = objective.init(jax.random.key(0))
    return jax.grad(lambda outputs: _loss(objective, outputs, trajectory=trajectory, meta_params=meta_params))(outputs)


@pytest.mark.parametrize("log_prob", [-200.0, 200.0])
def test_the_gradient_is_finite_where_the_policy_has_moved_far(log_prob):
    _, outputs, trajectory = _experience()
    trajectory = trajectory.replace(log_prob=np.full((T, B), log_prob, np.float32))
    for drift in (PPODrift(), DPODrift(), LPODrift()):
        slopes = _slopes(MirrorLearning(drift), outputs, trajectory)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


def test_every_meta_parameter_of_lpo_receives_a_gradient():
    _, outputs, _ = _experience()
    objective = MirrorLearning(LPODrift(width=8, temporal=True))

    @jax.jit
    def slopes():
        meta_params = jax.tree.map(lambda leaf: leaf + 0.3, objective.init(jax.random.key(0)))
        return jax.grad(lambda meta_params: _loss(objective, outputs, meta_params=meta_params))(meta_params)

    assert all(np.all(leaf) for leaf in jax.tree.leaves(jax.device_get(slopes())))


LEARNER = Learner(SGD(4.0, 100.0), SGD(1.0, 100.0), num_epochs=3, num_minibatches=2)
LPO = MirrorLearning(LPODrift(width=8))


PPO_NUMBERS = {"drift.clip": 0.01, "gamma": 0.5, "gae_lambda": 0.1, "value_weight": 0.1, "entropy_weight": 1.0}
DPO_NUMBERS = {"drift.alpha": 0.1, "drift.beta": 0.1}


@pytest.mark.parametrize(
    ("objective", "numbers", "path"),
    [
        *((PPO(), PPO_NUMBERS, path) for path in PPO_NUMBERS),
        *((MirrorLearning(DPODrift()), DPO_NUMBERS, path) for path in DPO_NUMBERS),
        (LPO, {"drift.threshold": 1.0}, "drift.threshold"),
    ],
)
def test_every_number_matters(objective, numbers, path):
    known = [f"objective.{each}" for each in numbers]
    inner = two_states.inner_loop(objective, LEARNER, critic=None)
    two_states.assert_matters(inner, f"objective.{path}", numbers[path], known)


@pytest.mark.parametrize(
    ("objective", "other"),
    [
        (PPO(), MirrorLearning(DPODrift())),
        (LPO, replace(LPO, drift=LPODrift(width=7))),
        (LPO, replace(LPO, drift=LPODrift(width=8, clip=None))),
        (LPO, replace(LPO, drift=LPODrift(width=8, temporal=True))),
    ],
)
def test_every_setting_matters(objective, other):
    two_states.assert_different(*(two_states.inner_loop(each, LEARNER, critic=None) for each in (objective, other)))


def test_every_head_of_the_agent_moves():
    params = two_states.params_after_updates(two_states.inner_loop(LPO, LEARNER, critic=None))
    assert set(params) == {"logits", "value"}
    assert all(np.any(table) for table in params.values())


def test_meta_parameters_are_those_of_the_drift():
    assert PPO().init(jax.random.key(0)) == ()
    assert PPO().features == ()
    assert LPO.features == LPODrift().features
    shapes = jax.eval_shape(LPO.init, jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == {"hidden": (8, 8), "out": (8, 1)}


@pytest.mark.parametrize(
    "optimizer", [Evolution(), pytest.param(LowRankEvolution(sigma=Decay(1.0)), marks=pytest.mark.slow)]
)
def test_evolution_moves_every_meta_parameter_of_lpo(optimizer):
    domain = Domain(
        two_states.inner_loop(LPO, LEARNER, critic=None), DomainRandomization(remembering.ShortLives()), 6, slots=3
    )
    trainer = EvolutionTrainer((domain,), optimizer, num_steps=1)
    begun = small.begun(trainer)
    state, metrics = jax.jit(trainer.step)(jax.random.key(1), begun)
    before, after = jax.device_get((trainer.meta_params(begun), trainer.meta_params(state)))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.any(a != b) & np.all(np.isfinite(b)), before, after))
    assert all(np.isfinite(value) for value in metrics.values())


def test_the_meta_gradient_of_lpo_is_finite_also_before_the_first_reward():
    inner = two_states.inner_loop(LPO, LEARNER)

    @jax.jit
    def slope(reward):
        meta_params = jax.tree.map(lambda leaf: leaf + 0.3, LPO.init(jax.random.key(0)))
        task = two_states.task().replace(level=jnp.array([0.0, 1.0]) * reward)
        pair = Unroll(num_updates=2).begin(inner, jax.random.key(0), task)
        return jax.grad(lambda meta_params: Unroll(num_updates=2).advance(inner, meta_params, pair)[0])(meta_params)

    for reward in (0.0, 1.0):
        gradient = jax.device_get(slope(reward))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
        assert all(bool(np.any(leaf)) is (reward > 0.0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("settings", [{"gamma": 1.5}, {"gae_lambda": -0.1}, {"value_weight": -1.0}, {"clip": 0.0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PPO(**settings)
