"""Torsos: networks and tables from observations to the outputs of an agent.

Parameters are plain dicts with one entry per head, so that a head can have its own learning rate; a network has
one more, `torso`. Torsos see exactly one leading axis; `metadisco.agents.agent` folds the others.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from metadisco.core.jax_defaults import own_defaults
from metadisco.core.types import AgentParams, Heads, Key, Obs, Outputs
from metadisco.envs.base import Box, Discrete, EnvSpec

POLICY_HEADS = frozenset({"logits", "mean", "log_std"})
POLICY_GROUP = POLICY_HEADS | {"torso"}  # parameters that an optimizer of the policy moves
_SECOND_TORSO = "prediction_torso"
_NEWTON_STEPS = 40  # a singular value of 1e-5 has become 1 by then
FREE_HEADS = frozenset({"log_std"})  # in a network, the same for all observations (arXiv:1502.05477)


class Torso(Protocol):
    """A function approximator with several heads."""

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """Fresh parameters. Raises ValueError where the torso does not fit the observations."""

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs by head, [rows, width], for observations [rows, ...]."""


@runtime_checkable
class ReportsActivity(Protocol):
    """A torso that can say how active its units are, for an optimizer that looks for dormant ones. Optional."""

    def activity(self, agent_params: AgentParams, obs: Obs) -> AgentParams:
        """Mean |output| of the units that each array feeds, over observations [rows, ...].

        Returns:
            A tree like the parameters; each leaf is [units], the last axis of the parameters that it belongs to.
        """


@own_defaults
@dataclass(frozen=True)
class Table:
    """One zero-initialised row per observation: a lookup, never a one-hot product.

    Example:
        >>> import jax
        >>> from metadisco.envs.base import Discrete, EnvSpec
        >>> params = Table().init(jax.random.key(0), EnvSpec(Discrete(6), Discrete(2)), {"logits": 2})
        >>> Table().apply(params, jax.numpy.array([3, 5]))["logits"].shape
        (2, 2)
    """

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """Zeros: every action is equally likely, every prediction uniform or 0."""
        del key
        if not isinstance(spec.observation, Discrete):
            raise ValueError(
                f"a Table needs observations that are an index, got {spec.observation}; use MLP or CNN, or an "
                "environment with discrete observations (GridWorld with planes=False)"
            )
        return {name: jnp.zeros((spec.observation.num, width)) for name, width in heads.items()}

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Look the rows up. `obs` is int32 [rows]."""
        return {name: table[obs] for name, table in agent_params.items()}


@own_defaults
@dataclass(frozen=True)
class Constant:
    """The same outputs whatever is observed, at first all 0: the random policy, until it learns to prefer an action.

    Example:
        >>> import jax
        >>> from metadisco.envs.base import Discrete, EnvSpec
        >>> params = Constant().init(jax.random.key(0), EnvSpec(Discrete(6), Discrete(2)), {"logits": 2})
        >>> Constant().apply(params, jax.numpy.array([3, 5, 1]))["logits"].shape
        (3, 2)
    """

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """Zeros."""
        del key, spec
        return {name: jnp.zeros(width) for name, width in heads.items()}

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Repeat the outputs for `obs` [rows, ...]."""
        return {name: jnp.broadcast_to(row, (obs.shape[0], row.shape[0])) for name, row in agent_params.items()}


class Activation(Protocol):
    """Activation function of a hidden layer."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Entry by entry."""


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        return jax.nn.relu(x)


@dataclass(frozen=True)
class Tanh:
    """tanh(x), bounded; the custom for PPO on low-dimensional observations."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        return jnp.tanh(x)


@dataclass(frozen=True)
class Swish:
    """x sigmoid(x) (arXiv:1710.05941), smooth; the custom on brax."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        return jax.nn.swish(x)


