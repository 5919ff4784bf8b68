"""An MLP with a one-step model of its actions, as the agents of Disco103 have (doi:10.1038/s41586-025-09761-x).

What is predicted of each action comes from one step of an LSTM on that action, so that actions share what they learn.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metadisco.agents.networks import apply_dense, check_widths, flat_size, flatten, init_truncated_dense
from metadisco.core import lstm
from metadisco.core.config import check_counts
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, Obs, Outputs
from metadisco.envs.base import Discrete, EnvSpec

_SHARED = ("torso", "root", "model")


@own_defaults
@dataclass(frozen=True)
class ActionModel:
    """Dense layers, of which the last is linear; heads on them, and heads of each action on a model's step.

    The model begins with a cell c that is linear in the last layer, and tanh(c) as its hidden state; it makes one step
    of an LSTM for each action, one-hot. Each head of the model has one hidden layer. Its output has the width of all
    actions, one action after the other.

    Attributes:
        widths: units of the dense layers; relu between them.
        model_width: units of the LSTM.
        head_width: hidden units of each head of the model.
        of_actions: names of the heads of the model; those that the agent does not have are ignored.

    Example:
        >>> import jax
        >>> from metadisco.envs.base import Box
        >>> spec, torso = EnvSpec(Box((4,)), Discrete(2)), ActionModel((8,), 4, 4)
        >>> params = torso.init(jax.random.key(0), spec, {"logits": 2, "z": 6})
        >>> {name: each.shape for name, each in torso.apply(params, jax.numpy.ones((5, 4))).items()}
        {'logits': (5, 2), 'z': (5, 6)}
    """

    widths: tuple[int, ...] = (512, 512)
    model_width: int = 128
    head_width: int = 128
    of_actions: tuple[str, ...] = ("z", "q", "aux_logits")

    def __post_init__(self) -> None:
        check_widths("ActionModel.widths", self.widths)
        check_counts(self, "model_width", "head_width")

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """Truncated Gaussian weights of variance about 1 / inputs, small ones in the heads of the dense layers."""
        if not isinstance(spec.action, Discrete):
            raise ValueError(f"an ActionModel makes a step for each action, got {spec.action}; use MLP")
        num_actions = spec.num_actions
        torso_key, root_key, model_key, heads_key = jax.random.split(key, 4)
        size, layers = flat_size(spec), []
        for layer_key, width in zip(jax.random.split(torso_key, len(self.widths)), self.widths, strict=True):
            layers.append(init_truncated_dense(layer_key, size, width))
            size = width
        params: AgentParams = {
            "torso": layers,
            "root": init_truncated_dense(root_key, size, self.model_width),
            "model": init_truncated_dense(model_key, num_actions + self.model_width, 4 * self.model_width),
        }
        for head_key, (name, width) in zip(jax.random.split(heads_key, len(heads)), heads.items(), strict=True):
            if name not in self.of_actions:
                params[name] = init_truncated_dense(head_key, size, width, 0.01)
                continue
            if width % num_actions:
                raise ValueError(f"the head {name!r} of {num_actions} actions cannot have the width {width}")
            hidden_key, out_key = jax.random.split(head_key)
            params[name] = {
                "hidden": init_truncated_dense(hidden_key, self.model_width, self.head_width),
                "out": init_truncated_dense(out_key, self.head_width, width // num_actions),
            }
        return params

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs for `obs` [rows, ...] or int32 [rows]."""
        *hidden, last = agent_params["torso"]
        x = flatten(obs, agent_params["torso"][0]["kernel"].shape[0])
        for layer in hidden:
            x = jax.nn.relu(apply_dense(layer, x))
        x = apply_dense(last, x)
        of_actions = self._step(agent_params, x)
        return {
            name: _of_model(head, of_actions) if name in self.of_actions else apply_dense(head, x)
            for name, head in agent_params.items()
            if name not in _SHARED
        }

    def _step(self, agent_params: AgentParams, x: jax.Array) -> jax.Array:
        """Hidden states after each action. [rows, widths] to [rows, A, model_width]."""
        cell = apply_dense(agent_params["root"], x)
        num_actions = agent_params["model"]["kernel"].shape[0] - self.model_width
        shape = (x.shape[0], num_actions)
        actions = jnp.broadcast_to(jnp.eye(num_actions, dtype=x.dtype), (*shape, num_actions))
        cells = jnp.broadcast_to(cell[:, None], (*shape, self.model_width))
        return lstm.step(agent_params["model"], actions, (jnp.tanh(cells), cells))[0]


def _of_model(head: AgentParams, x: jax.Array) -> jax.Array:
    """Outputs of all actions, one after the other. [rows, A, model_width] to [rows, A * width]."""
    output = apply_dense(head["out"], jax.nn.relu(apply_dense(head["hidden"], x)))
    return output.reshape(output.shape[0], -1)
