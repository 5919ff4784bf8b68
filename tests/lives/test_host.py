"""Environments that are stepped on the host: the lives of JAX, ends told apart, and what is missing is named."""

import importlib.util
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metadisco.agents.convolutions import StridedCNN
from metadisco.agents.networks import MLP
from metadisco.agents.optimizers import Adam
from metadisco.core import config
from metadisco.core.types import Task
from metadisco.envs.atari import GAMES, Atari
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.envs.gymnasium_adapter import Gymnasium
from metadisco.envs.host import Hosted, Workers
from metadisco.evaluation import environments, evaluation, suites
from metadisco.evaluation.agents_under_test import AgentUnderTest
from metadisco.evaluation.test_sets import TestSet
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.normalization import Normalizer
from metadisco.objectives.drift import LPODrift
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from tests.support.corridor import END, LAST, Corridor, HostCorridor

LEARNER = Learner(Adam(1e-2, anneal=True), Adam(1e-2), num_epochs=2, num_minibatches=2)
IN_JAX = InnerLoop(
    Corridor(), MLP((8,)), PPO(), LEARNER, num_workers=4, num_steps=6, num_test_workers=4, normalizer=Normalizer()
)
ON_HOST = replace(IN_JAX, env=Hosted(HostCorridor()))
LIFETIME = 5


def tasks_on(inner):
    return TestSet(
        name="corridor",
        env=inner.env,
        lifetime=LIFETIME,
        tasks=Task((), jnp.full(1, LIFETIME, jnp.int32)),
        names=("corridor",),
        random_return=np.array([0.2], np.float32),
        upper_return=np.array([0.9], np.float32),
        inner=inner,
    )


def test_lives_on_the_host_are_the_lives_in_jax():
    options = {"num_seeds": 2, "num_points": 2, "devices": jax.devices()[:1]}
    in_jax = evaluation.evaluate(IN_JAX, (), tasks_on(IN_JAX), **options)
    on_host = evaluation.evaluate(ON_HOST, (), tasks_on(ON_HOST), **options)
    np.testing.assert_allclose(on_host.returns, in_jax.returns, rtol=1e-5)
    assert len(np.unique(in_jax.returns)) > 3  # something was learned, and differently
    assert on_host.agent_params.keys() == in_jax.agent_params.keys()
    for name, leaf in in_jax.agent_params.items():
        np.testing.assert_allclose(on_host.agent_params[name], leaf, rtol=1e-3, atol=1e-5, err_msg=name)
    for name, values in in_jax.metrics.items():
        np.testing.assert_allclose(on_host.metrics[name], values, rtol=1e-3, atol=1e-5, err_msg=name)
    assert (on_host.names, on_host.env_steps) == (in_jax.names, in_jax.env_steps)


def test_a_learned_drift_teaches_on_the_host():
    objective = MirrorLearning(LPODrift(width=4))
    inner = environments.with_objective(objective, ON_HOST)
    params = objective.init(jax.random.key(1))
    learned = evaluation.evaluate(inner, params, tasks_on(ON_HOST), num_points=1)
    opposite = evaluation.evaluate(inner, params | {"out": -params["out"]}, tasks_on(ON_HOST), num_points=1)
    name = "torso/0/kernel"
    assert np.isfinite(learned.agent_params[name]).all()
    assert not np.array_equal(learned.agent_params[name], opposite.agent_params[name])


def test_an_agent_that_diverged_gets_the_return_of_the_random_policy():
    torn = replace(ON_HOST, learner=Learner(Adam(1e38), Adam(1e38)))
    found = evaluation.evaluate(torn, (), tasks_on(torn), num_points=1)
    np.testing.assert_array_equal(found.returns[-1], 0.2 * np.ones((1, 1), np.float32))


def test_ends_are_told_apart_and_the_last_observation_is_kept():
    right, left = 1, 0
    with Workers(HostCorridor(), 2, training=True, seed=0) as workers:
        np.testing.assert_array_equal(workers.obs, np.zeros((2, 2)))
        first = workers.step(np.array([right, right]))
        assert not (first.terminated | first.truncated).any()
        np.testing.assert_array_equal(workers.obs, first.next_obs)
        second = workers.step(np.array([right, left]))
        assert (second.terminated.tolist(), second.truncated.tolist()) == ([True, False], [False, False])
        np.testing.assert_allclose(second.reward, [1.0, -0.1])
        np.testing.assert_array_equal(second.next_obs, [[END, 2], [0, 2]])  # what the action led to
        np.testing.assert_array_equal(workers.obs, [[0, 0], [0, 2]])  # a new episode, and the old one
        for action in (right, left, right):  # the second worker comes to the end of its time
            last = workers.step(np.array([action, action]))
        assert (last.terminated.tolist(), last.truncated.tolist()) == ([False, False], [False, True])
        np.testing.assert_array_equal(last.next_obs[1], [1, LAST])
        np.testing.assert_array_equal(workers.obs, [[1, 3], [0, 0]])


