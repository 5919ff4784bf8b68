"""The contract of objectives: what learners, meta-optimizers and checkpoints rely on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.agents import distributions
from metadisco.agents.agent import Agent
from metadisco.agents.learned_optimizer import LearningStep
from metadisco.agents.networks import Constant
from metadisco.agents.optimizers import OptState
from metadisco.core.files import is_key, named_leaves
from metadisco.core.types import AgentParams, Heads, Key, MetaParams, Outputs, Progress, Trajectory
from metadisco.envs.base import Discrete, EnvSpec
from metadisco.objectives.base import HasOptimizer, Objective, ObjectiveState, Predictions, Regularized
from metadisco.objectives.state import check_state
from metadisco.testing import contract
from metadisco.testing.contract import Counted, demand

SPEC = EnvSpec(Discrete(6), Discrete(3))
NUM_STEPS, NUM_WORKERS, NUM_EXAMPLES = 5, 3, 2
REGULARIZERS = {"prediction_entropy", "squared_pi_hat", "squared_y_hat"}


def check_objective(objective: Objective, spec: EnvSpec = SPEC) -> None:
    """Check an objective against the contract of `metadisco.objectives.base.Objective`.

    It is a hashable component that survives JSON; it asks for the heads of the action distribution; `init` draws finite
    arrays from its key; `targets` keep the axes [T, B], so that they can be dealt into minibatches; `loss` is a finite
    scalar with finite derivatives, also where nothing was rewarded, where every step ended an episode and at either end
    of a life; what is computed for a population under `jit` and `vmap` is what plain calls give; equal instances share
    a compilation; every head has a gradient, and every meta-parameter has an effect.

    Its state keeps its structure, shapes and dtypes, is deterministic in key and agent, stays finite, and has an effect
    on learning.

    Args:
        objective: the learning rule.
        spec: spaces of the agent to try it on; give another one where the objective does not fit this one.

    Raises:
        AssertionError: what is broken, and how to repair it.

    Example:
        >>> from metadisco.objectives.actor_critic import A2C
        >>> check_objective(A2C())
    """
    twin = contract.check_component(objective)
    name = type(objective).__name__
    heads = _check_heads(name, objective, spec)
    population = _check_init(name, objective)
    agent = Agent(Constant(), spec, tuple(heads.items()))
    experiences = contract.stack_of(lambda key: _experience(key, agent), NUM_EXAMPLES)
    progress = Progress(jnp.array([3, 0], jnp.int32), jnp.array([20, 1], jnp.int32))
    states = _check_init_state(name, objective, agent, experiences)
    _check_shapes(name, objective, population, states, experiences, progress)

    update = Counted(jax.vmap(_update, in_axes=(None, 0, 0, 0, 0)))
    result = update(objective, population, states, experiences, progress)
    contract.check_metrics(name, contract.first_of(result["metrics"]))
    _check_told(name, objective, result, population, states, experiences, progress)
    if jax.tree.leaves(states):
        _check_states(name, objective, population, update, (experiences, progress), result)
    update(twin, population, states, experiences, progress)
    demand(update.traces == 1, f"two equal {name} are compiled twice: leave __eq__ and __hash__ to the dataclass")

    for head, slope in result["gradient"].items():
        demand(
            np.any(np.asarray(slope)),
            f"the head {head!r} of {name} has no derivative, so it never learns: use it in `loss`, through `outputs`, "
            "or leave it out of `heads`",
        )
    for what, changed in _hard_cases(experiences).items():
        hard = update(objective, population, states, changed, progress)
        for part in ("state", "loss", "gradient", "moved"):
            contract.check_finite(f"the {part} of {name}", hard[part], f"It happens where {what}")
    _check_meta_params(name, objective, population, update, (result["state"], experiences, progress))


def _check_heads(name: str, objective: Objective, spec: EnvSpec) -> Heads:
    heads = objective.heads(spec)
    sizes = all(type(width) is int and width > 0 for width in heads.values())
    demand(sizes, f"{name}.heads gives {heads}: it must be a dict from the name of an output to its width")
    needed = distributions.of_space(spec.action).heads()
    demand(
        needed.items() <= heads.items(),
        f"{name}.heads gives {heads}, without the {needed} of the policy: add **distributions.of_space(spec.action)"
        ".heads()",
    )
    return heads


def _check_init(name: str, objective: Objective) -> MetaParams:
    """Meta-parameters of a population, away from where they begin, so that none is 0."""
    key = jax.random.key(0)
    shapes = contract.shapes_of(f"{name}.init", objective.init, key)
    for leaf, drawn in named_leaves(shapes).items():
        demand(
            jnp.issubdtype(drawn.dtype, jnp.floating) and not drawn.weak_type,
            f"meta_params{leaf} of {name} is {drawn.dtype}: it must be floating point, of an explicit dtype",
        )
    begun = objective.init(key)
    contract.check_finite(f"the meta-parameters of {name}", begun, "Look at its init")
    contract.check_same(f"init of {name}", begun, objective.init(key), "The same key must give the same numbers")
    if not jax.tree.leaves(begun):
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * NUM_EXAMPLES), begun)
    other = objective.init(jax.random.key(1))
    demand(
        contract.differ(begun, other),
        f"init of {name} gives the same numbers for two keys: draw them from the key that it is given",
    )
    demand(
        isinstance(getattr(objective, "features", None), tuple),
        f"{name} has meta-parameters but no `features`: add a property with the names of its inputs, in order, as a "
        "tuple of strings; a checkpoint is read by it",
    )
    return contract.stack_of(lambda key: _moved(key, objective.init(key)), NUM_EXAMPLES)


def _moved(key: Key, meta_params: MetaParams, scale: float = 0.3) -> MetaParams:
    leaves, structure = jax.tree.flatten(meta_params)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves)]
    )


def _check_init_state(name: str, objective: Objective, agent: Agent, experiences: Any) -> ObjectiveState:
    """Initial states for new agents, leading axis: examples."""

    def begin(key: Key, agent_params: AgentParams) -> ObjectiveState:
        return objective.init_state(key, agent, agent_params, NUM_WORKERS)

    try:
        contract.shapes_of(
            f"init_state or targets of {name}", lambda: check_state(objective, agent, NUM_STEPS, NUM_WORKERS)
        )
    except ValueError as error:
        raise AssertionError(str(error)) from error
    keys, agent_params = jax.random.split(jax.random.key(2), NUM_EXAMPLES), experiences[1].agent_params
    states = jax.vmap(begin)(keys, agent_params)
    contract.check_finite(f"the state of {name}", states, "An agent with such a state counts as diverged")
    contract.check_plain(f"init_state of {name}: ", states, begin, keys, agent_params)
    return states


def _check_states(
    name: str, objective: Objective, population: Any, update: Counted, data: tuple[Any, Progress], result: Any
) -> None:
    """An update after the first one, with the state that the first one left."""
    experiences, progress = data
    trajectory, predictions, outputs = experiences
    moved = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.3), predictions.agent_params)
    later = (trajectory, predictions.replace(agent_params=moved), outputs), progress
    states = result["state"]
    second = update(objective, population, states, *later)
    demand(
        update.traces == 1,
        f"the state that targets of {name} return has other types than the one they are given, as to weak types: say "
        "the dtype of every array that is made in init_state and targets, such as jnp.zeros((), jnp.float32)",
    )
    _check_told(name, objective, second, population, states, *later)
    third = update(objective, population, jax.tree.map(_other, states), *later)
    demand(
        any(contract.differ(second[part], third[part]) for part in ("targets", "gradient")),
        f"the state of {name} has no effect on what an agent learns: use it in `targets`, or return () "
        "from `init_state`",
    )


def _other(leaf: jax.Array) -> jax.Array:
    """Another value of the same type."""
    if is_key(leaf):
        return leaf
    return ~leaf if leaf.dtype == bool else leaf + jnp.ones((), leaf.dtype)


def _check_told(name: str, objective: Objective, result: Any, *arguments: Any) -> None:
    """It is finite, and what a plain call gives."""
    for part in ("state", "targets", "loss", "metrics", "gradient", "moved"):
        contract.check_finite(f"the {part} of {name}", result[part], "Look for log 0, a division by 0 or sqrt'(0)")
    told = {part: result[part] for part in ("state", "targets", "loss", "metrics", "moved")}
    contract.check_plain(f"of {name}: ", told, lambda *given: _tell(objective, *given), *arguments)


def _check_shapes(
    name: str, objective: Objective, population: Any, states: Any, experiences: Any, progress: Progress
) -> None:
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (population, states, experiences, progress)
    )
    result = contract.shapes_of(f"targets or loss of {name}", lambda *given: _tell(objective, *given), *one)
    for leaf, shape in named_leaves(result["targets"]).items():
        demand(
            shape.shape[:2] == (NUM_STEPS, NUM_WORKERS),
            f"targets{leaf} of {name} are {list(shape.shape)}: they must begin with [T, B] = [{NUM_STEPS}, "
            f"{NUM_WORKERS}], because they are dealt into minibatches of steps and workers",
        )
    loss = result["loss"]
    demand(
        loss.shape == () and loss.dtype == jnp.float32,
        f"the loss of {name} is {loss.dtype}{list(loss.shape)}: it must be a float32 scalar; take jnp.mean over [T, B]",
    )
    if isinstance(objective, Regularized):
        outputs = one[2][2]
        told = contract.shapes_of(f"regularizers of {name}", objective.regularizers, result["targets"], outputs)
        known = set(told) <= REGULARIZERS and all(term.shape == () for term in told.values())
        demand(known, f"regularizers of {name} are {told}: scalars of the names {sorted(REGULARIZERS)} are known")


def _check_meta_params(name: str, objective: Objective, population: Any, update: Counted, data: Any) -> None:
    """Every leaf of the meta-parameters changes what agents do, or what is remembered of them.

    The state in `data` is that after an update: what scales a memory has no effect where it is still empty.
    """
    result = update(objective, population, *data)
    leaves, structure = jax.tree.flatten(population)
    for i, leaf in enumerate(named_leaves(population)):
        noise = np.random.default_rng(i).normal(size=leaves[i].shape).astype(leaves[i].dtype)
        changed = jax.tree.unflatten(
            structure, [np.asarray(each) + noise if i == j else each for j, each in enumerate(leaves)]
        )
        told = update(objective, changed, *data)
        demand(
            any(contract.differ(told[part], result[part]) for part in ("gradient", "state", "moved")),
            f"meta_params{leaf} of {name} make no difference to what an agent learns: use them, or leave them out",
        )


def _hard_cases(experiences: Any) -> dict[str, Any]:
    """Edge cases of rollouts."""
    trajectory, predictions, outputs = experiences
    none, ends = (np.full(trajectory.terminated.shape, each) for each in (False, True))
    reward = np.asarray(trajectory.reward)
    sure = {head: np.float32(50.0) * np.asarray(output) for head, output in outputs.items() if head == "logits"}
    return {
        "nothing is rewarded": (trajectory.replace(reward=np.zeros_like(reward)), predictions, outputs),
        "rewards are large": (trajectory.replace(reward=np.float32(1e3) * reward), predictions, outputs),
        "every step ends an episode": (trajectory.replace(terminated=ends, truncated=none), predictions, outputs),
        "the policy is all but certain of its actions": (trajectory, predictions, outputs | sure),
    }


def _tell(
    objective: Objective, meta_params: MetaParams, state: ObjectiveState, experience: Any, progress: Progress
) -> dict[str, Any]:
    """State afterwards, targets, loss and metrics."""
    trajectory, predictions, outputs = experience
    targets, state = objective.targets(meta_params, state, predictions, trajectory, progress)
    loss, metrics = objective.loss(meta_params, targets, outputs, trajectory, progress)
    moved: Any = ()
    if isinstance(objective, HasOptimizer):
        moved = _moved_by(objective, meta_params, predictions.agent_params, progress)
    return {"state": state, "targets": targets, "loss": loss, "metrics": metrics, "moved": moved}


def _moved_by(
    objective: HasOptimizer, meta_params: MetaParams, agent_params: AgentParams, progress: Progress
) -> tuple[AgentParams, OptState]:
    """What a learned optimizer makes of the agent's parameters as gradients, twice, so that its memory matters."""
    optimizer, learned = objective.optimizer, objective.optimizer_params(meta_params)
    activity = jax.tree.map(lambda leaf: jnp.ones(leaf.shape[-1:], jnp.float32), agent_params)
    step = LearningStep(agent_params, agent_params, activity, progress.fraction, jnp.zeros((), jnp.float32))
    _, state = optimizer.update(jax.random.key(0), learned, optimizer.init_state(agent_params), agent_params, step)
    return optimizer.update(jax.random.key(1), learned, state, agent_params, step)


