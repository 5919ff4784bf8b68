"""Any environment by name, of a library or of the user's own, with an agent that suits its spaces.

    gymnax:FourRooms-misc        an environment of gymnax
    brax:ant                     of brax, with its default backend
    gymnasium:LunarLander-v3     whatever gymnasium can make, stepped on the host
    my_package.my_module:make    of your own: an environment, a class or a function without arguments that makes one, or
                                 one that makes (environment, distribution of levels)

The environments of `metadisco.evaluation.environments` have reference agents that were chosen for them, and a scale of
scores; under these names they are the same. Every other gets the usual agent for its spaces, and until `metadisco tune`
has measured what a random policy and PPO get there, its scores are returns.
"""

import contextlib
import difflib
import functools
import importlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import jax

from metadisco.agents.convolutions import StridedCNN
from metadisco.agents.networks import CNN, Table
from metadisco.core import config
from metadisco.curricula.tasks import DefaultLevel, LevelDistribution, OneLevel
from metadisco.envs import brax_adapter, gymnax_adapter
from metadisco.envs.base import Discrete, Environment
from metadisco.envs.brax_adapter import Brax
from metadisco.envs.brax_levels import BraxLevels
from metadisco.envs.gymnasium_adapter import Gymnasium
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.envs.gymnax_levels import GymnaxLevels
from metadisco.envs.host import Hosted
from metadisco.evaluation import environments, scales
from metadisco.evaluation.catalog import UNSCALED
from metadisco.evaluation.environments import EnvironmentConfig
from metadisco.lives.learner import Learner
from metadisco.lives.life import InnerLoop
from metadisco.lives.normalization import Normalizer
from metadisco.lives.tuned import TABLE_PPO, TABLE_PPO_LEARNER
from metadisco.objectives.mirror_learning import PPO
from metadisco.testing import check_environment

LIFETIME = 128  # agent updates, where nothing else is said
LARGEST_TABLE = 100_000  # observations
SMALL_IMAGE = 32  # pixels or cells of a side, up to which a small convolution does
LIBRARIES: tuple[str, ...] = ("gymnax", "brax", "gymnasium")


def is_named_so(name: str) -> bool:
    """Whether a name is one of this module."""
    return ":" in name


def environment(name: str) -> EnvironmentConfig:
    """The environment of a name `LIBRARY:NAME` or `module:attribute`, with its agent, budget and scale.

    Raises:
        config.ConfigError: where there is none, a library is missing, or an environment of the user's own breaks the
            contract of environments; says what to do.

    Example:
        >>> environment("gymnax:CartPole-v1") == environments.environment("CartPole-v1")
        True
    """
    env, levels = _made(name)
    known = environments.reference_of(env)
    if known is not None and known.levels == levels:
        return known
    inner, scale = default_agent(env), scales.read().get(name)
    if scale is None:
        return EnvironmentConfig(inner, levels, LIFETIME, 0.0, 1.0, UNSCALED)
    inner = replace(inner, learner=at_rate(inner.learner, scale.rate_factor))
    return EnvironmentConfig(inner, levels, scale.lifetime, scale.random_return, scale.upper_return)


def default_agent(env: Environment) -> InnerLoop:
    """The usual agent for the spaces of an environment: PPO in its usual settings, or those of tables.

    Raises:
        ValueError: for observations that no agent here can have.
    """
    observation, is_discrete = env.spec.observation, isinstance(env.spec.action, Discrete)
    if isinstance(observation, Discrete):
        return _tabular(env, observation.num, is_discrete=is_discrete)
    ppo = PPO(value_weight=0.5, entropy_weight=0.01 if is_discrete else 0.0)
    inner = InnerLoop(
        env=env,
        torso=environments.two_networks(),
        objective=ppo,
        learner=environments.ppo_learner(1e-3, num_minibatches=4 if is_discrete else 8),
        num_workers=16 if is_discrete else 64,
        num_steps=64 if is_discrete else 32,
        num_test_workers=16,
        max_test_steps=1024,
        normalizer=Normalizer(),
    )
    if len(observation.shape) == 3:  # images need no normalization; their network is shared by policy and value
        is_small = min(observation.shape[:2]) <= SMALL_IMAGE
        learner = environments.ppo_learner(3e-3 if is_small else 2.5e-4, num_minibatches=8)
        torso = CNN((16,), (64,)) if is_small else StridedCNN()
        inner = replace(inner, torso=torso, learner=learner, normalizer=None, num_workers=64 if is_small else 8)
    if isinstance(env, Hosted):  # stepped one after the other: fewer workers, longer rollouts
        inner = replace(inner, num_workers=8, num_steps=128, num_test_workers=8)
    return inner


