"""An agent: a torso with the heads of an objective, for an environment's spaces."""

from dataclasses import dataclass

import jax

from metadisco.agents import distributions, networks
from metadisco.agents.distributions import Distribution
from metadisco.agents.networks import Torso
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Key, Obs, Outputs
from metadisco.envs.base import Box, EnvSpec
from metadisco.envs.rollout import Policy


@own_defaults
@dataclass(frozen=True)
class Agent:
    """A policy and its predictions.

    Attributes:
        torso: the function approximator.
        spec: spaces of the environment.
        heads: (name, width) of each output. The policy is `logits` where actions are discrete, else `mean` and
            `log_std`; which these are follows from the action space.
    """

    torso: Torso
    spec: EnvSpec
    heads: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        heads = dict(self.heads)
        if isinstance(self.spec.action, Box) and "logits" in heads:
            raise ValueError(f"the head 'logits' is for discrete action spaces, got {self.spec.action}")
        needed = self.distribution.heads()
        if needed.items() - heads.items():
            raise ValueError(f"heads must hold {needed} for this environment, got {heads}")

    @property
    def distribution(self) -> Distribution:
        """Of actions."""
        return distributions.of_space(self.spec.action)

    def init(self, key: Key) -> AgentParams:
        """Fresh parameters."""
        return self.torso.init(key, self.spec, dict(self.heads))

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs by head, [..., width], for observations with any leading axes."""
        return apply(self.torso, self.spec, agent_params, obs)

    def activity(self, agent_params: AgentParams, obs: Obs) -> AgentParams:
        """Mean |output| of the units that each array feeds, see `metadisco.agents.networks.ReportsActivity`."""
        return networks.activity(self.torso, agent_params, _rows(self.spec, obs)[0])

    def policy(self, agent_params: AgentParams) -> Policy:
        """The policy as a function of noise (see `noise`) and observations."""

        def act(noise: jax.Array, obs: Obs) -> tuple[jax.Array, jax.Array]:
            return self.distribution.sample(noise, self.apply(agent_params, obs))

        return act

    def noise(self, key: Key, shape: tuple[int, ...]) -> jax.Array:
        """Noise for `shape` actions; begins with the axes `shape`."""
        return self.distribution.noise(key, shape)


def apply(torso: Torso, spec: EnvSpec, params: AgentParams, obs: Obs) -> Outputs:
    """Outputs of a torso by head, [..., width], for observations with any leading axes."""
    rows, leading = _rows(spec, obs)
    return {name: output.reshape(*leading, -1) for name, output in torso.apply(params, rows).items()}


def _rows(spec: EnvSpec, obs: Obs) -> tuple[Obs, tuple[int, ...]]:
    """Observations with one leading axis, and the axes that it stands for."""
    own_axes = len(spec.observation.shape) if isinstance(spec.observation, Box) else 0
    leading = obs.shape[: obs.ndim - own_axes]
    return obs.reshape(-1, *obs.shape[obs.ndim - own_axes :]), leading