def test_an_episode_that_ends_for_both_reasons_terminated():
    with Workers(HostCorridor(), 1, training=True, seed=0) as workers:
        for action in (1, 0, 1, 0):
            workers.step(np.array([action]))
        workers.step(np.array([1]))  # cut
        for action in (0, 1, 0):
            workers.step(np.array([action]))
        ended = workers.step(np.array([0]))
    assert (ended.terminated.tolist(), ended.truncated.tolist()) == ([True], [False])


def test_another_way_to_reset_is_refused():
    with pytest.raises(ValueError, match="SAME_STEP"):
        Workers(HostCorridor("NextStep"), 2, training=True, seed=0)


def test_nothing_is_meta_trained_on_the_host():
    with pytest.raises(ValueError, match="stepped on the host"):
        ON_HOST.begin(jax.random.key(0), Task((), jnp.int32(3)))


@dataclass(frozen=True)
class Recorder:
    """Writes down what a vector environment is given; observations count from 3."""

    given: list
    spec = EnvSpec(Discrete(4), Box((2,), -1.0, 1.0))

    def check(self):
        pass

    def make(self, num_workers, *, training):
        import gymnasium
        from gymnasium.vector import AutoresetMode

        given = self.given

        class Vector:
            metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
            single_observation_space = gymnasium.spaces.Discrete(4, start=3)
            single_action_space = gymnasium.spaces.Box(np.float32([0.0, -np.inf]), np.float32([10.0, np.inf]))

            def reset(self, *, seed):
                given.append(seed)
                return np.array([3, 6]), {}

            def step(self, action):
                given.append(action)
                return np.array([4, 5]), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {}

            def close(self):
                given.append("closed")

        return Vector()

    def observe(self, obs):
        return obs


def test_actions_are_stretched_to_the_bounds_and_indices_begin_at_0():
    given = []
    with Workers(Recorder(given), 2, training=True, seed=7) as workers:
        assert workers.obs.tolist() == [0, 3]
        workers.step(np.array([[-1.0, 0.5], [0.0, -3.0]], np.float32))
        assert workers.obs.tolist() == [1, 2]
    seed, action, end = given
    assert (seed, end) == (7, "closed")
    np.testing.assert_allclose(action, [[0.0, 0.5], [5.0, -1.0]])


def test_gymnasium_is_asked_by_name():
    source = Gymnasium("Pendulum-v1", (("g", 5.0),))
    assert source.spec == EnvSpec(Box((3,)), Box((1,), -1.0, 1.0))
    vector = source.make(1, training=True)
    assert vector.envs[0].unwrapped.g == 5.0
    with Workers(source, 2, training=True, seed=3) as one, Workers(source, 2, training=True, seed=3) as other:
        np.testing.assert_array_equal(one.obs, other.obs)  # by the seed
        assert one.obs.dtype == np.float32
        assert not np.array_equal(one.obs[0], one.obs[1])
    with pytest.raises(ValueError, match="NoSuch"):
        Gymnasium("NoSuch-v0").make(1, training=True)


def test_strided_convolutions_are_what_they_are_called():
    torso, spec = StridedCNN((3,), (3,), (2,), (5,)), EnvSpec(Box((7, 8, 2)), Discrete(4))
    params = torso.init(jax.random.key(0), spec, {"logits": 4})
    image = np.random.default_rng(0).integers(0, 256, (1, 7, 8, 2), np.uint8)
    kernel, bias = (np.asarray(params["torso"]["convolutions"][0][name]) for name in ("kernel", "bias"))
    hidden = np.zeros((3, 3, 3))
    for i in range(3):
        for j in range(3):
            patch = image[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] / 255.0
            hidden[i, j] = np.maximum(np.tensordot(patch, kernel, 3) + bias, 0.0)
    layer, head = params["torso"]["layers"][0], params["logits"]
    dense = np.maximum(hidden.reshape(-1) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0.0)
    expected = dense @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(torso.apply(params, jnp.asarray(image))["logits"][0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StridedCNN((4,), (3, 3), (1,)), "as many sizes and strides"),
        (lambda: StridedCNN((4,), (3,), (0,)), "positive"),
        (lambda: StridedCNN().init(jax.random.key(0), EnvSpec(Box((3,)), Discrete(2)), {"logits": 2}), "channels"),
        (lambda: StridedCNN().init(jax.random.key(0), EnvSpec(Box((9, 9, 1)), Discrete(2)), {"logits": 2}), "small"),
        (lambda: Atari("pongg"), "Did you mean 'pong'"),
        (lambda: Atari("pong", max_frames=3), "at least 4"),
        (lambda: Atari("pong", sticky=1.0), "sticky"),
    ],
)
def test_wrong_settings_fail_with_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["atari-pong", "atari"])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda library: None if library == "ale_py" else find(library))
    with pytest.raises(config.ConfigError, match=r'ale_py.*pip install "metadisco\[atari\]"'):
        suites.build(name)


