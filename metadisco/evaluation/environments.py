"""Reference agent, budget and score anchors of each environment.

One place for the network, the rollout, the optimizer and PPO's own hyper-parameters on each environment. Suites test on
them and presets train on them. The hyper-parameters are the usual ones of public PPO, scaled to budgets that a CPU
finishes, and were chosen with PPO on these environments, which favors PPO over other drifts.
`experiments/scales.py` measures the score anchors.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from metadisco.agents.action_model import ActionModel
from metadisco.agents.convolutions import StridedCNN
from metadisco.agents.networks import CNN, MLP, Separate, Tanh
from metadisco.agents.optimizers import Adam, DiscoAdam
from metadisco.core.config import nearest
from metadisco.curricula.tasks import LevelDistribution, OneLevel
from metadisco.envs.atari import GAMES, Atari
from metadisco.envs.base import Environment
from metadisco.envs.brax_adapter import Brax
from metadisco.envs.brax_levels import BraxLevels
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.envs.gymnax_levels import GymnaxLevels
from metadisco.envs.host import Hosted
from metadisco.evaluation.catalog import UNSCALED, UPPER_ANCHORS, upper_anchor
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.normalization import Normalizer
from metadisco.objectives.base import Objective, is_surrogate
from metadisco.objectives.disco103 import Disco103
from metadisco.objectives.mirror_learning import PPO, MirrorLearning
from metadisco.objectives.scheduled_mirror_learning import ScheduledMirrorLearning
from metadisco.objectives.with_optimizer import WithOptimizer


@dataclass(frozen=True)
class EnvironmentConfig:
    """An environment with its reference agent, its usual budget and the two anchors of its scores.

    Attributes:
        inner: the reference agent, which learns by PPO.
        levels: the environment's own level, always the same.
        lifetime: the usual budget, agent updates.
        random_return: of a policy that has not learned; it has the score 0.
        upper_return: what has the score 1.
        upper_anchor: what `upper_return` is, one of `UPPER_ANCHORS`: `optimal`, the best expected return that a policy
            can have; `human`, as published; or `reference`, of PPO at the usual budget. `UNSCALED` where nothing was
            measured: with returns of 0 and 1 scores are returns.
    """

    inner: InnerLoop
    levels: LevelDistribution
    lifetime: int
    random_return: float
    upper_return: float
    upper_anchor: str = "reference"

    def __post_init__(self) -> None:
        if self.upper_anchor not in (*UPPER_ANCHORS, UNSCALED):
            hint = nearest(self.upper_anchor, UPPER_ANCHORS)
            raise ValueError(f"EnvironmentConfig.upper_anchor {self.upper_anchor!r} is unknown.{hint}")


def with_objective(objective: Objective, inner: InnerLoop) -> InnerLoop:
    """The inner loop with another objective.

    Where both are mirror learning only the drift is exchanged: discount, advantages and entropy bonus belong to the
    environment, and a schedule of them begins there. Disco103 brings the network and optimizer that it was made for. A
    learned optimizer moves the environment's own network, beside the environment's own optimizer.
    An objective without an importance ratio (`metadisco.objectives.base.Surrogate`), such as LPG, takes one step on
    each rollout (`ONE_STEP_LEARNER`) and sees rewards as they are: with PPO's learner its later steps would be on
    actions of a policy that is no longer the agent's. Raises ValueError where the objective does not fit.
    """
    if isinstance(objective, WithOptimizer):
        inner = with_objective(objective.objective, inner)
        return replace(inner, objective=replace(objective, objective=inner.objective))
    if isinstance(objective, Disco103):
        return replace(inner, objective=objective, torso=DISCO_TORSO, learner=DISCO_LEARNER)
    if isinstance(objective, MirrorLearning) and isinstance(inner.objective, MirrorLearning):
        objective = replace(inner.objective, drift=objective.drift)
    if isinstance(objective, ScheduledMirrorLearning) and isinstance(inner.objective, MirrorLearning):
        objective = replace(objective, base=replace(inner.objective, drift=objective.base.drift))
    if is_surrogate(objective):
        return replace(inner, objective=objective)
    normalizer = inner.normalizer and replace(inner.normalizer, rewards=False)
    return replace(inner, objective=objective, learner=ONE_STEP_LEARNER, normalizer=normalizer)


# One step on each rollout, as published. The rate is that of the public example on Catch, whose network is four times
# as wide.
DISCO_TORSO = ActionModel((128, 128), model_width=64, head_width=64)
DISCO_LEARNER = Learner(DiscoAdam(1e-2), DiscoAdam(1e-2))


def disco_on_grids(objective: Disco103) -> InnerLoop:
    """Agents of Disco103 in grid worlds, which they see as planes."""
    env = GridWorld(planes=True)
    return InnerLoop(env, DISCO_TORSO, objective, DISCO_LEARNER, num_workers=32, num_steps=20)


def as_seen_by(inner: InnerLoop, env: Environment) -> Environment:
    """The environment of a test set; a grid world as planes where the agents see planes, which changes nothing else."""
    if isinstance(env, GridWorld) and isinstance(inner.env, GridWorld):
        return replace(env, planes=inner.env.planes)
    return env


# For objectives without an importance ratio. The best of three rates with A2C on Catch and Acrobot; CartPole would have
# a third of it.
ONE_STEP_LEARNER = Learner(Adam(1e-2, anneal=True), Adam(1e-2, anneal=True))


def ppo_learner(rate: float, *, num_epochs: int = 4, num_minibatches: int = 4) -> Learner:
    """PPO's learner for networks: Adam at a rate that falls to 0 over the life."""
    adam = Adam(rate, anneal=True)
    return Learner(adam, adam, num_epochs=num_epochs, num_minibatches=num_minibatches)


