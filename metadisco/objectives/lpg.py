"""Learned Policy Gradient (arXiv:2007.08794) and its temporally-aware form (arXiv:2402.05828).

A recurrent network reads a rollout backward in time and says, for every step, how much to reinforce the action
(pi_hat) and what the agent's prediction vector should have been (y_hat). What the prediction means is for the
objective to discover.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.agents.networks import Heads
from metadisco.core.jax_defaults import own_defaults
from metadisco.core.lowrank import project
from metadisco.core.types import AgentParams, Key, MetaParams, Metrics, Outputs, Progress, Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives.base import Predictions
from metadisco.objectives.recurrent import read_backward

STEP_FEATURES = ("reward", "finished", "gamma", "prob", "embedded_y", "embedded_next_y")
LIFETIME_FEATURES = ("fraction_of_lifetime", "log_lifetime")
_REMEMBERED = 0.8  # of the scale of rewards, from one update to the next


@struct.dataclass
class LPGTargets:
    """Outputs of the network. Constant while the agent's loss is differentiated."""

    pi_hat: jax.Array  # [T, B] float32, reads as an advantage
    log_y_hat: jax.Array  # [T, B, m] float32, normalised


@struct.dataclass
class RewardScale:
    """Memory of an agent's rewards."""

    largest: jax.Array  # [] float32, |reward|, forgotten by a fifth per update; 0 until there is one


