"""A value critic that lives beside an agent and learns from the same rollouts (arXiv:2310.02782).

It says how much better than expected an action was, which is what an outer loss needs. The objective never sees it:
no gradient passes from the critic to anything else.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import struct

from metadisco import returns
from metadisco.agents import agent
from metadisco.agents.networks import Table, Torso
from metadisco.envs.base import EnvSpec
from metadisco.learner import SGD, Optimizer, OptState
from metadisco.types import AgentParams, Key, Obs, Trajectory


@struct.dataclass
class CriticState:
    """What changes while a critic learns."""

    params: AgentParams
    opt_state: OptState


@dataclass(frozen=True)
class Critic:
    """V(s), regressed on lambda-returns, and generalised advantages (arXiv:1506.02438) by it.

    loss = mean_t[ (V(s_t) - G_t)^2 / 2 ], G_t = V(s_t) + A_t constant.

    Attributes:
        torso: function approximator.
        optimizer: of the loss. The default is the rate that suits the values of A2C on tables.
        gamma: discount in [0, 1].
        gae_lambda: lambda of advantages and returns, in [0, 1].

    Example:
        >>> from metadisco.envs.gridworld import GridWorld
        >>> import jax
        >>> Critic().init(jax.random.key(0), GridWorld().spec).params["value"].shape[-1]
        1
    """

    torso: Torso = Table()
    optimizer: Optimizer = SGD(learning_rate=4.0)
    gamma: float = 0.99
    gae_lambda: float = 0.95

    def __post_init__(self) -> None:
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"Critic.{name} must be in [0, 1], got {getattr(self, name)}")

    def init(self, key: Key, spec: EnvSpec) -> CriticState:
        """A critic that has seen nothing. Raises ValueError where the torso does not fit the observations."""
        params = self.torso.init(key, spec, {"value": 1})
        return CriticState(params, self.optimizer.transformation().init(params))

    def advantages(self, spec: EnvSpec, params: AgentParams, trajectory: Trajectory) -> jax.Array:
        """Advantages along a rollout, over time for each worker. [T, B] float32; constant: no gradient passes."""
        params, trajectory = jax.lax.stop_gradient((params, trajectory))
        value, next_value = self._value(spec, params, trajectory.obs), self._value(spec, params, trajectory.next_obs)
        estimate = partial(returns.generalized_advantages, gamma=self.gamma, gae_lambda=self.gae_lambda)
        return jax.vmap(estimate, in_axes=1, out_axes=1)(
            trajectory.reward, trajectory.terminated, trajectory.truncated, value, next_value
        )

    def update(self, spec: EnvSpec, state: CriticState, trajectory: Trajectory) -> tuple[CriticState, jax.Array]:
        """Take one gradient step on a rollout [T, B]. Returns the loss before it, [] float32."""
        state, trajectory = jax.lax.stop_gradient((state, trajectory))
        target = self._value(spec, state.params, trajectory.obs) + self.advantages(spec, state.params, trajectory)

        def loss_fn(params: AgentParams) -> jax.Array:
            return 0.5 * jnp.mean(jnp.square(self._value(spec, params, trajectory.obs) - target))

        loss, gradients = jax.value_and_grad(loss_fn)(state.params)
        updates, opt_state = self.optimizer.transformation().update(gradients, state.opt_state, state.params)
        return CriticState(optax.apply_updates(state.params, updates), opt_state), loss

    def _value(self, spec: EnvSpec, params: AgentParams, obs: Obs) -> jax.Array:
        return agent.apply(self.torso, spec, params, obs)["value"][..., 0]
