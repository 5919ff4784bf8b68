"""An agent: a torso with the heads that an objective asks for, in an environment's spaces."""

from dataclasses import dataclass

import jax

from metadisco.agents import distributions
from metadisco.agents.networks import Torso
from metadisco.envs.base import Box, EnvSpec
from metadisco.envs.rollout import Policy
from metadisco.types import AgentParams, Key, Obs, Outputs


@dataclass(frozen=True)
class Agent:
    """A policy and its predictions.

    Attributes:
        torso: the function approximator.
        spec: spaces of the environment.
        heads: (name, width) of each output; `logits` is the policy.
    """

    torso: Torso
    spec: EnvSpec
    heads: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        num_actions = self.spec.num_actions
        if dict(self.heads).get("logits") != num_actions:
            raise ValueError(f"heads must hold ('logits', {num_actions}) for this environment, got {self.heads}")

    def init(self, key: Key) -> AgentParams:
        """Fresh parameters."""
        return self.torso.init(key, self.spec, dict(self.heads))

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs by head, [..., width], for observations with any leading axes."""
        return apply(self.torso, self.spec, agent_params, obs)

    def policy(self, agent_params: AgentParams) -> Policy:
        """The policy as a function of uniform numbers and observations."""

        def act(uniform: jax.Array, obs: Obs) -> tuple[jax.Array, jax.Array]:
            return distributions.sample_categorical(uniform, self.apply(agent_params, obs)["logits"])

        return act


def apply(torso: Torso, spec: EnvSpec, params: AgentParams, obs: Obs) -> Outputs:
    """Outputs of a torso by head, [..., width], for observations with any leading axes."""
    own_axes = len(spec.observation.shape) if isinstance(spec.observation, Box) else 0
    leading = obs.shape[: obs.ndim - own_axes]
    outputs = torso.apply(params, obs.reshape(-1, *obs.shape[obs.ndim - own_axes :]))
    return {name: output.reshape(*leading, -1) for name, output in outputs.items()}