def test_a_module_that_registers_environments_and_is_missing_is_named():
    with pytest.raises(config.ConfigError, match="pip install no_such_module"):
        Gymnasium("no_such_module:Env-v0").make(1, training=True)


@pytest.mark.parametrize("game", GAMES)
def test_every_game_has_the_actions_that_ale_gives_it(game):
    vector = pytest.importorskip("ale_py.vector_env").AtariVectorEnv(game, 1)
    assert int(vector.single_action_space.n) == Atari(game).spec.num_actions


def test_agents_learn_from_lives_and_signs_and_are_evaluated_on_games_and_scores():
    pytest.importorskip("ale_py")
    rng = np.random.default_rng(0)
    ends, rewards = {}, {}
    for training in (True, False):
        with Workers(Atari("qbert", max_frames=1200), 2, training=training, seed=1) as workers:
            assert (workers.obs.shape, workers.obs.dtype) == ((2, 84, 84, 4), np.uint8)
            steps = []
            for _ in range(310):
                steps.append(workers.step(rng.integers(0, 6, 2)))
                ended = steps[-1].terminated | steps[-1].truncated
                is_new = (steps[-1].next_obs != workers.obs).any(axis=(1, 2, 3))
                assert not (is_new & ~ended).any()
        ends[training] = sum(int(step.terminated.sum()) for step in steps)
        rewards[training] = set(np.concatenate([step.reward for step in steps]).tolist())
        assert any(step.truncated.any() for step in steps) or ends[training]
    assert ends[True] > ends[False]
    assert rewards[True] == {0.0, 1.0}
    assert max(rewards[False]) >= 25.0


def test_pixels_are_those_of_gymnasium_preprocessing():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2", reason="gymnasium's preprocessing needs opencv-python-headless")
    import ale_py
    import gymnasium
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    gymnasium.register_envs(ale_py)
    raw = gymnasium.make("ALE/Freeway-v5", frameskip=1, repeat_action_probability=0.0)
    theirs = FrameStackObservation(AtariPreprocessing(raw, noop_max=0), 4)
    theirs.reset(seed=3)
    source = Atari("freeway")  # which begins without the fire button
    vector = source.make(1, training=False, noop_max=0)
    vector.reset(seed=3)
    rng = np.random.default_rng(0)
    for number in range(100):
        action = int(rng.integers(3))
        wanted, reward, *_ = theirs.step(action)
        obs, rewards, *_ = vector.step(np.array([action]))
        assert reward == rewards[0]
        if number >= 3:  # before, frames from before the start are gymnasium's first one, and black here
            np.testing.assert_array_equal(source.observe(obs)[0], np.moveaxis(wanted, 0, -1))


@pytest.mark.slow
@pytest.mark.parametrize("game", ["pong", "breakout"])
def test_agents_learn_on_atari(game):
    pytest.importorskip("ale_py")
    (found,) = suites.build(f"atari-{game}@2")
    tiny = {"torso": StridedCNN((4,), (8,), (8,), (16,)), "num_workers": 2, "num_steps": 8}
    home = replace(found.inner, **tiny, num_test_workers=2, max_test_steps=32)
    found = replace(found, inner=home)
    agents = [AgentUnderTest("ppo", home, is_hand_written=True), AgentUnderTest("discovered", home)]
    outcome = evaluation.compare(agents, found, num_points=1)
    assert list(outcome) == ["random", "ppo", "discovered", "human"]
    assert outcome["human"].returns[0, 0, 0] == np.float32(GAMES[game].human_score)
    assert outcome["ppo"].metrics["entropy"][0, 0, 0] > 1.0
    np.testing.assert_array_equal(outcome["ppo"].returns, outcome["discovered"].returns)  # one rule


@pytest.mark.filterwarnings("ignore")  # its spaces are not what gymnasium expects, and it says so
def test_agents_learn_on_meta_world():
    pytest.importorskip("metaworld", reason="Meta-World has an environment of its own, see docs/metaworld.md")
    source = Gymnasium("metaworld:Meta-World/MT1", (("env_name", "reach-v3"),))
    inner = InnerLoop(
        Hosted(source), MLP((8,)), PPO(), LEARNER, num_workers=2, num_steps=8, num_test_workers=2, max_test_steps=600
    )
    found = evaluation.evaluate(inner, (), replace(tasks_on(inner), lifetime=2), num_points=1)
    assert (found.returns > 0.0).all()  # rewards of Meta-World are positive
    assert found.metrics["entropy"].shape == (1, 1, 1)


def test_the_group_has_every_game():
    assert suites.GROUPS["atari"] == tuple(f"atari-{game}" for game in GAMES) == environments.HOSTED
