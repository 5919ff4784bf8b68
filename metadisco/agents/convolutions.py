"""Strided convolutions, for images too large to keep their size from layer to layer.

`networks.CNN` multiplies shifted copies of small images, which is what suits many agents side by side on a CPU. Agents
of large images live one at a time (`metadisco.lives.host`), and XLA's own convolution is the faster one for them.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metadisco.agents.networks import Relu, apply_dense_layers, apply_heads, init_dense_layers, init_heads, orthogonal
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, Obs, Outputs
from metadisco.envs.base import Box, EnvSpec

LARGEST_BYTE = 255.0


@own_defaults
@dataclass(frozen=True)
class StridedCNN:
    """Convolutions without padding, then dense layers; the defaults are the network of DQN (Nature 518, 529).

    Images of bytes are divided by 255.

    Attributes:
        channels: output channels of each convolution.
        sizes: side of its kernel.
        strides: of its steps.
        widths: units of each dense layer after them.

    Example:
        >>> import jax
        >>> from metadisco.envs.base import Discrete
        >>> spec = EnvSpec(Box((84, 84, 4)), Discrete(6))
        >>> torso = StridedCNN((4,), (8,), (8,), (16,))
        >>> params = jax.eval_shape(lambda key: torso.init(key, spec, {"logits": 6}), jax.random.key(0))
        >>> params["torso"]["layers"][0]["kernel"].shape
        (400, 16)
    """

    channels: tuple[int, ...] = (32, 64, 64)
    sizes: tuple[int, ...] = (8, 4, 3)
    strides: tuple[int, ...] = (4, 2, 1)
    widths: tuple[int, ...] = (512,)

    def __post_init__(self) -> None:
        if not self.channels or not len(self.channels) == len(self.sizes) == len(self.strides):
            raise ValueError(
                "StridedCNN needs as many sizes and strides as channels, at least one, got "
                f"{self.channels}, {self.sizes} and {self.strides}"
            )
        if not self.widths or min(*self.channels, *self.sizes, *self.strides, *self.widths) < 1:
            raise ValueError(f"StridedCNN takes positive integers, and at least one of widths, got {self}")

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """As for `networks.CNN`."""
        if not isinstance(spec.observation, Box) or len(spec.observation.shape) != 3:
            raise ValueError(
                f"a StridedCNN needs observations of shape [rows, columns, channels], got {spec.observation}; use MLP "
                "or Table"
            )
        rows, columns, depth = spec.observation.shape
        convolution_key, dense_key, head_key = jax.random.split(key, 3)
        layer_keys = jax.random.split(convolution_key, len(self.channels))
        convolutions = []
        for layer_key, channels, size, stride in zip(layer_keys, self.channels, self.sizes, self.strides, strict=True):
            rows, columns = (rows - size) // stride + 1, (columns - size) // stride + 1
            if min(rows, columns) < 1:
                raise ValueError(f"images of {spec.observation.shape} are too small for {self}; use CNN")
            kernel = orthogonal(layer_key, (size * size * depth, channels), 2**0.5)
            convolutions.append({"kernel": kernel.reshape(size, size, depth, channels), "bias": jnp.zeros(channels)})
            depth = channels
        layers, width = init_dense_layers(dense_key, rows * columns * depth, self.widths)
        return {"torso": {"convolutions": convolutions, "layers": layers}, **init_heads(head_key, width, heads)}

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs for `obs`, float32 or uint8 [rows, height, width, channels]."""
        x = obs / LARGEST_BYTE if obs.dtype == jnp.uint8 else obs
        for layer, stride in zip(agent_params["torso"]["convolutions"], self.strides, strict=True):
            x = jax.lax.conv_general_dilated(
                x, layer["kernel"], (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + layer["bias"])
        x = apply_dense_layers(agent_params["torso"]["layers"], x.reshape(x.shape[0], -1), Relu())
        return apply_heads(agent_params, x)