@own_defaults
@dataclass(frozen=True)
class MLP:
    """Dense layers on the flattened observation (an index becomes one-hot).

    Attributes:
        widths: units of each hidden layer.
        activation: of each hidden layer.
    """

    widths: tuple[int, ...] = (64, 64)
    activation: Activation = Relu()

    def __post_init__(self) -> None:
        check_widths("MLP.widths", self.widths)

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """Orthogonal weights, zero biases; small heads, so that the first policy is near uniform, but for the value."""
        torso_key, head_key = jax.random.split(key)
        layers, width = init_dense_layers(torso_key, flat_size(spec), self.widths)
        return {"torso": layers, **init_heads(head_key, width, heads)}

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs for `obs` [rows, ...] or int32 [rows]."""
        layers = agent_params["torso"]
        x = flatten(obs, layers[0]["kernel"].shape[0])
        return apply_heads(agent_params, apply_dense_layers(layers, x, self.activation))

    def activity(self, agent_params: AgentParams, obs: Obs) -> AgentParams:
        """See `ReportsActivity`."""
        layers = agent_params["torso"]
        sizes, x = _dense_activity(layers, flatten(obs, layers[0]["kernel"].shape[0]), self.activation)
        return {"torso": sizes, **_head_activity(agent_params, x)}


@own_defaults
@dataclass(frozen=True)
class CNN:
    """Convolutions over images [rows, columns, channels], then dense layers.

    Attributes:
        channels: output channels of each 3 x 3 convolution (stride 1, padded to the same size).
        widths: units of each dense layer after them.
    """

    channels: tuple[int, ...] = (16,)
    widths: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        check_widths("CNN.channels", self.channels)
        check_widths("CNN.widths", self.widths)

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """As for `MLP`."""
        if not isinstance(spec.observation, Box) or len(spec.observation.shape) != 3:
            raise ValueError(
                f"a CNN needs observations of shape [rows, columns, channels], got {spec.observation}; use MLP or "
                "Table, or an environment with images (GridWorld with planes=True)"
            )
        convolution_key, dense_key, head_key = jax.random.split(key, 3)
        rows, columns, depth = spec.observation.shape
        convolutions = []
        layer_keys = jax.random.split(convolution_key, len(self.channels))
        for layer_key, channels in zip(layer_keys, self.channels, strict=True):
            kernel = orthogonal(layer_key, (9 * depth, channels), 2**0.5).reshape(3, 3, depth, channels)
            convolutions.append({"kernel": kernel, "bias": jnp.zeros(channels)})
            depth = channels
        layers, width = init_dense_layers(dense_key, rows * columns * depth, self.widths)
        return {"torso": {"convolutions": convolutions, "layers": layers}, **init_heads(head_key, width, heads)}

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs for `obs` float32 [rows, height, width, channels]."""
        x = obs
        for layer in agent_params["torso"]["convolutions"]:
            x = convolve(x, layer["kernel"])
            x = jax.nn.relu(x + layer["bias"])
        x = apply_dense_layers(agent_params["torso"]["layers"], x.reshape(x.shape[0], -1), Relu())
        return apply_heads(agent_params, x)

    def activity(self, agent_params: AgentParams, obs: Obs) -> AgentParams:
        """See `ReportsActivity`; a unit of a convolution is a channel, at all places."""
        x, convolutions = obs, []
        for layer in agent_params["torso"]["convolutions"]:
            x = jax.nn.relu(convolve(x, layer["kernel"]) + layer["bias"])
            convolutions.append(_mean_size(layer, x))
        layers, x = _dense_activity(agent_params["torso"]["layers"], x.reshape(x.shape[0], -1), Relu())
        return {"torso": {"convolutions": convolutions, "layers": layers}, **_head_activity(agent_params, x)}


