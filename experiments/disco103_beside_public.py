"""Does Disco103 here learn as in its public harness, and how fast? Catch, both in one run.

    python -m experiments.disco103_beside_public --public CHECKOUT --weights disco_103.npz --out disco103.json

CHECKOUT is one of github.com/google-deepmind/disco_rl, with what it depends on installed. Settings are those of its
notebook: Catch of 8 x 8 cells, two workers, a replay buffer of 1024 rollouts of which 64 are learned from at a time,
rate 0.01. Workers and buffer are the same code for both; each side has its own agent, rule and optimizer.

What differs: the public agent leaves the first step of every episode out of its loss, but for a worker's first one.
Before that, both begin with the same parameters and learn from the same batches, ours with those steps left out, too:
how far their policies are apart says whether the two are the same learner.
"""

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metadisco.agents.action_model import ActionModel
from metadisco.agents.agent import Agent
from metadisco.agents.optimizers import DiscoAdam
from metadisco.checkpoints.disco103 import load_disco103
from metadisco.core.provenance import provenance
from metadisco.core.types import Progress, Trajectory
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.objectives.base import predict

SIDE, RATE = 8, 1e-2
NUM_WORKERS, NUM_STEPS, CAPACITY, BATCH = 2, 29, 1024, 64
NUM_TURNS = 15  # of timing


@dataclass(frozen=True)
class Side:
    """One implementation: how an agent begins, what its policy's logits are, and how it learns from a batch."""

    begin: Callable[[jax.Array], Any]
    logits: Callable[[Any, jax.Array], jax.Array]  # of observations [rows, 8, 8, 1]
    learn: Callable[[Any, dict[str, jax.Array]], Any]  # from arrays [NUM_STEPS, BATCH, ...]


def import_public(checkout: str) -> None:
    """Let it be imported, and compiled: what is traced is no `chex.Array` on Python 3.11, and it asks for one."""
    sys.path.insert(0, checkout)
    chex.Array = jax.Array


def public_side(weights: str, widths: tuple[int, ...], model_width: int) -> Side:
    """The public agent with its optimizer."""
    from disco_rl import agent as agents
    from disco_rl import types
    from disco_rl.environments import jittable_envs

    env = jittable_envs.CatchJittableEnvironment(1, jittable_envs.get_config_catch())
    settings = agents.get_settings_disco()
    settings.learning_rate = RATE
    settings.net_settings.net_args = {
        "dense": widths,
        "model_arch_name": "lstm",
        "head_w_init_std": 1e-2,
        "model_kwargs": {"head_mlp_hiddens": (model_width,), "lstm_size": model_width},
    }
    agent = agents.Agent(
        agent_settings=settings,
        single_observation_spec=env.single_observation_spec(),
        single_action_spec=env.single_action_spec(),
        batch_axis_name=None,
    )
    empty, rule_params = agent.initial_actor_state(jax.random.PRNGKey(0)), {}
    for name, array in np.load(weights).items():
        module, _, last = name.rpartition("/")
        rule_params.setdefault(module, {})[last] = jnp.asarray(array)

    def logits(state: Any, obs: jax.Array) -> jax.Array:
        return agent._network.one_step(state.params, empty, {"observation": obs}, None)[0]["logits"]

    def learn(state: Any, batch: dict[str, jax.Array]) -> Any:
        rollout = types.ActorRollout(
            observations={"observation": batch["obs"]},
            actions=batch["action"],
            rewards=batch["reward"],
            discounts=1.0 - batch["is_first"],
            agent_outs={"logits": batch["logits"]},
            states={},
            logits=batch["logits"],
        )
        key = jax.random.PRNGKey(0)  # not used
        return agent.learner_step(key, rollout, state, empty, rule_params, False)[0]

    return Side(jax.jit(agent.initial_learner_state), logits, jax.jit(learn))