@own_defaults
@dataclass(frozen=True)
class LPG:
    """A learned policy gradient.

    Per step, x_t = [r_t, d_t, gamma, pi(a_t|s_t), e(y(s_t)), e(y(s_{t+1}))], plus [n/N, log N] with
    `lifetime_features` (TA-LPG). d_t is 1 where an episode ended; e is a shared MLP m -> 16 -> 1, and
    e(y(s_{t+1})) is 0 after termination. A GRU runs backward in time, its carry reset where an episode ended;
    ReLU; linear to pi_hat and to softmax y_hat.

    loss = mean_t[ -log pi(a_t|s_t) pi_hat_t + prediction_weight KL(y(s_t) || y_hat_t) ]

    Inputs and targets carry no gradient to the agent's parameters.

    As published, the rule sees rewards as they are, and what it makes of them depends on their scale. With
    `scale_rewards` r_t is divided by m = max(0.8 m, max |r| of the rollout), which the agent remembers (1 until there
    is a reward), so rewards times any constant give the same life. With `center_pi_hat` the mean of pi_hat over the
    rollout is subtracted: a constant changes nothing in expectation, but is noise to a table and a bias to a network.

    Attributes:
        width: units of the GRU.
        num_predictions: m, entries of the agent's categorical prediction vector.
        embedding_width: hidden units of e.
        gamma: the constant input; not used as a discount otherwise.
        prediction_weight: alpha_y.
        lifetime_features: append n/N and log N.
        scale_rewards: divide rewards by the largest of late.
        center_pi_hat: subtract the mean of pi_hat over steps and workers.

    Note:
        pi_hat has the paper's sign. The public code of arXiv:2310.02782 has the opposite one.

    Example:
        >>> import jax
        >>> meta_params = LPG(width=16).init(jax.random.key(0))
        >>> meta_params["gru"]["recurrent"].shape
        (16, 48)
    """

    width: int = 256
    num_predictions: int = 8
    embedding_width: int = 16
    gamma: float = 0.99
    prediction_weight: float = 0.5
    lifetime_features: bool = False
    scale_rewards: bool = False
    center_pi_hat: bool = False

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("num_predictions", 2), ("embedding_width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"LPG.{name} must be at least {least}, got {getattr(self, name)}")
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"LPG.gamma must be in [0, 1], got {self.gamma}")
        if not (self.prediction_weight >= 0.0 and math.isfinite(self.prediction_weight)):
            raise ValueError(
                f"LPG.prediction_weight must not be negative and must be finite, got {self.prediction_weight}"
            )

    @property
    def features(self) -> tuple[str, ...]:
        """Inputs of the network, in order."""
        return STEP_FEATURES + LIFETIME_FEATURES if self.lifetime_features else STEP_FEATURES

    def heads(self, spec: EnvSpec) -> Heads:
        """A policy and a prediction vector. Raises ValueError where actions are continuous."""
        if not isinstance(spec.action, Discrete):
            raise ValueError(
                f"LPG reads the probability of an action, so it needs discrete action spaces, got {spec.action}; use "
                "A2C or MirrorLearning"
            )
        return {"logits": spec.num_actions, "y": self.num_predictions}

    def init(self, key: Key) -> MetaParams:
        """Random weights: LeCun-normal inputs and heads, orthogonal recurrence, zero biases."""
        keys = jax.random.split(key, 5)
        normal = jax.nn.initializers.lecun_normal()
        orthogonal = jax.nn.initializers.orthogonal()
        square = (self.width, self.width)
        blocks = [orthogonal(block_key, square, jnp.float32) for block_key in jax.random.split(keys[0], 3)]
        return {
            "embedding": {
                "hidden": normal(keys[1], (self.num_predictions, self.embedding_width), jnp.float32),
                "hidden_bias": jnp.zeros(self.embedding_width),
                "out": normal(keys[2], (self.embedding_width, 1), jnp.float32),
                "out_bias": jnp.zeros(1),
            },
            "gru": {
                "input": normal(keys[3], (len(self.features), 3 * self.width), jnp.float32),
                "input_bias": jnp.zeros(3 * self.width),
                "recurrent": jnp.concatenate(blocks, axis=1),
                "recurrent_bias": jnp.zeros(self.width),
            },
            # First column pi_hat, then the logits of y_hat: one product for both.
            "out": normal(keys[4], (self.width, 1 + self.num_predictions), jnp.float32),
            "out_bias": jnp.zeros(1 + self.num_predictions),
        }

    def init_state(
        self, key: Key, agent: Agent, agent_params: AgentParams, num_workers: int
    ) -> RewardScale | tuple[()]:
        """No reward has been seen; () where rewards are not scaled."""
        del key, agent, agent_params, num_workers
        return RewardScale(jnp.zeros((), jnp.float32)) if self.scale_rewards else ()

    def targets(
        self,
        meta_params: MetaParams,
        state: RewardScale | tuple[()],
        predictions: Predictions,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[LPGTargets, RewardScale | tuple[()]]:
        """Run the network backward over the rollout."""
        predictions = jax.lax.stop_gradient(predictions)
        reward, finished = trajectory.reward, trajectory.finished
        if isinstance(state, RewardScale):
            state = RewardScale(jnp.maximum(_REMEMBERED * state.largest, jnp.max(jnp.abs(reward))))
            reward = reward / jnp.where(state.largest > 0.0, state.largest, 1.0)
        num_workers = reward.shape[1]
        prob = jnp.exp(distributions.log_prob_categorical(predictions.now["logits"], trajectory.action))
        y = jax.nn.softmax(jnp.concatenate([predictions.now["y"], predictions.next["y"]], axis=1))
        embedded = _embed(meta_params["embedding"], y)
        next_embedded = jnp.where(trajectory.terminated, 0.0, embedded[:, num_workers:])
        x = self._inputs(reward, finished, prob, embedded[:, :num_workers], next_embedded, progress)

        recurrent = {name: meta_params[name] for name in ("gru", "out", "out_bias")}
        outs = read_backward(recurrent, x, 1.0 - finished.astype(x.dtype))  # [T, B, 1 + m]
        pi_hat = outs[..., 0] - jnp.mean(outs[..., 0]) if self.center_pi_hat else outs[..., 0]
        return LPGTargets(pi_hat, jax.nn.log_softmax(outs[..., 1:])), state

    def loss(
        self,
        meta_params: MetaParams,
        targets: LPGTargets,
        outputs: Outputs,
        trajectory: Trajectory,
        progress: Progress,
    ) -> tuple[jax.Array, Metrics]:
        """The equation above, averaged over steps and workers."""
        del meta_params, progress
        log_prob = distributions.log_prob_categorical(outputs["logits"], trajectory.action)
        policy_loss = -jnp.mean(log_prob * targets.pi_hat)
        kl = jnp.mean(distributions.kl_categorical(jax.nn.log_softmax(outputs["y"]), targets.log_y_hat))
        metrics = {
            "entropy": jnp.mean(distributions.entropy_categorical(outputs["logits"])),
            "prediction_entropy": jnp.mean(distributions.entropy_categorical(outputs["y"])),
            "prediction_kl": kl,
            "pi_hat": jnp.mean(targets.pi_hat),
            "pi_hat_scale": jnp.sqrt(jnp.mean(jnp.square(targets.pi_hat))),
        }
        return policy_loss + self.prediction_weight * kl, metrics

    def regularizers(self, targets: LPGTargets, outputs: Outputs) -> dict[str, jax.Array]:
        """Entropy of y, mean pi_hat^2 and mean |y_hat|^2; see `metadisco.objectives.base.Regularized`."""
        return {
            "prediction_entropy": jnp.mean(distributions.entropy_categorical(outputs["y"])),
            "squared_pi_hat": jnp.mean(jnp.square(targets.pi_hat)),
            "squared_y_hat": jnp.mean(jnp.sum(jnp.exp(2.0 * targets.log_y_hat), axis=-1)),
        }

    def _inputs(
        self,
        reward: jax.Array,
        finished: jax.Array,
        prob: jax.Array,
        embedded: jax.Array,
        next_embedded: jax.Array,
        progress: Progress,
    ) -> jax.Array:
        """x_t of all steps. [T, B] each to [T, B, len(features)]."""
        columns = [reward, finished.astype(jnp.float32), jnp.full_like(reward, self.gamma), prob]
        columns += [embedded, next_embedded]
        if self.lifetime_features:
            columns += [jnp.full_like(reward, progress.fraction), jnp.full_like(reward, progress.log_lifetime)]
        return jnp.stack(columns, axis=-1)


def _embed(weights: MetaParams, y: jax.Array) -> jax.Array:
    """e(y). [T, B, m] -> [T, B]."""
    hidden = jax.nn.relu(project(weights["hidden"], y) + weights["hidden_bias"])
    return (project(weights["out"], hidden) + weights["out_bias"])[..., 0]