def two_networks(width: int = 64) -> Separate:
    """For vectors: two hidden layers of tanh units for the policy, and two for the value."""
    return Separate(MLP((width, width), Tanh()), MLP((width, width), Tanh()))


def _control(env: Environment) -> InnerLoop:
    """Low-dimensional observations, a choice of actions: two networks of 64 tanh units twice."""
    return InnerLoop(
        env=env,
        torso=two_networks(),
        objective=PPO(value_weight=0.5, entropy_weight=0.01),
        learner=ppo_learner(1e-3),
        num_workers=16,
        num_steps=64,
        num_test_workers=32,
        max_test_steps=1024,
        normalizer=Normalizer(),
    )


def _minatar(name: str, *, max_test_steps: int = 1024) -> EnvironmentConfig:
    """Images of 10 x 10 cells: one small convolutional network."""
    env = Gymnax(name)
    inner = InnerLoop(
        env=env,
        torso=CNN((16,), (64,)),
        objective=PPO(value_weight=0.5, entropy_weight=0.01),
        learner=ppo_learner(3e-3, num_minibatches=8),
        num_workers=64,
        num_steps=64,
        num_test_workers=32,
        max_test_steps=max_test_steps,
    )
    return EnvironmentConfig(inner, GymnaxLevels(env), 250, *_SCALES[name])


def _bsuite(
    name: str, lifetime: int, *, gamma: float = 0.99, options: tuple[tuple[str, int], ...] = ()
) -> EnvironmentConfig:
    """bsuite: environments with a known optimum; both anchors are exact."""
    env = Gymnax(name, options)
    inner = replace(_control(env), objective=PPO(gamma=gamma, value_weight=0.5, entropy_weight=0.01))
    inner = replace(inner, normalizer=Normalizer(gamma=gamma), num_test_workers=64)
    return EnvironmentConfig(inner, GymnaxLevels(env), lifetime, *_SCALES[name], upper_anchor(name))


def _gymnax(name: str, lifetime: int) -> EnvironmentConfig:
    env = Gymnax(name)
    return EnvironmentConfig(_control(env), GymnaxLevels(env), lifetime, *_SCALES[name], upper_anchor(name))


def _pendulum() -> EnvironmentConfig:
    env = Gymnax("Pendulum-v1")
    objective = PPO(gamma=0.95, value_weight=0.5, entropy_weight=0.0)
    inner = replace(_control(env), objective=objective, normalizer=Normalizer(gamma=0.95))
    return EnvironmentConfig(inner, GymnaxLevels(env), 256, *_SCALES["Pendulum-v1"])


def _brax(name: str, lifetime: int, *, gamma: float = 0.99) -> EnvironmentConfig:
    """Continuous control: normalised observations and rewards, no entropy bonus."""
    env = Brax(name)
    inner = InnerLoop(
        env=env,
        torso=two_networks(),
        objective=PPO(gamma=gamma, value_weight=0.5, entropy_weight=0.0),
        learner=ppo_learner(1e-3, num_minibatches=8),
        num_workers=64,
        num_steps=32,
        num_test_workers=16,
        max_test_steps=1024,
        normalizer=Normalizer(gamma=gamma),
    )
    return EnvironmentConfig(inner, BraxLevels(env, ()), lifetime, *_SCALES[f"brax-{name}"])


