"""Environments as they are usually given: with agents, a budget, and the two ends of a scale.

One readable place for what a drift is plugged into: network, rollout, optimizer and PPO's own settings of each
environment. Suites test on them and presets train on them. Settings are the usual ones of public PPO, scaled to budgets
that a CPU finishes, and were chosen with PPO alone on these very environments: drifts compete in settings that suit
PPO. `experiments/scales.py` measures the ends of the scale.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from metadisco.agents.networks import CNN, MLP, Separate, Tanh
from metadisco.envs.base import Environment
from metadisco.envs.brax_adapter import Brax
from metadisco.envs.brax_levels import BraxLevels
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.envs.gymnax_levels import GymnaxLevels
from metadisco.learner import Adam, Learner
from metadisco.life import InnerLoop
from metadisco.normalization import Normalizer
from metadisco.objectives.base import Objective
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.tasks import LevelDistribution


@dataclass(frozen=True)
class Setting:
    """An environment with all that an agent needs to live in it.

    Attributes:
        inner: how to live, with PPO as the objective.
        levels: the environment's own level, always the same.
        lifetime: the usual budget, agent updates.
        random_return: of a policy that has not learned, 0 on the scale.
        reference_return: of PPO at the usual budget, 1 on the scale.
    """

    inner: InnerLoop
    levels: LevelDistribution
    lifetime: int
    random_return: float
    reference_return: float


def plug(objective: Objective, inner: InnerLoop) -> InnerLoop:
    """Lives as in `inner` under another objective.

    Where both are mirror learning only the drift is exchanged: discount, advantages and entropy bonus belong to the
    environment. Raises ValueError where the objective does not fit.
    """
    if isinstance(objective, MirrorLearning) and isinstance(inner.objective, MirrorLearning):
        objective = replace(inner.objective, drift=objective.drift)
    return replace(inner, objective=objective)


def _learner(rate: float, *, num_epochs: int = 4, num_minibatches: int = 4) -> Learner:
    adam = Adam(rate, anneal=True)
    return Learner(adam, adam, num_epochs=num_epochs, num_minibatches=num_minibatches)


def _pair(width: int = 64) -> Separate:
    return Separate(MLP((width, width), Tanh()), MLP((width, width), Tanh()))


def _control(env: Environment) -> InnerLoop:
    """Low-dimensional observations, a choice of actions: two networks of 64 tanh units twice."""
    return InnerLoop(
        env=env,
        torso=_pair(),
        objective=PPO(value_weight=0.5, entropy_weight=0.01),
        learner=_learner(1e-3),
        num_workers=16,
        num_steps=64,
        num_test_workers=32,
        max_test_steps=1024,
        normalizer=Normalizer(),
    )


def _minatar(name: str) -> Setting:
    """Images of 10 x 10 cells: one small convolutional network."""
    env = Gymnax(name)
    inner = InnerLoop(
        env=env,
        torso=CNN((16,), (64,)),
        objective=PPO(value_weight=0.5, entropy_weight=0.01),
        learner=_learner(3e-3, num_minibatches=8),
        num_workers=64,
        num_steps=64,
        num_test_workers=32,
        max_test_steps=1024,
    )
    return Setting(inner, GymnaxLevels(env), 250, *_SCALES[name])


def _gymnax(name: str, lifetime: int) -> Setting:
    env = Gymnax(name)
    return Setting(_control(env), GymnaxLevels(env), lifetime, *_SCALES[name])


def _pendulum() -> Setting:
    env = Gymnax("Pendulum-v1")
    objective = PPO(gamma=0.95, value_weight=0.5, entropy_weight=0.0)
    inner = replace(_control(env), objective=objective, normalizer=Normalizer(gamma=0.95))
    return Setting(inner, GymnaxLevels(env), 256, *_SCALES["Pendulum-v1"])


def _brax(name: str, lifetime: int) -> Setting:
    """Continuous control: normalised observations and rewards, no entropy bonus."""
    env = Brax(name)
    gamma = 0.97  # with 0.99 PPO takes longer to balance the pole
    inner = InnerLoop(
        env=env,
        torso=_pair(),
        objective=PPO(gamma=gamma, value_weight=0.5, entropy_weight=0.0),
        learner=_learner(1e-3, num_minibatches=8),
        num_workers=64,
        num_steps=32,
        num_test_workers=16,
        max_test_steps=1024,
        normalizer=Normalizer(gamma=gamma),
    )
    return Setting(inner, BraxLevels(env, ()), lifetime, *_SCALES[f"brax-{name}"])


# (random policy, PPO at the usual budget), rounded.
_SCALES: dict[str, tuple[float, float]] = {
    "CartPole-v1": (22.0, 500.0),
    "Acrobot-v1": (-500.0, -85.0),
    "Catch-bsuite": (-0.6, 1.0),
    "Pendulum-v1": (-1250.0, -180.0),
    "Breakout-MinAtar": (0.5, 31.0),
    "SpaceInvaders-MinAtar": (4.3, 140.0),
    "brax-inverted_pendulum": (23.0, 630.0),
    "brax-reacher": (-1200.0, -150.0),
}

_MAKERS: dict[str, Callable[[], Setting]] = {
    "CartPole-v1": functools.partial(_gymnax, "CartPole-v1", 128),
    "Acrobot-v1": functools.partial(_gymnax, "Acrobot-v1", 128),
    "Catch-bsuite": functools.partial(_gymnax, "Catch-bsuite", 64),
    "Pendulum-v1": _pendulum,
    "Breakout-MinAtar": functools.partial(_minatar, "Breakout-MinAtar"),
    "SpaceInvaders-MinAtar": functools.partial(_minatar, "SpaceInvaders-MinAtar"),
    "brax-inverted_pendulum": functools.partial(_brax, "inverted_pendulum", 512),
    "brax-reacher": functools.partial(_brax, "reacher", 256),
}
NAMES: tuple[str, ...] = tuple(_MAKERS)


@functools.cache
def setting(name: str) -> Setting:
    """The setting of an environment. Raises KeyError for a name that is not in `NAMES`."""
    return _MAKERS[name]()