def at_rate(learner: Learner, factor: float) -> Learner:
    """The learner with its rates of learning times a factor."""
    rates: Any = {"policy": learner.policy, "prediction": learner.prediction}  # of optimizers that have a rate
    paths = {f"{name}.learning_rate": optimizer.learning_rate * factor for name, optimizer in rates.items()}
    return cast(Learner, config.replace_fields(learner, paths))


def near(name: str) -> list[str]:
    """Names of the libraries that are installed, as this module takes them, that are close to a name."""
    plain = name.rpartition(":")[2].lower()
    by_plain = {each.partition(":")[2].lower(): each for each in _library_names()}
    return [by_plain[close] for close in difflib.get_close_matches(plain, by_plain, n=3, cutoff=0.75)]


@functools.cache
def _made(name: str) -> tuple[Environment, LevelDistribution]:
    """An environment and its levels, made once: those of the user's own are checked, and hosted ones begun, for it."""
    library, _, rest = name.partition(":")
    return _OF_LIBRARIES[library](rest) if library in _OF_LIBRARIES else _own(name)


def _gymnax(name: str) -> tuple[Environment, LevelDistribution]:
    env = _or_config_error(f"gymnax:{name}", lambda: Gymnax(name))
    return env, GymnaxLevels(env)


def _brax(name: str) -> tuple[Environment, LevelDistribution]:
    env = _or_config_error(f"brax:{name}", lambda: Brax(name))
    return env, BraxLevels(env)


def _gymnasium(name: str) -> tuple[Environment, LevelDistribution]:
    source = Gymnasium(name)
    _or_config_error(f"gymnasium:{name}", lambda: source.spec)
    return Hosted(source), OneLevel()


_OF_LIBRARIES: dict[str, Callable[[str], tuple[Environment, LevelDistribution]]] = {
    "gymnax": _gymnax,
    "brax": _brax,
    "gymnasium": _gymnasium,
}


def _or_config_error(name: str, make: Callable[[], Any]) -> Any:
    """What `make` makes; errors that say that there is no such environment become the user's, with near names."""
    try:
        return make()
    except ImportError as error:
        raise config.ConfigError(f"{name} needs a library that is not installed: {error}") from error
    except ValueError as error:
        found = [each for each in near(name) if each != name]
        hint = f" Near it: {', '.join(found)}." if found else ""
        raise config.ConfigError(f"no environment {name!r}: {error}{hint}") from error


def _own(name: str) -> tuple[Environment, LevelDistribution]:
    """An environment of the user's own, checked against the contract."""
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise config.ConfigError(
            f"{name!r} is no environment: write LIBRARY:NAME with {', '.join(LIBRARIES)}, or my_module:make_env"
        )
    try:
        made = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise config.ConfigError(
            f"{name!r}: {error}; {module_name} is neither a library of environments ({', '.join(LIBRARIES)}) nor a "
            "module that can be imported from here"
        ) from error
    except AttributeError as error:
        raise config.ConfigError(f"{name!r}: the module {module_name} has no {attribute}") from error
    if callable(made) and not config.is_component(made):
        made = made()
    env, levels = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not all(hasattr(env, part) for part in ("spec", "noise", "reset", "step")):
        raise config.ConfigError(
            f"{name!r} makes {_short(env)}, which is no environment: it needs spec, noise, reset and step "
            "(metadisco.envs.base.Environment); for one of gymnasium write gymnasium:NAME"
        )
    levels = levels if levels is not None else DefaultLevel(env) if hasattr(env, "default_level") else OneLevel()
    try:
        check_environment(env, levels.sample(jax.random.key(0)))
    except AssertionError as error:
        raise config.ConfigError(f"{name!r} breaks the contract of environments: {error}") from error
    return env, levels


def _short(made: object) -> str:
    text = repr(made)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tabular(env: Environment, num_observations: int, *, is_discrete: bool) -> InnerLoop:
    if num_observations > LARGEST_TABLE or not is_discrete:
        raise ValueError(
            f"{env} has {num_observations} observations that are an index, and actions {env.spec.action}: tables are "
            f"for at most {LARGEST_TABLE:,} and discrete actions; let the environment return arrays"
        )
    return InnerLoop(env, Table(), TABLE_PPO, TABLE_PPO_LEARNER, num_workers=32, num_steps=20, num_test_workers=32)


def _library_names() -> Iterable[str]:
    yield from (f"gymnax:{name}" for name in gymnax_adapter.ENVIRONMENTS)
    yield from (f"brax:{name}" for name in brax_adapter.NAMES)
    with contextlib.suppress(ImportError):
        import gymnasium

        yield from (f"gymnasium:{name}" for name in gymnasium.registry)