def our_side(weights: str, widths: tuple[int, ...], model_width: int, *, masked: bool = False) -> Side:
    """Our agent, which learns from the steps between the observations of a rollout; `masked` as the public one."""
    discovered = load_disco103(weights)
    objective, spec = discovered.objective, EnvSpec(Box((SIDE, SIDE, 1), 0.0, 1.0), Discrete(3))
    agent = Agent(ActionModel(widths, model_width, model_width), spec, tuple(objective.heads(spec).items()))
    optimizer, progress = DiscoAdam(RATE).transformation(), Progress(jnp.int32(0), jnp.int32(1))

    def begin(key: jax.Array) -> Any:
        agent_params = agent.init(key)
        return agent_params, optimizer.init(agent_params), objective.init_state(key, agent, agent_params, BATCH)

    def learn(state: Any, batch: dict[str, jax.Array]) -> Any:
        agent_params, opt_state, objective_state = state
        now, after = ({name: array[part] for name, array in batch.items()} for part in (np.s_[:-1], np.s_[1:]))
        trajectory = Trajectory(
            obs=now["obs"],
            action=now["action"],
            log_prob=jnp.zeros_like(now["reward"]),
            reward=after["reward"],
            terminated=after["is_first"] > 0,
            truncated=jnp.zeros_like(now["is_first"], bool),
            next_obs=after["obs"],
        )
        predictions = predict(agent, agent_params, trajectory).replace(behavior={"logits": now["logits"]})
        meta_params = discovered.meta_params
        targets, objective_state = objective.targets(meta_params, objective_state, predictions, trajectory, progress)

        def loss(agent_params: Any) -> jax.Array:
            outputs = agent.apply(agent_params, trajectory.obs)
            if not masked:
                return objective.loss(meta_params, targets, outputs, trajectory, progress)[0]
            terms = objective.loss_terms(targets, outputs, trajectory)
            terms["value"] = objective.value_weight * terms["value"]
            is_kept = 1.0 - now["is_first"]
            return jnp.sum(sum(terms.values()) * is_kept) / jnp.sum(is_kept)

        step, opt_state = optimizer.update(jax.grad(loss)(agent_params), opt_state)
        return optax.apply_updates(agent_params, step), opt_state, objective_state

    def logits(state: Any, obs: jax.Array) -> jax.Array:
        return agent.apply(state[0], obs)["logits"]

    return Side(jax.jit(begin), logits, jax.jit(learn))


def as_ours(params: Any) -> Any:
    """Parameters of the public agent as ours has them."""

    def layer(name: str) -> dict[str, jax.Array]:
        return {"kernel": params[f"mlp/{name}"]["w"], "bias": params[f"mlp/{name}"]["b"]}

    def pair(name: str) -> dict[str, Any]:
        return {"hidden": layer(f"{name}/~/linear_0"), "out": layer(f"{name}/~/linear_1")}

    torso = [name.removeprefix("mlp/") for name in params if "/torso/" in name]
    return {
        "torso": [layer(name) for name in sorted(torso)],
        "root": layer("linear"),
        "model": layer("action_cond/linear"),
        "logits": layer("~_head_pass/torso_head/~/linear_0"),
        "y": layer("~_head_pass/torso_head_1/~/linear_0"),
        "z": pair("mlp"),
        "aux_logits": pair("mlp_1"),
        "q": pair("mlp_2"),
    }


def distances(public: Side, ours: Side, num_updates: int = 20) -> dict[str, list[float]]:
    """Largest differences of log probabilities after each update on the same batches, and how far they have moved."""
    theirs = public.begin(jax.random.PRNGKey(0))
    _, opt_state, objective_state = ours.begin(jax.random.PRNGKey(0))
    agent_params = as_ours(theirs.params)
    zeros = jax.tree.map(jnp.zeros_like, (agent_params, agent_params))
    opt_state = (opt_state[0]._replace(mu=zeros[0], nu=zeros[1]), *opt_state[1:])
    mine = agent_params, opt_state, objective_state.replace(target_params=agent_params)
    obs = drawn_batch(0)["obs"].reshape(-1, SIDE, SIDE, 1)
    policies = [
        jax.jit(lambda state, side=side: jax.nn.log_softmax(side.logits(state, obs))) for side in (public, ours)
    ]
    first, found = policies[0](theirs), {"difference": [], "moved": []}
    for i in range(num_updates):
        batch = drawn_batch(i)
        theirs, mine = public.learn(theirs, batch), ours.learn(mine, batch)
        one, other = policies[0](theirs), policies[1](mine)
        found["difference"].append(float(jnp.max(jnp.abs(one - other))))
        found["moved"].append(float(jnp.max(jnp.abs(one - first))))
    return found


