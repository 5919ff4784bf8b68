"""Optimizers that are discovered: OPEN (arXiv:2407.07082), a small recurrent net that is asked for every parameter.

An optimizer with meta-parameters is not an optax transformation: it is told more than gradients, and draws random
numbers. `metadisco.objectives.with_optimizer` puts one beside an objective, so that both can be discovered together.
"""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents.networks import POLICY_GROUP, layer_proportions
from metadisco.agents.optimizers import OptState
from metadisco.core.config import check_counts, check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.lowrank import dense
from metadisco.core.types import AgentParams, Key, MetaParams

DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)  # of the momenta
INPUTS = (
    "parameter",
    *(f"sign_of_momentum_{decay}" for decay in DECAYS),
    *(f"log_momentum_{decay}" for decay in DECAYS),
    "sign_of_gradient",
    "log_gradient",
    "training_proportion",
    "layer_proportion",
    "batch_proportion",
    "dormancy",
)
OUTPUTS = 3  # m, e and delta
_MAX_LOG_FACTOR = 5.0  # exp(alpha_2 e) is at most e^5
_TINY = 1e-13  # below which the log of a gradient does not fall


@struct.dataclass
class LearningStep:
    """What a learned optimizer is told of one gradient step. Trees like the agent's parameters, but for scalars."""

    gradients: AgentParams
    proposed: AgentParams  # what the learner's own optimizers would add to the parameters
    activity: AgentParams  # [units] by leaf, mean |output| of the units that it feeds: `networks.ReportsActivity`
    fraction: jax.Array  # [] float32, n/N of the agent's life
    epoch: jax.Array  # [] float32, share of the passes over this rollout that are over: 0 in the first, 1 in the last


class LearnedOptimizer(Protocol):
    """An optimizer with meta-parameters. Its state belongs to one agent and is part of its life."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its inputs, in order; the order is part of a checkpoint."""

    def init(self, key: Key) -> MetaParams:
        """Random meta-parameters."""

    def init_state(self, agent_params: AgentParams) -> OptState:
        """State for a new agent, a pytree of arrays."""

    def update(
        self, key: Key, meta_params: MetaParams, state: OptState, agent_params: AgentParams, step: LearningStep
    ) -> tuple[AgentParams, OptState]:
        """What is added to the agent's parameters, and the new state, of the same structure, shapes and dtypes."""


@struct.dataclass
class OPENState:
    """What OPEN remembers of the P parameters of one agent, in the order of their tree."""

    momenta: jax.Array  # [6, P] float32, running means of gradients, by `DECAYS`
    hidden: jax.Array  # [H, P] float32, of the recurrent net


