"""One PPO in two libraries: the same environment, networks and settings here and in rejax.

`benchmarks/ppo.py` compares how fast they are, `experiments/ppo_beside_rejax.py` how good. What differs: rejax clips
gradients entry by entry and initialises its weights otherwise, it takes a time-out for the end of the world, and brax's
own wrappers, which it uses, return to a first state that they keep, where this library draws a new one.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metadisco.agents.networks import MLP, Separate, Tanh
from metadisco.agents.optimizers import Adam
from metadisco.core.types import Key, Task
from metadisco.envs.base import Environment
from metadisco.envs.brax_adapter import Brax
from metadisco.envs.gymnax_adapter import Gymnax
from metadisco.lives.learner import Learner
from metadisco.lives.life import InitialCondition, InnerLoop
from metadisco.lives.normalization import Normalizer
from metadisco.objectives.mirror_learning import PPO

WIDTHS = (64, 64)  # of both networks, with tanh
VALUE_WEIGHT, MAX_GRAD_NORM = 0.5, 0.5
MAX_TEST_STEPS = 1024


@dataclass(frozen=True)
class Training:
    """What both libraries are asked to do.

    Attributes:
        env: name in gymnax, or brax-NAME.
        num_workers: B.
        num_steps: T.
        num_updates: of one agent.
        num_epochs: of an update.
        num_minibatches: of an epoch.
        rate: of Adam, constant.
        gamma: discount.
        entropy_weight: of the bonus.
        normalizes: whether observations and rewards are normalised.
    """

    env: str
    num_workers: int
    num_steps: int
    num_updates: int
    num_epochs: int = 4
    num_minibatches: int = 4
    rate: float = 3e-4
    gamma: float = 0.99
    entropy_weight: float = 0.01
    normalizes: bool = False

    @property
    def env_steps(self) -> int:
        """Of one agent."""
        return self.num_workers * self.num_steps * self.num_updates

    @property
    def brax_name(self) -> str | None:
        """Name in brax; None for an environment of gymnax."""
        return self.env.removeprefix("brax-") if self.env.startswith("brax-") else None


def inner_loop(training: Training, *, num_test_workers: int = 16) -> InnerLoop:
    """An agent of this library."""
    env: Environment = Brax(training.brax_name) if training.brax_name else Gymnax(training.env)
    adam = Adam(training.rate)
    return InnerLoop(
        env=env,
        torso=Separate(MLP(WIDTHS, Tanh()), MLP(WIDTHS, Tanh())),
        objective=PPO(gamma=training.gamma, value_weight=VALUE_WEIGHT, entropy_weight=training.entropy_weight),
        learner=Learner(adam, adam, num_epochs=training.num_epochs, num_minibatches=training.num_minibatches),
        num_workers=training.num_workers,
        num_steps=training.num_steps,
        num_test_workers=num_test_workers,
        max_test_steps=MAX_TEST_STEPS,
        normalizer=Normalizer(gamma=training.gamma) if training.normalizes else None,
    )


def initials(training: Training, env: Environment, keys: Key) -> InitialCondition:
    """The beginnings of as many agents as there are keys."""
    levels = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(keys), *leaf.shape)), env.default_level)
    return InitialCondition(keys, Task(levels, jnp.full(len(keys), training.num_updates, jnp.int32)))


def rejax_agent(training: Training):
    """The same agent in rejax, with its environment and that one's parameters."""
    import gymnax
    import rejax

    from experiments.loops.in_rejax import FiveValueSteps

    if training.brax_name:
        env, params = _brax_for_rejax(training.brax_name)
    else:
        env, params = gymnax.make(training.env)
        env = FiveValueSteps(env)
    agent = rejax.PPO.create(
        env=env,
        env_params=params,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": WIDTHS},
        total_timesteps=training.env_steps,
        eval_freq=training.env_steps,
        skip_initial_evaluation=True,
        num_envs=training.num_workers,
        num_steps=training.num_steps,
        num_epochs=training.num_epochs,
        num_minibatches=training.num_minibatches,
        learning_rate=training.rate,
        gamma=training.gamma,
        ent_coef=training.entropy_weight,
        vf_coef=VALUE_WEIGHT,
        max_grad_norm=MAX_GRAD_NORM,
        normalize_observations=training.normalizes,
        normalize_rewards=training.normalizes,
    )
    return agent, env, params


def _brax_for_rejax(name: str):
    """brax with its own wrappers, as rejax 0.1.3 has it, but without gymnax 1.0, whose step returns another tuple."""
    from brax import envs
    from flax import struct
    from gymnax.environments import spaces

    @struct.dataclass
    class Params:
        max_steps_in_episode: int = 1000

    class Env:
        """What rejax asks of an environment."""

        def __init__(self):
            self.env = envs.create(name, backend="spring", episode_length=1000)
            self.default_params = Params()

        def __deepcopy__(self, memo):
            return self

        def reset(self, key, params):
            state = self.env.reset(key)
            return state.obs, state

        def step(self, key, state, action, params):
            state = self.env.step(state, action)
            return state.obs, state, state.reward, state.done.astype(bool), {}

        def action_space(self, params):
            return spaces.Box(low=-1, high=1, shape=(self.env.action_size,))

        def observation_space(self, params):
            return spaces.Box(low=-jnp.inf, high=jnp.inf, shape=(self.env.observation_size,))

    return Env(), Params()