def _atari(game: str) -> EnvironmentConfig:
    """Images of 84 x 84 pixels, the network of DQN, PPO as in arXiv:1707.06347, table 5, and its 10 million steps."""
    inner = InnerLoop(
        env=Hosted(Atari(game)),
        torso=StridedCNN(),
        objective=PPO(value_weight=1.0, entropy_weight=0.01),
        learner=ppo_learner(2.5e-4, num_epochs=3),
        num_workers=8,
        num_steps=128,
        num_test_workers=10,
        max_test_steps=27_000,
    )
    return EnvironmentConfig(
        inner,
        OneLevel(),
        9766,
        GAMES[game].random_score,
        GAMES[game].human_score,
        upper_anchor(f"atari-{game}"),
    )


# (random policy, PPO at the usual budget), rounded.
_SCALES: dict[str, tuple[float, float]] = {
    "CartPole-v1": (21.0, 500.0),
    "Acrobot-v1": (-498.0, -90.0),
    "Catch-bsuite": (-0.6, 1.0),
    "Pendulum-v1": (-1204.0, -167.0),
    "DeepSea-bsuite": (-0.0011, 0.99),  # both exact: 2^-8 - 0.01 / 2, and 1 - 0.01
    "DiscountingChain-bsuite": (1.02, 1.1),  # both exact
    "UmbrellaChain-bsuite": (0.0, 1.0),  # both exact
    "Breakout-MinAtar": (0.4, 16.0),
    "Asterix-MinAtar": (0.7, 11.5),
    "Freeway-MinAtar": (0.3, 60.0),
    "SpaceInvaders-MinAtar": (4.0, 132.0),
    "brax-inverted_pendulum": (20.0, 889.0),
    "brax-reacher": (-1200.0, -124.0),
    "brax-inverted_double_pendulum": (230.0, 2300.0),
    "brax-hopper": (85.0, 440.0),
    "brax-halfcheetah": (-160.0, 970.0),
}

_MAKERS: dict[str, Callable[[], EnvironmentConfig]] = {
    "CartPole-v1": functools.partial(_gymnax, "CartPole-v1", 128),
    "Acrobot-v1": functools.partial(_gymnax, "Acrobot-v1", 128),
    "Catch-bsuite": functools.partial(_gymnax, "Catch-bsuite", 64),
    "Pendulum-v1": _pendulum,
    "DeepSea-bsuite": functools.partial(_bsuite, "DeepSea-bsuite", 64),
    "DiscountingChain-bsuite": functools.partial(
        _bsuite, "DiscountingChain-bsuite", 64, gamma=0.999, options=(("mapping_seed", 3),)
    ),
    "UmbrellaChain-bsuite": functools.partial(_bsuite, "UmbrellaChain-bsuite", 128),
    "Breakout-MinAtar": functools.partial(_minatar, "Breakout-MinAtar"),
    "Asterix-MinAtar": functools.partial(_minatar, "Asterix-MinAtar"),
    "Freeway-MinAtar": functools.partial(_minatar, "Freeway-MinAtar", max_test_steps=2560),
    "SpaceInvaders-MinAtar": functools.partial(_minatar, "SpaceInvaders-MinAtar"),
    "brax-inverted_pendulum": functools.partial(_brax, "inverted_pendulum", 512, gamma=0.97),
    "brax-reacher": functools.partial(_brax, "reacher", 256, gamma=0.97),
    "brax-inverted_double_pendulum": functools.partial(_brax, "inverted_double_pendulum", 128),
    "brax-hopper": functools.partial(_brax, "hopper", 128),
    "brax-halfcheetah": functools.partial(_brax, "halfcheetah", 128),
}
_MAKERS |= {f"atari-{game}": functools.partial(_atari, game) for game in GAMES}
NAMES: tuple[str, ...] = tuple(_MAKERS)
HOSTED: tuple[str, ...] = tuple(name for name in NAMES if name.startswith("atari-"))
"""Those that are stepped on the host."""


@functools.cache
def environment(name: str) -> EnvironmentConfig:
    """The environment of this name. Raises KeyError for a name that is not in `NAMES`."""
    return _MAKERS[name]()


def reference_of(env: Environment) -> EnvironmentConfig | None:
    """The environment with its reference agent, None where it has none; those that the host steps are left out."""
    known = (environment(name) for name in NAMES if name not in HOSTED)
    return next((each for each in known if each.inner.env == env), None)
