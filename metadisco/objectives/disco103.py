"""Disco103: the update rule that was discovered in doi:10.1038/s41586-025-09761-x, and rules of the same form.

An agent has a policy pi, a prediction y of each observation, and of each action a prediction z, a value q and the next
policy. What y and z mean is up to the rule: a meta-network (`metadisco.objectives.disco_network`) says what pi, y and z
should have been along a rollout, and the agent moves towards that. q and the next policy have hand-written targets.

The published weights are read by `metadisco.load_disco103`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.agents.distributions import kl_categorical
from metadisco.core import returns, value_bins
from metadisco.core.config import check_counts, check_positive
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.lstm import LSTMState
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives import disco_network
from metadisco.objectives.base import Predictions, predict
from metadisco.objectives.disco_network import ACTION_INPUTS, INPUTS, Experience, of_action


@struct.dataclass
class Moments:
    """Running mean and mean square, both with a bias towards 0 that `weight` undoes. [] float32 each."""

    mean: jax.Array
    square: jax.Array
    weight: jax.Array  # of all that was seen, 1 - decay^updates


@struct.dataclass
class DiscoState:
    """What the rule remembers of one agent."""

    memory: LSTMState  # h and c, [memory_width] float32 each
    advantage: Moments
    target_params: AgentParams  # which follow the agent's


@struct.dataclass
class DiscoTargets:
    """Constants of the loss."""

    pi_hat: jax.Array  # [T, B, A] float32, logits
    y_hat: jax.Array  # [T, B, m] float32, logits
    z_hat: jax.Array  # [T, B, m] float32, logits, of the action that was taken
    q: jax.Array  # [T, B] float32, corrected returns, of the action that was taken
    next_logits: jax.Array  # [T, B, A] float32, the policy at the observation that the step led to


@struct.dataclass
class Values:
    """Values along a rollout, by the target network but for `online`."""

    online: jax.Array  # [T, B] float32, V(s_t) of the agent
    next_online: jax.Array  # [T, B] float32
    q: jax.Array  # [T, B, A] float32
    value: jax.Array  # [T, B] float32, V(s_t)
    returned: jax.Array  # [T, B] float32, corrected returns


@own_defaults
@dataclass(frozen=True)
class Disco103:
    """A learned rule with targets for the policy and for predictions that have no meaning of their own.

    loss = mean_t[ KL(pi_hat || pi) + KL(y_hat || y) + KL(z_hat || z(a_t)) + KL(pi(s'_t) || aux(a_t))
                   + value_weight CE(two_hot(G_t), q(a_t)) ]

    aux is the agent's guess of its next policy, left out where the episode terminated, and G_t are Retrace returns.

    Attributes:
        prediction_size: m, entries of y and z.
        num_value_bins: bins of q.
        max_squashed_value: the outermost bins are at plus and minus this, on the scale of `value_bins.squash`.
        width: units of the LSTM that reads a rollout.
        memory_width: units of the LSTM that lasts an agent's life.
        gamma: discount, in [0, 1].
        trace: lambda of the returns, in [0, 1].
        target_decay: share of the target network that an update keeps, in [0, 1].
        moment_decay: share of the moments of advantages that an update keeps, in [0, 1).
        value_weight: weight of the value's loss.

    Example:
        >>> from metadisco.envs.base import Box, Discrete, EnvSpec
        >>> Disco103().heads(EnvSpec(Box((4,)), Discrete(2)))
        {'logits': 2, 'y': 600, 'z': 1200, 'q': 1202, 'aux_logits': 4}
    """

    prediction_size: int = 600
    num_value_bins: int = 601
    max_squashed_value: float = 300.0
    width: int = 256
    memory_width: int = 128
    gamma: float = 0.997
    trace: float = 0.95
    target_decay: float = 0.9
    moment_decay: float = 0.99
    value_weight: float = 0.2

    def __post_init__(self) -> None:
        check_counts(self, "prediction_size", "num_value_bins", "width", "memory_width")
        check_positive(self, "max_squashed_value", "value_weight")
        if self.num_value_bins < 2:
            raise ValueError(f"Disco103.num_value_bins must be at least 2, got {self.num_value_bins}")
        for name in ("gamma", "trace", "target_decay"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"Disco103.{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0.0 <= self.moment_decay < 1.0:
            raise ValueError(f"Disco103.moment_decay must be in [0, 1), got {self.moment_decay}")

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the meta-network, those of each action after those of each step, in order."""
        return (*INPUTS, *(f"of_each_action_{name}" for name in ACTION_INPUTS))

    def heads(self, spec: EnvSpec) -> Heads:
        """The policy, y, and of each action z, q and the next policy, action by action.

        Raises ValueError where actions are continuous.
        """
        if not isinstance(spec.action, Discrete):
            raise ValueError(
                f"Disco103 has a prediction and a value of each action, so actions must be finitely many, got "
                f"{spec.action}; use A2C or MirrorLearning"
            )
        num = spec.num_actions
        return {
            "logits": num,
            "y": self.prediction_size,
            "z": num * self.prediction_size,
            "q": num * self.num_value_bins,
            "aux_logits": num * num,
        }

    def init(self, key: Key) -> MetaParams:
        """Random weights of the meta-network; the published ones are read by `metadisco.load_disco103`."""
        return disco_network.init(key, self.prediction_size, self.width, self.memory_width)

    def init_state(self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int) -> DiscoState:
        """An empty memory, no moments, and the agent itself as its target network.

        Raises ValueError where the agent lacks a head.
        """
        del key, num_workers
        wanted, there = self.heads(agent.spec), dict(agent.heads)
        missing = {name: width for name, width in wanted.items() if there.get(name) != width}
        if missing:
            raise ValueError(
                f"Disco103 needs an agent with the heads {missing}, and this one has {there}; build it as "
                "InnerLoop does, Agent(torso, spec, tuple(objective.heads(spec).items()))"
            )
        zero, memory = jnp.zeros((), jnp.float32), jnp.zeros(self.memory_width, jnp.float32)
        return DiscoState((memory, memory), Moments(zero, zero, zero), agent_params)

    def targets(
        self,
        meta_params: MetaParams,
        state: DiscoState,
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[DiscoTargets, DiscoState]:
        """What the meta-network says of a rollout, and the returns of its actions.

        No gradient passes through probabilities of actions, values and returns; it does through y and z.
        """
        del progress
        if predictions.agent is None:
            raise ValueError("Disco103 has a target network: give Predictions the agent, as `predict` does")
        target = predict(predictions.agent, state.target_params, trajectory)
        values = jax.lax.stop_gradient(self._values(predictions, target, trajectory))
        moments = _observe(state.advantage, values.returned - values.value, self.moment_decay)
        experience = self._experience(predictions, target, values, moments, trajectory)
        (pi_hat, y_hat, z_hat), memory = disco_network.apply(meta_params, experience, state.memory)
        keep = self.target_decay
        follow = partial(jax.tree.map, lambda old, new: keep * old + (1.0 - keep) * new)
        targets = DiscoTargets(pi_hat, y_hat, z_hat, values.returned, jax.lax.stop_gradient(predictions.next["logits"]))
        return targets, DiscoState(memory, moments, follow(state.target_params, predictions.agent_params))

    def loss(
        self,
        meta_params: MetaParams,
        targets: DiscoTargets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """The equation above, averaged over steps and workers."""
        del meta_params, progress
        mean = {name: jnp.mean(term) for name, term in self.loss_terms(targets, outputs, trajectory).items()}
        loss = mean["policy"] + mean["y"] + mean["z"] + mean["aux"] + self.value_weight * mean["value"]
        entropy = jnp.mean(distributions.entropy_categorical(outputs["logits"]))
        return loss, {f"{name}_loss": each for name, each in mean.items()} | {"entropy": entropy}

    def loss_terms(self, targets: DiscoTargets, outputs: Outputs, trajectory: Trajectory) -> dict[str, jax.Array]:
        """Terms of the loss by name, not yet weighted: [T, B] float32 each."""
        num_actions = outputs["logits"].shape[-1]
        z, q, aux = (
            of_action(_by_action(outputs[name], num_actions), trajectory.action) for name in ("z", "q", "aux_logits")
        )
        goal = value_bins.two_hot(targets.q, self.num_value_bins, self.max_squashed_value)
        return {
            "policy": _divergence(targets.pi_hat, outputs["logits"]),
            "y": _divergence(targets.y_hat, outputs["y"]),
            "z": _divergence(targets.z_hat, z),
            "aux": jnp.where(trajectory.terminated, 0.0, _divergence(targets.next_logits, aux)),
            "value": -jnp.sum(goal * jax.nn.log_softmax(q), axis=-1),
        }

    def _values(self, predictions: Predictions, target: Predictions, trajectory: Trajectory) -> Values:
        """Values and corrected returns. Expectations are over the agent's policy, for the target network, too."""
        policy, next_policy = (jax.nn.softmax(each["logits"]) for each in (predictions.now, predictions.next))
        num_actions = policy.shape[-1]

        def q_of(outputs: Outputs) -> jax.Array:
            return value_bins.expected_value(_by_action(outputs["q"], num_actions), self.max_squashed_value)

        q, next_q = q_of(target.now), q_of(target.next)
        online, next_online = q_of(predictions.now), q_of(predictions.next)
        behavior = predictions.now if predictions.behavior is None else predictions.behavior
        log_prob, behavior_log_prob = (
            distributions.log_prob_categorical(each["logits"], trajectory.action)
            for each in (predictions.now, behavior)
        )
        trace = self.trace * jnp.minimum(jnp.exp(log_prob - behavior_log_prob), 1.0)
        trace = jnp.concatenate([trace[1:], jnp.zeros_like(trace[:1])])
        returned = jax.vmap(returns.retrace, in_axes=1, out_axes=1)(
            trajectory.reward,
            self.gamma * (1.0 - trajectory.terminated.astype(jnp.float32)),
            jnp.where(trajectory.finished, 0.0, trace),
            of_action(q, trajectory.action),
            jnp.sum(next_policy * next_q, axis=-1),
        )
        return Values(
            online=jnp.sum(policy * online, axis=-1),
            next_online=jnp.sum(next_policy * next_online, axis=-1),
            q=q,
            value=jnp.sum(policy * q, axis=-1),
            returned=returned,
        )

    def _experience(
        self,
        predictions: Predictions,
        target: Predictions,
        values: Values,
        moments: Moments,
        trajectory: Trajectory,
    ) -> Experience:
        """Inputs of the meta-network, in its order."""
        behavior = predictions.now if predictions.behavior is None else predictions.behavior
        now, after, of_behavior, of_target = (
            jax.lax.stop_gradient(jax.nn.softmax(each["logits"]))
            for each in (predictions.now, predictions.next, behavior, target.now)
        )
        policies = (now, of_behavior, of_target)
        pi, mu, target_pi = (of_action(each, trajectory.action) for each in policies)
        advantage, q_advantage = values.returned - values.value, values.q - values.value[..., None]
        steps = (
            *(pi, mu, _log(trajectory.reward), 1.0 - trajectory.terminated.astype(jnp.float32)),
            *(_log(values.online), _log(values.next_online)),
            *(_log(advantage), _normalize(moments, advantage), target_pi),
        )
        actions = (*policies, _log(values.q), _log(q_advantage), _normalize(moments, q_advantage))
        each_outputs = (predictions.now, predictions.next, target.now, target.next)
        return Experience(
            steps=jnp.stack(steps, axis=-1),
            actions=jnp.stack(actions, axis=-1),
            action=trajectory.action,
            goes_on=1.0 - trajectory.finished.astype(jnp.float32),
            policy=now,
            next_policy=after,
            y=tuple(jax.nn.softmax(each["y"]) for each in each_outputs),
            z=tuple(jax.nn.softmax(_by_action(each["z"], now.shape[-1])) for each in each_outputs),
        )


def _by_action(output: jax.Array, num_actions: int) -> jax.Array:
    """[..., A * width] to [..., A, width]."""
    return output.reshape(*output.shape[:-1], num_actions, -1)


def _divergence(wanted: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(wanted || what there is), both as logits [..., A]. [...] float32."""
    return kl_categorical(jax.nn.log_softmax(wanted), jax.nn.log_softmax(logits))


def _log(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|), which keeps numbers of any size in range."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def _observe(moments: Moments, x: jax.Array, decay: float) -> Moments:
    """The moments after another rollout [T, B]."""
    seen = Moments(jnp.mean(x), jnp.mean(jnp.square(x)), jnp.ones((), jnp.float32))
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, moments, seen)


def _normalize(moments: Moments, x: jax.Array) -> jax.Array:
    """(x - mean) / standard deviation, by the running moments."""
    mean = moments.mean / moments.weight
    variance = jnp.maximum(moments.square / moments.weight - jnp.square(mean), 0.0)
    return (x - mean) / (jnp.sqrt(variance + 1e-12) + 1e-6)
