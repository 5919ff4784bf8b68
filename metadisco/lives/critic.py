"""A value critic that is trained beside an agent, on the same rollouts (arXiv:2310.02782).

It estimates advantages for outer losses and level scores. The objective never sees it, and no gradient passes from the
critic to anything else.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import struct

from metadisco.agents import agent
from metadisco.agents.networks import Table, Torso
from metadisco.agents.optimizers import SGD, Optimizer, OptState
from metadisco.core import returns
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Key, Obs, Trajectory
from metadisco.envs.base import EnvSpec


@struct.dataclass
class CriticState:
    """State of a critic."""

    params: AgentParams
    opt_state: OptState
    running_return: jax.Array  # [B] float32, return of the current episodes so far, discounted to their start
    discount: jax.Array  # [B] float32, discount of their next reward
    best_return: jax.Array  # [] float32, highest discounted return of a completed episode; -inf before the first


@struct.dataclass
class CriticOutput:
    """Value estimates for a rollout."""

    value: jax.Array  # [T, B] float32, V(s_t)
    advantage: jax.Array  # [T, B] float32
    best_return: jax.Array  # [] float32, highest discounted return so far, including unfinished episodes


@own_defaults
@dataclass(frozen=True)
class Critic:
    """V(s), regressed on lambda-returns, and its generalised advantages (arXiv:1506.02438).

    loss = mean_t[ (V(s_t) - G_t)^2 / 2 ], G_t = V(s_t) + A_t constant.

    Attributes:
        torso: function approximator.
        optimizer: of the loss. The default rate is that of the tuned A2C for tables.
        gamma: discount in [0, 1].
        gae_lambda: lambda of advantages and returns, in [0, 1].

    Example:
        >>> from metadisco.envs.gridworld.dynamics import GridWorld
        >>> import jax
        >>> Critic().init(jax.random.key(0), GridWorld().spec, num_workers=8).params["value"].shape[-1]
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

    def init(self, key: Key, spec: EnvSpec, num_workers: int) -> CriticState:
        """Initial state. Raises ValueError where the torso does not fit the observations."""
        params = self.torso.init(key, spec, {"value": 1})
        return CriticState(
            params,
            self.optimizer.transformation().init(params),
            running_return=jnp.zeros(num_workers),
            discount=jnp.ones(num_workers),
            best_return=jnp.full((), -jnp.inf, float),
        )

    def advantages(self, spec: EnvSpec, params: AgentParams, trajectory: Trajectory) -> jax.Array:
        """Advantages along a rollout, over time for each worker. [T, B] float32, stop-gradiented."""
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
        state = replace(state, params=optax.apply_updates(state.params, updates), opt_state=opt_state)
        return self._follow(state, trajectory), loss

    def assess(self, spec: EnvSpec, state: CriticState, trajectory: Trajectory) -> CriticOutput:
        """Values and advantages of a rollout [T, B], without an update. Stop-gradiented."""
        state, trajectory = jax.lax.stop_gradient((state, trajectory))
        return CriticOutput(
            value=self._value(spec, state.params, trajectory.obs),
            advantage=self.advantages(spec, state.params, trajectory),
            best_return=jnp.maximum(state.best_return, jnp.max(state.running_return)),
        )

    def _follow(self, state: CriticState, trajectory: Trajectory) -> CriticState:
        """Accumulate the rewards of a rollout into the episode returns."""

        def step(carry: tuple, now: tuple) -> tuple[tuple, None]:
            running, discount, best = carry
            reward, finished = now
            running = running + discount * reward
            best = jnp.maximum(best, jnp.max(jnp.where(finished, running, -jnp.inf)))
            return (jnp.where(finished, 0.0, running), jnp.where(finished, 1.0, self.gamma * discount), best), None

        carry = (state.running_return, state.discount, state.best_return)
        (running, discount, best), _ = jax.lax.scan(step, carry, (trajectory.reward, trajectory.finished))
        return replace(state, running_return=running, discount=discount, best_return=best)

    def _value(self, spec: EnvSpec, params: AgentParams, obs: Obs) -> jax.Array:
        return agent.apply(self.torso, spec, params, obs)["value"][..., 0]