@own_defaults
@dataclass(frozen=True)
class Separate:
    """Two networks that share nothing: one for the policy, one for everything else, such as the value.

    Attributes:
        policy: torso of the heads of the policy.
        prediction: torso of all others.

    Example:
        >>> import jax
        >>> from metadisco.envs.base import Box, Discrete, EnvSpec
        >>> spec = EnvSpec(Box((4,)), Discrete(2))
        >>> sorted(Separate(MLP((8,)), MLP((8,))).init(jax.random.key(0), spec, {"logits": 2, "value": 1}))
        ['logits', 'prediction_torso', 'torso', 'value']
    """

    policy: Torso
    prediction: Torso

    def __post_init__(self) -> None:
        for torso in (self.policy, self.prediction):
            if isinstance(torso, Separate):
                raise ValueError("Separate holds two torsos that are not Separate themselves")

    def init(self, key: Key, spec: EnvSpec, heads: Heads) -> AgentParams:
        """See the two torsos."""
        policy_key, prediction_key = jax.random.split(key)
        of_policy = {name: width for name, width in heads.items() if name in POLICY_HEADS}
        others = {name: width for name, width in heads.items() if name not in POLICY_HEADS}
        prediction = self.prediction.init(prediction_key, spec, others)
        if "torso" in prediction:
            prediction[_SECOND_TORSO] = prediction.pop("torso")
        policy = self.policy.init(policy_key, spec, of_policy)
        strange = (policy.keys() | prediction.keys()) - heads.keys() - {"torso", _SECOND_TORSO}
        if strange:
            raise ValueError(
                f"torsos in Separate must keep what their heads share under 'torso', got {sorted(strange)}"
            )
        return policy | prediction

    def apply(self, agent_params: AgentParams, obs: Obs) -> Outputs:
        """Outputs of both for `obs` [rows, ...]."""
        of_policy, prediction = _apart(agent_params)
        return self.policy.apply(of_policy, obs) | self.prediction.apply(prediction, obs)

    def activity(self, agent_params: AgentParams, obs: Obs) -> AgentParams:
        """See `ReportsActivity`."""
        of_policy, prediction = _apart(agent_params)
        told = activity(self.prediction, prediction, obs)
        if "torso" in told:
            told[_SECOND_TORSO] = told.pop("torso")
        return activity(self.policy, of_policy, obs) | told


def activity(torso: Torso, agent_params: AgentParams, obs: Obs) -> AgentParams:
    """`ReportsActivity.activity` of any torso; of one that does not say, all units are equally active."""
    if isinstance(torso, ReportsActivity):
        return torso.activity(agent_params, obs)
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape[-1:], jnp.float32), agent_params)


def layer_proportions(agent_params: AgentParams) -> AgentParams:
    """Where in its network each array is: i / L in layer i of a torso of L layers, 1 in a head. A tree of floats.

    Layers are in the order in which a torso keeps them. A table is a head.
    """
    paths = [path for path, _ in jax.tree.leaves_with_path(agent_params)]

    def proportion(path: tuple, _: jax.Array) -> float:
        if path[0].key not in ("torso", _SECOND_TORSO):
            return 1.0
        layers = list(dict.fromkeys(each[:-1] for each in paths if each[0] == path[0]))
        return layers.index(path[:-1]) / len(layers)

    return jax.tree.map_with_path(proportion, agent_params)


def _apart(agent_params: AgentParams) -> tuple[AgentParams, AgentParams]:
    """Parameters of the two networks of `Separate`."""
    of_policy = {name: leaf for name, leaf in agent_params.items() if name in POLICY_GROUP}
    prediction = {name: leaf for name, leaf in agent_params.items() if name not in of_policy}
    if _SECOND_TORSO in prediction:
        prediction["torso"] = prediction.pop(_SECOND_TORSO)
    return of_policy, prediction


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1, padded to the same size, as one matrix product over shifted copies.

    XLA makes grouped convolutions of many agents' own kernels, which are much slower on a CPU.

    Args:
        x: [rows, height, width, channels] float32.
        kernel: [3, 3, channels, outputs] float32.

    Returns:
        [rows, height, width, outputs] float32.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def orthogonal(key: Key, shape: tuple[int, int], scale: float) -> jax.Array:
    """A random matrix whose shorter side is orthonormal, times `scale`. `shape` float32.

    The orthogonal factor of the polar decomposition of a Gaussian matrix, which is as uniform over all such matrices as
    the Q of its QR decomposition, by the iteration of Newton and Schulz, X (3 I - X' X) / 2.

    Note:
        jax.nn.initializers.orthogonal calls LAPACK, and several such calls in one program of many agents wait for each
        other forever on a CPU of two cores (jaxlib 0.10.2).
    """
    is_wide = shape[0] < shape[1]
    size = shape[::-1] if is_wide else shape
    # Singular values below 1, but for bad luck; below 1.7 will do.
    x = jax.random.normal(key, size) / (size[0] ** 0.5 + size[1] ** 0.5 + 4.0)

    def step(_: jax.Array, x: jax.Array) -> jax.Array:
        gram = jnp.matmul(x.T, x, precision="highest")  # accelerators round products otherwise
        return jnp.matmul(x, 1.5 * jnp.eye(size[1]) - 0.5 * gram, precision="highest")

    x = jax.lax.fori_loop(0, _NEWTON_STEPS, step, x)
    return scale * (x.T if is_wide else x)


