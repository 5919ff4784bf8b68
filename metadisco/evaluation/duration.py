"""How long a meta-test will take, before it runs: from environment steps and what one costs on a core of a CPU.

The costs are of training and evaluating the reference agents, measured on two cores at the lifetimes of the suites, and
of the compilations of each agent. They are good to about a factor of two; on accelerators there is no estimate.
"""

from collections.abc import Sequence

import jax

from metadisco.core.score_table import counted
from metadisco.envs.base import Box, Environment
from metadisco.envs.brax_adapter import Brax
from metadisco.envs.gridworld.dynamics import GridWorld
from metadisco.envs.host import Hosted
from metadisco.evaluation.agents_under_test import AgentUnderTest, PlannedTest
from metadisco.lives.life import InnerLoop

COMPILE_SECONDS = 10.0  # of an agent on a suite
STEP_MICROSECONDS = {"grid": 0.5, "small": 5.0, "images": 120.0, "brax": 60.0, "host": 1500.0}
"""Of an environment step with its share of learning and evaluation, on one core."""


def seconds(tests: Sequence[PlannedTest], num_seeds: int) -> float | None:
    """Expected duration of planned tests on the devices that there are; None on an accelerator."""
    if jax.default_backend() != "cpu":
        return None
    return sum(_seconds(test, agent, num_seeds) for test in tests for agent in test.agents)


def _seconds(test: PlannedTest, agent: AgentUnderTest, num_seeds: int) -> float:
    wanted, inner = test.suite, agent.inner
    lifetime = wanted.suite.lifetime if wanted.lifetime is None else wanted.lifetime
    return _on_cpu(wanted.suite.env, inner, lifetime, wanted.size * num_seeds)


def cost(env: Environment, inner: InnerLoop, lifetime: int, num_lives: int) -> float | None:
    """Expected seconds of lives on an environment; None on an accelerator."""
    return _on_cpu(env, inner, lifetime, num_lives) if jax.default_backend() == "cpu" else None


def _on_cpu(env: Environment, inner: InnerLoop, lifetime: int, num_lives: int) -> float:
    env_steps = num_lives * lifetime * inner.num_workers * inner.num_steps
    num_cores = 1 if isinstance(env, Hosted) else min(jax.local_device_count(), num_lives)
    return COMPILE_SECONDS + 1e-6 * STEP_MICROSECONDS[_kind(env)] * env_steps / num_cores


def _kind(env: object) -> str:
    """What the cost of a step depends on most."""
    if isinstance(env, GridWorld):
        return "grid"
    if isinstance(env, Hosted):
        return "host"
    if isinstance(env, Brax):
        return "brax"
    observation = env.spec.observation  # type: ignore[attr-defined]  # of every environment
    return "images" if isinstance(observation, Box) and len(observation.shape) == 3 else "small"


def in_words(expected: float | None) -> str:
    """About how long, on devices that have nothing else to do.

    Example:
        >>> in_words(40.0), in_words(200.0), in_words(9000.0)
        ('about a minute', 'about 3 minutes', 'about 2.5 hours')
    """
    if expected is None:
        return "how long that takes is known for CPUs only"
    minutes = max(1, round(expected / 60.0))
    if minutes > 90:
        return f"about {expected / 3600:.1f} hours"
    return "about a minute" if minutes == 1 else f"about {counted(minutes, 'minute')}"
