"""Made-up experience, and what any objective says to it.

What an objective tells the policy is read off its loss, so hand-written and discovered ones answer the same question:
the push on step t is the derivative of -T B loss along the score of the action taken,

    push_t = -T B <dL/dlogits_t, e_a - pi> / |e_a - pi|^2,

which is the advantage A_t of a policy gradient, pi_hat of LPG, and r (A - dD/dr) of mirror learning, each with what an
entropy bonus adds. Every input is drawn independently of the others, so their effects can be told apart.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.agents.networks import Constant
from metadisco.core.devices import QUICK_COMPILATION
from metadisco.core.types import Heads, MetaParams, Outputs, Progress, Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives.base import Objective, Predictions

NUM_STEPS, NUM_WORKERS, NUM_ACTIONS, NUM_PROBES = 8, 4, 4, 128
SPEC = EnvSpec(Discrete(2), Discrete(NUM_ACTIONS))
LIFETIMES = (16, 64, 256)  # agent updates; probes have these and those between
INPUTS = {
    "reward": "rewards",
    "chance": "where episodes end",
    "logits": "probability of the action taken",
    "change": "change of the policy since it acted",
    "now": "the agent's predictions",
    "next": "its predictions at the next step",
    "fraction": "n/N, how much of the life is over",
    "lifetime": "N, how long it is",
}


@struct.dataclass
class Probe:
    """A rollout of T steps by B workers and the agent's outputs, as independent draws. Leading axis of many: P."""

    reward: jax.Array  # [T, B] float32
    chance: jax.Array  # [T, B] float32 in [0, 1): below 0.08 terminated, above 0.92 truncated
    logits: tuple[jax.Array, jax.Array]  # [T, B, A] float32 when it acted; [T, B] int32, the action
    change: jax.Array  # [T, B, A] float32, what the logits have become more than that
    now: Outputs  # [T, B, width] by head, without the policy
    next: Outputs  # the same at the next step
    fraction: jax.Array  # [] float32, n / N
    lifetime: jax.Array  # [] int32, N


@struct.dataclass
class Response:
    """What an objective says to a probe."""

    push: jax.Array  # [T, B] float32, on the action taken
    pull: Outputs  # [T, B, width] by head, -T B dL/doutput: where predictions are pulled
    entropy: jax.Array  # [T, B] float32, nats of entropy gained for a step of unit size on the logits
    targets: Any  # of the objective


def heads_of(objective: Objective) -> Heads | None:
    """The outputs that it asks for of an agent with four actions; None where it needs other spaces."""
    try:
        return objective.heads(SPEC)
    except ValueError:
        return None


def draw(seed: int, heads: Heads, num: int = NUM_PROBES) -> Probe:
    """Probes, leading axis `num`. They are arrays of NumPy, which has nothing to compile."""
    rng, shape = np.random.default_rng(seed), (num, NUM_STEPS, NUM_WORKERS)
    others = [head for head in heads if head != "logits"]

    def normal(*axes: int) -> Any:
        return rng.normal(size=(*shape, *axes)).astype(np.float32)

    def uniform(*axes: int) -> Any:
        return rng.uniform(size=axes).astype(np.float32)

    logits = normal(NUM_ACTIONS)
    action = np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)
    lifetime: Any = np.exp(rng.uniform(np.log(LIFETIMES[0]), np.log(LIFETIMES[-1]), size=num))
    return Probe(
        reward=normal(),
        chance=uniform(*shape),
        logits=(logits, action.astype(np.int32)),
        change=np.float32(0.2) * normal(NUM_ACTIONS),
        now={head: normal(heads[head]) for head in others},
        next={head: normal(heads[head]) for head in others},
        fraction=uniform(num),
        lifetime=np.round(lifetime).astype(np.int32),
    )


def respond(objective: Objective, meta_params: MetaParams, probe: Probe) -> Response:
    """What an objective says to one probe; one that remembers, of an agent that is new.

    The outputs are made up, so the agent behind them has none of its own: a target network says 0 everywhere.
    """
    logits, action = probe.logits
    index = jnp.zeros_like(action)
    terminated, truncated = probe.chance < 0.08, probe.chance > 0.92
    log_prob = distributions.log_prob_categorical(logits, action)
    trajectory = Trajectory(index, action, log_prob, probe.reward, terminated, truncated, index)
    agent = Agent(Constant(), SPEC, tuple(objective.heads(SPEC).items()))
    key = jax.random.key(0)
    agent_params = agent.init(key)
    state = objective.init_state(key, agent, agent_params, NUM_WORKERS)
    after = probe.next | {"logits": jnp.zeros_like(logits)}
    predictions = Predictions(probe.now | {"logits": logits}, after, agent_params, agent)
    num_updates = jnp.floor(probe.fraction * probe.lifetime.astype(jnp.float32)).astype(jnp.int32)
    progress = Progress(num_updates, probe.lifetime)
    targets, _ = objective.targets(meta_params, state, predictions, trajectory, progress)
    outputs = probe.now | {"logits": logits + probe.change}
    slopes = jax.grad(lambda outputs: objective.loss(meta_params, targets, outputs, trajectory, progress)[0])(outputs)
    pull = jax.tree.map(lambda slope: -slope * action.size, slopes)

    score = jax.nn.one_hot(action, NUM_ACTIONS) - jax.nn.softmax(outputs["logits"])
    to_policy = pull.pop("logits")
    push = jnp.sum(to_policy * score, axis=-1) / jnp.maximum(jnp.sum(jnp.square(score), axis=-1), 1e-6)
    uphill = jax.grad(lambda logits: jnp.sum(distributions.entropy_categorical(logits)))(outputs["logits"])
    return Response(push, pull, jnp.sum(uphill * to_policy, axis=-1), targets)


class Responder:
    """Asks one objective, with one compilation for probes of one number."""

    def __init__(self, objective: Objective, meta_params: MetaParams) -> None:
        """Of an objective with its meta-parameters."""
        self._ask = jax.jit(
            jax.vmap(lambda probe: respond(objective, meta_params, probe)), compiler_options=QUICK_COMPILATION
        )

    def __call__(self, probes: Probe) -> Response:
        """Responses, leading axis as that of the probes, on the host."""
        return jax.device_get(self._ask(probes))