def _update(
    objective: Objective, meta_params: MetaParams, state: ObjectiveState, experience: Any, progress: Progress
) -> dict[str, Any]:
    """The same, and the derivative of the loss with respect to the outputs."""
    trajectory, predictions, outputs = experience

    def loss(outputs: Outputs) -> tuple[jax.Array, Any]:
        told = _tell(objective, meta_params, state, (trajectory, predictions, outputs), progress)
        return told["loss"], told

    gradient, told = jax.grad(loss, has_aux=True)(outputs)
    return told | {"gradient": gradient}


def _experience(key: Key, agent: Agent) -> tuple[Trajectory, Predictions, Outputs]:
    """A rollout, the agent's outputs when it acted, and its outputs after an update.

    What it said is drawn, so that it differs from step to step; the agent's parameters are some others.
    """
    spec, heads = agent.spec, dict(agent.heads)
    obs_key, now_key, next_key, action_key, end_key, reward_key, later_key = jax.random.split(key, 7)
    shape, family = (NUM_STEPS, NUM_WORKERS), distributions.of_space(spec.action)

    def outputs(key: Key) -> Outputs:
        keys = jax.random.split(key, len(heads))
        return {head: jax.random.normal(k, (*shape, width)) for k, (head, width) in zip(keys, heads.items())}

    def observe(key: Key) -> jax.Array:
        space = spec.observation
        if isinstance(space, Discrete):
            return jax.random.randint(key, shape, 0, space.num)
        return jnp.clip(jax.random.normal(key, (*shape, *space.shape)), space.low, space.high)

    now = outputs(now_key)
    action, log_prob = family.sample(family.noise(action_key, shape), now)
    chance = jax.random.uniform(end_key, shape)
    trajectory = Trajectory(
        obs=observe(obs_key),
        action=action,
        log_prob=log_prob,
        reward=jax.random.normal(reward_key, shape),
        terminated=chance < 0.15,
        truncated=chance > 0.85,
        next_obs=observe(jax.random.fold_in(obs_key, 1)),
    )
    later = jax.tree.map(lambda one, other: one + 0.3 * other, now, outputs(later_key))
    agent_params = _moved(jax.random.fold_in(later_key, 1), agent.init(later_key))
    return trajectory, Predictions(now, outputs(next_key), agent_params, agent), later