@own_defaults
@dataclass(frozen=True)
class OPEN:
    """Learned optimization for plasticity, exploration and non-stationarity (arXiv:2407.07082).

    A GRU and an MLP of two layers, with weights that all parameters share, say m, e and delta for each parameter, and

        u = alpha_1 m exp(alpha_2 e) + alpha_3 delta epsilon,    epsilon ~ N(0, 1), 0 but for the policy,

    is subtracted from it, less the mean of u over the parameters of policy and prediction, each. The net sees the
    parameter, six momenta and the gradient, as signs and logarithms, each scaled to a mean square of 1 over its array;
    n/N; the layer's place in its network; the share of epochs that are over; and the dormancy of the unit that the
    parameter feeds: its activity over the mean of its layer.

    As `residual`, it changes what the learner's own optimizers propose, b, in units of its size s in each array
    (root mean square):

        u = -b exp(alpha_2 e) + s (alpha_1 m exp(alpha_2 e) + alpha_3 delta epsilon),

    less the mean of what is not -b. Its output layer begins at zero, where u = -b: Adam, SGD or whatever the learner
    has, with its step size, its limit of the gradient and its annealing.

    Attributes:
        width: H, units of the GRU.
        hidden: units of each layer of the MLP.
        residual: see above. If not, the learner's optimizers have no effect.
        step: alpha_1.
        exponent: alpha_2.
        noise: alpha_3.

    Note:
        arXiv:2407.07082 does not say over which parameters the mean is taken; its public code takes actor and critic
        together, which share nothing. Gradients are not clipped first: the net sees their logarithms. Meta-gradients
        pass through m, e and delta of every step, not through what the net sees.

    Example:
        >>> sum(leaf.size for leaf in jax.tree.leaves(OPEN().init(jax.random.key(0))))
        1211
    """

    width: int = 8
    hidden: int = 16
    residual: bool = False
    step: float = 1e-3
    exponent: float = 1e-3
    noise: float = 1e-3

    def __post_init__(self) -> None:
        check_counts(self, "width", "hidden")
        check_positive(self, "step", "exponent", "noise")

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the net, in order."""
        return INPUTS

    def init(self, key: Key) -> MetaParams:
        """LeCun-normal weights; the last layer is zero where the optimizer is residual."""
        input_key, recurrent_key, first_key, second_key, out_key = jax.random.split(key, 5)
        normal = jax.nn.initializers.lecun_normal()
        gates = 3 * self.width

        def layer(key: Key, inputs: int) -> MetaParams:
            kernel, width = normal(key, (inputs, self.hidden), jnp.float32), self.hidden
            return {"kernel": kernel, "bias": jnp.zeros(width), "scale": jnp.ones(width), "shift": jnp.zeros(width)}

        out = normal(out_key, (self.hidden, OUTPUTS), jnp.float32)
        return {
            "gru": {
                "input": normal(input_key, (len(INPUTS), gates), jnp.float32),
                "input_bias": jnp.zeros(gates),
                "recurrent": normal(recurrent_key, (self.width, gates), jnp.float32),
                "recurrent_bias": jnp.zeros(self.width),
            },
            "first": layer(first_key, self.width),
            "second": layer(second_key, self.hidden),
            "out": jnp.zeros_like(out) if self.residual else out,
            "out_bias": jnp.zeros(OUTPUTS),
        }

    def init_state(self, agent_params: AgentParams) -> OPENState:
        """Zeros."""
        size = sum(leaf.size for leaf in jax.tree.leaves(agent_params))
        return OPENState(jnp.zeros((len(DECAYS), size)), jnp.zeros((self.width, size)))

    def update(
        self, key: Key, meta_params: MetaParams, state: OPENState, agent_params: AgentParams, step: LearningStep
    ) -> tuple[AgentParams, OPENState]:
        """The equations of the class. Equal keys draw equal noise."""
        gradient = jax.lax.stop_gradient(_flat(step.gradients))
        decays = jnp.asarray(DECAYS, jnp.float32)[:, None]
        momenta = decays * state.momenta + (1.0 - decays) * gradient
        told = jax.lax.stop_gradient(inputs(agent_params, gradient, momenta, step))
        hidden = _remember(meta_params["gru"], told, state.hidden)
        magnitude, exponent, deviation = _outputs(meta_params, hidden)
        logs = jnp.clip(self.exponent * exponent, -_MAX_LOG_FACTOR, _MAX_LOG_FACTOR)
        towards = self.step * magnitude * jnp.exp(logs) + self.noise * deviation * _noise(key, agent_params)
        if self.residual:
            proposed = _flat(step.proposed)
            change = proposed * jnp.expm1(logs) - _size(step.proposed) * towards
        else:
            proposed, change = jnp.zeros_like(towards), -towards
        update = proposed + change - _mean_of_group(change, agent_params)
        return _like(agent_params, update), OPENState(momenta, hidden)


def ResidualOPEN(  # noqa: N802 - a constructor of OPEN
    *, width: int = 8, hidden: int = 16, step: float = 0.1, exponent: float = 1.0, noise: float = 0.1
) -> OPEN:
    """OPEN that begins at the optimizers of the learner, with coefficients in units of their steps.

    Args:
        width: see `OPEN`.
        hidden: see `OPEN`.
        step: see `OPEN`.
        exponent: see `OPEN`.
        noise: see `OPEN`.

    Example:
        >>> float(jnp.abs(ResidualOPEN().init(jax.random.key(0))["out"]).max())
        0.0
    """
    return OPEN(width, hidden, True, step, exponent, noise)


def inputs(agent_params: AgentParams, gradient: jax.Array, momenta: jax.Array, step: LearningStep) -> jax.Array:
    """What the net sees of each of P parameters.

    Args:
        agent_params: before the step.
        gradient: [P] float32.
        momenta: [6, P] float32, with this gradient.
        step: of which the activity, n/N and the epoch are read.

    Returns:
        [19, P] float32, in the order of `INPUTS`. The first 15 are divided by the root of their mean square over the
        array that a parameter belongs to, plus 1e-5.
    """
    gradients, parameters = gradient[None], _flat(agent_params)[None]
    rows = (parameters, jnp.sign(momenta), _log(momenta), jnp.sign(gradients), _log(gradients))
    parts = jnp.split(jnp.concatenate(rows), _ends(agent_params), axis=1)
    scaled = [part * jax.lax.rsqrt(1e-5 + jnp.mean(jnp.square(part), axis=1, keepdims=True)) for part in parts]
    dormancy = jax.tree.map(_dormancy, agent_params, step.activity)
    others = [
        jnp.full(gradient.shape, step.fraction),
        _flat(jax.tree.map(jnp.full_like, agent_params, layer_proportions(agent_params))),
        jnp.full(gradient.shape, step.epoch),
        _flat(dormancy),
    ]
    return jnp.concatenate([jnp.concatenate(scaled, axis=1), jnp.stack(others)])


def _remember(weights: MetaParams, x: jax.Array, hidden: jax.Array) -> jax.Array:
    """One step of the GRU, as in `metadisco.objectives.recurrent`. [19, P] and [H, P] to [H, P].

    Parameters are the last axis here: there are thousands of them, and few units for an instruction to fill.
    """
    width = hidden.shape[0]
    from_input = dense(weights["input"]).T @ x + weights["input_bias"][:, None]
    products = dense(weights["recurrent"]).T @ hidden
    gates = 0.5 + 0.5 * jnp.tanh(0.5 * (from_input[: 2 * width] + products[: 2 * width]))  # a sigmoid
    reset, update = gates[:width], gates[width:]
    from_hidden = products[2 * width :] + weights["recurrent_bias"][:, None]
    candidate = jnp.tanh(from_input[2 * width :] + reset * from_hidden)
    return candidate + update * (hidden - candidate)


def _outputs(meta_params: MetaParams, hidden: jax.Array) -> jax.Array:
    """m, e and delta. [H, P] to [3, P].

    Each layer is followed by layer normalization (arXiv:1607.06450). Its means are matrix products, that of the layer
    itself a product with a kernel whose rows have a mean of 0: XLA's sums over the first axis are slow on a CPU.
    """
    x = hidden
    for name in ("first", "second"):
        layer = meta_params[name]
        kernel, bias = dense(layer["kernel"]), layer["bias"]
        away = (kernel - jnp.mean(kernel, axis=1, keepdims=True)).T @ x + (bias - jnp.mean(bias))[:, None]
        variance = jnp.full((1, bias.size), 1.0 / bias.size, jnp.float32) @ jnp.square(away)
        normalized = away * jax.lax.rsqrt(variance + 1e-6)
        x = jax.nn.relu(normalized * layer["scale"][:, None] + layer["shift"][:, None])
    return dense(meta_params["out"]).T @ x + meta_params["out_bias"][:, None]


def _log(x: jax.Array) -> jax.Array:
    return jnp.log(jnp.abs(x) + _TINY)


def _dormancy(leaf: jax.Array, activity: jax.Array) -> jax.Array:
    """Activity of each unit over the mean of its layer, 1 where all are silent. [units] to the shape of `leaf`."""
    activity = activity + 1e-11
    return jnp.broadcast_to(activity / jnp.mean(activity), leaf.shape)


def _noise(key: Key, agent_params: AgentParams) -> jax.Array:
    """Standard Gaussian for the parameters of the policy, 0 for all others. [P]."""
    names = sorted(agent_params)
    keys = dict(zip(names, jax.random.split(key, len(names))))

    def draw(name: str) -> jax.Array:
        size = sum(leaf.size for leaf in jax.tree.leaves(agent_params[name]))
        return jax.random.normal(keys[name], (size,)) if name in POLICY_GROUP else jnp.zeros(size)

    return jnp.concatenate([draw(name) for name in names])


def _size(tree: AgentParams) -> jax.Array:
    """Root mean square of the array that each parameter belongs to; a constant. [P]."""
    sizes = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.sqrt(jnp.mean(jnp.square(leaf)))), tree)
    return jax.lax.stop_gradient(_flat(sizes))


def _mean_of_group(flat: jax.Array, agent_params: AgentParams) -> jax.Array:
    """The mean of each group of parameters, policy or prediction, at all of its places. [P]."""

    def mask(is_policy: bool) -> jax.Array:
        parts = {name: (name in POLICY_GROUP) == is_policy for name in agent_params}
        filled = {
            name: jax.tree.map(partial(jnp.full_like, fill_value=parts[name]), agent_params[name]) for name in parts
        }
        return _flat(filled)

    masks = [mask(True), mask(False)]
    means = [jnp.sum(each * flat) / jnp.maximum(jnp.sum(each), 1.0) for each in masks]
    return masks[0] * means[0] + masks[1] * means[1]


def _flat(tree: AgentParams) -> jax.Array:
    """All numbers of a tree. [P]."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def _like(tree: AgentParams, flat: jax.Array) -> AgentParams:
    """The inverse of `_flat`."""
    leaves, structure = jax.tree.flatten(tree)
    parts = jnp.split(flat, _ends(tree))
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def _ends(tree: AgentParams) -> list[int]:
    """Where the arrays of a tree end in `_flat`, but for the last."""
    ends, end = [], 0
    for leaf in jax.tree.leaves(tree)[:-1]:
        end += leaf.size
        ends.append(end)
    return ends