def check_widths(name: str, widths: tuple[int, ...]) -> None:
    """Raise ValueError unless there is a layer, and each has a unit."""
    if not widths or min(widths) < 1:
        raise ValueError(f"{name} must be one or more positive integers, got {widths}")


def flat_size(spec: EnvSpec) -> int:
    """How many numbers `flatten` makes of an observation."""
    if isinstance(spec.observation, Discrete):
        return spec.observation.num
    return math.prod(spec.observation.shape)


def flatten(obs: Obs, size: int) -> jax.Array:
    """Observations as vectors, an index as one-hot. [rows, ...] or int32 [rows] to [rows, size]."""
    if jnp.issubdtype(obs.dtype, jnp.integer):
        return jax.nn.one_hot(obs, size)
    return obs.reshape(obs.shape[0], -1)


def init_dense_layers(key: Key, size: int, widths: tuple[int, ...]) -> tuple[list, int]:
    """Weights and biases of dense layers on `size` inputs, and how many outputs the last one has."""
    layers = []
    for layer_key, width in zip(jax.random.split(key, len(widths)), widths, strict=True):
        layers.append({"kernel": orthogonal(layer_key, (size, width), 2**0.5), "bias": jnp.zeros(width)})
        size = width
    return layers, size


def init_truncated_dense(key: Key, inputs: int, outputs: int, deviation: float | None = None) -> AgentParams:
    """A dense layer of zero bias; its weights are truncated Gaussian, by default of variance about 1 / inputs."""
    deviation = inputs**-0.5 if deviation is None else deviation
    kernel = jax.nn.initializers.truncated_normal(deviation)(key, (inputs, outputs), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(outputs, jnp.float32)}


def apply_dense_layers(layers: list, x: jax.Array, activation: Activation) -> jax.Array:
    """Dense layers on `x` [rows, size]."""
    for layer in layers:
        x = activation(apply_dense(layer, x))
    return x


def _dense_activity(layers: list, x: jax.Array, activation: Activation) -> tuple[list, jax.Array]:
    """`activity` of dense layers on `x` [rows, size], and what comes out of them."""
    sizes = []
    for layer in layers:
        x = activation(apply_dense(layer, x))
        sizes.append(_mean_size(layer, x))
    return sizes, x


def _head_activity(agent_params: AgentParams, x: jax.Array) -> AgentParams:
    """`activity` of heads on `x` [rows, size]."""
    return {name: _mean_size(agent_params[name], output) for name, output in apply_heads(agent_params, x).items()}


def _mean_size(layer: AgentParams, x: jax.Array) -> AgentParams:
    """Mean |x| of each unit, for every array of a layer. [..., units] to [units] each."""
    size = jnp.mean(jnp.abs(x), axis=range(x.ndim - 1))
    return dict.fromkeys(layer, size)


def apply_dense(layer: AgentParams, x: jax.Array) -> jax.Array:
    """x W + b. [..., inputs] to [..., outputs]."""
    return x @ layer["kernel"] + layer["bias"]


def init_heads(key: Key, size: int, heads: Heads) -> AgentParams:
    """Weights and biases of heads on `size` inputs, small but for the value."""
    params = {}
    for head_key, (name, width) in zip(jax.random.split(key, len(heads)), heads.items(), strict=True):
        params[name] = {"bias": jnp.zeros(width)}
        if name not in FREE_HEADS:
            params[name]["kernel"] = orthogonal(head_key, (size, width), 1.0 if name == "value" else 0.01)
    return params


def apply_heads(agent_params: AgentParams, x: jax.Array) -> Outputs:
    """Outputs of all heads for `x` [rows, size]."""
    return {name: _apply_head(name, head, x) for name, head in agent_params.items() if name != "torso"}


def _apply_head(name: str, head: AgentParams, x: jax.Array) -> jax.Array:
    if name in FREE_HEADS:
        return jnp.broadcast_to(head["bias"], (x.shape[0], *head["bias"].shape))
    return apply_dense(head, x)