def worker_of(side: Side) -> Callable[..., Any]:
    """A compiled rollout of Catch by a side's policy, and the returns of the episodes that ended."""
    from disco_rl.environments import jittable_envs

    env = jittable_envs.CatchJittableEnvironment(NUM_WORKERS, jittable_envs.get_config_catch())

    def act(state: Any, at: Any, key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> Any:
            env_state, now, so_far = carry
            is_first = (now.step_type == 2).astype(jnp.float32)  # an episode ended with the step that led here
            obs = now.observation
            so_far = so_far + now.reward
            logits = side.logits(state, obs)
            action = jax.random.categorical(key, logits)
            seen = {"obs": obs, "action": action, "reward": now.reward, "is_first": is_first, "logits": logits}
            env_state, after = env.step(env_state, action)
            return (env_state, after, so_far * (1.0 - is_first)), (seen, so_far * is_first)

        at, (rollout, returned) = jax.lax.scan(step, at, jax.random.split(key, NUM_STEPS))
        return at, rollout, jnp.sum(returned), jnp.sum(rollout["is_first"])

    return jax.jit(lambda key: (*env.reset(key), jnp.zeros(NUM_WORKERS))), jax.jit(act)


def learn(side: Side, workers: Any, seed: int, num_updates: int) -> list[tuple[int, float, float]]:
    """Environment steps, and the sum and number of returns of the episodes that ended, rollout by rollout."""
    reset, act = workers
    agent_key, env_key, act_key = jax.random.split(jax.random.PRNGKey(seed), 3)
    state, at = side.begin(agent_key), reset(env_key)
    buffer: deque = deque(maxlen=CAPACITY)
    rng, found, num_learned, num_rollouts = np.random.default_rng(seed), [], 0, 0
    while num_learned < num_updates:
        at, rollout, returned, ended = act(state, at, jax.random.fold_in(act_key, num_rollouts))
        rollout, num_rollouts = jax.device_get(rollout), num_rollouts + 1
        buffer.extend({name: array[:, i] for name, array in rollout.items()} for i in range(NUM_WORKERS))
        found.append((num_rollouts * NUM_WORKERS * NUM_STEPS, float(returned), float(ended)))
        if len(buffer) >= BATCH:
            chosen = [buffer[i] for i in rng.integers(len(buffer), size=BATCH)]
            state = side.learn(state, {name: np.stack([each[name] for each in chosen], axis=1) for name in chosen[0]})
            num_learned += 1
    return found


def curve(found: list[tuple[int, float, float]], num_points: int = 20) -> dict[str, list[float]]:
    """Mean return of the episodes of each part of a run."""
    parts = np.array_split(np.array(found), num_points)
    return {
        "env_steps": [float(part[-1, 0]) for part in parts],
        "mean_return": [round(float(part[:, 1].sum() / max(part[:, 2].sum(), 1.0)), 4) for part in parts],
    }


def drawn_batch(seed: int) -> dict[str, np.ndarray]:
    """A batch of random numbers."""
    rng, shape = np.random.default_rng(seed), (NUM_STEPS, BATCH)
    return {
        "obs": (rng.random((*shape, SIDE, SIDE, 1)) < 0.03).astype(np.float32),
        "action": rng.integers(3, size=shape).astype(np.int32),
        "reward": rng.choice([-1.0, 0.0, 1.0], size=shape).astype(np.float32),
        "is_first": (rng.random(shape) < 1 / 7).astype(np.float32),
        "logits": rng.normal(size=(*shape, 3)).astype(np.float32),
    }


def seconds(sides: dict[str, Side]) -> dict[str, list[float]]:
    """Time of an update on the same batch, in turns."""
    batch = drawn_batch(0)
    states = {
        name: jax.block_until_ready(side.learn(side.begin(jax.random.PRNGKey(0)), batch))
        for name, side in sides.items()
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(NUM_TURNS):
        for name, side in sides.items():
            begun = time.perf_counter()
            states[name] = jax.block_until_ready(side.learn(states[name], batch))
            found[name].append(time.perf_counter() - begun)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--public", required=True, help="checkout of disco_rl")
    parser.add_argument("--weights", required=True, help="disco_103.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 512], help="dense layers of both agents")
    parser.add_argument("--model-width", type=int, default=128, help="units of the action model and of its heads")
    parser.add_argument("--out", help="write the results to this file")
    known = parser.parse_args()
    import_public(known.public)
    make = {"public": public_side, "ours": our_side}
    sizes = known.weights, tuple(known.widths), known.model_width
    sides = {name: side(*sizes) for name, side in make.items()}
    apart = distances(sides["public"], our_side(*sizes, masked=True))
    print(
        f"log probabilities differ by {apart['difference'][-1]:.2g}, and have moved by {apart['moved'][-1]:.2g}",
        flush=True,
    )
    times = seconds(sides)
    ratio = np.median(np.array(times["ours"]) / np.array(times["public"]))
    medians = {name: round(float(np.median(each)), 4) for name, each in times.items()}
    print(f"seconds: {medians}, ours / public {ratio:.3f}", flush=True)
    settings = {"updates": known.updates, "widths": known.widths, "model_width": known.model_width}
    document: dict[str, Any] = {"seconds": times, "ratio": float(ratio), "settings": settings, "apart": apart}
    document |= {"curves": {name: [] for name in sides}, "provenance": provenance()}
    workers = {name: worker_of(side) for name, side in sides.items()}
    for seed in range(known.seeds + 1):
        if known.out:  # what is there can be looked at while the next seed runs
            Path(known.out).write_text(json.dumps(document, indent=1) + "\n")
        for name, side in sides.items() if seed < known.seeds else ():
            document["curves"][name].append(curve(learn(side, workers[name], seed, known.updates)))
            print(name, seed, document["curves"][name][-1]["mean_return"], flush=True)


if __name__ == "__main__":
    main()
