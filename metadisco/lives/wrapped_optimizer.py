"""What a discovered objective says of an agent's steps, as an optax transformation for any training loop.

Two kinds of objective say something: schedules scale the steps (`metadisco.objectives.base.ScalesSteps`), and a learned
optimizer decides them (`metadisco.objectives.with_optimizer`). Inside metadisco `metadisco.lives.learner.Learner` does
both. Both tell parameters of the policy from all others, and a learned optimizer asks where in its network a layer is;
metadisco's own agents keep that in the names of their parameters, others say it by a function.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from metadisco.agents.learned_optimizer import LearnedOptimizer, LearningStep
from metadisco.agents.optimizers import OptState
from metadisco.checkpoints.checkpoint import Discovered
from metadisco.core.types import AgentParams, Key, MetaParams, Progress
from metadisco.lives.rule import check_discovered
from metadisco.objectives.base import HasOptimizer, Objective, ScalesSteps

Layers = Callable[[AgentParams], tuple[Sequence[AgentParams], Sequence[AgentParams]]]
Activity = tuple[Sequence[jax.Array], Sequence[jax.Array]]  # [units] float32 of each layer
_NAMES = (("torso", "logits"), ("prediction_torso", "value"))  # hidden layers and head, as metadisco's agents have them


@struct.dataclass
class LearnedOptState:
    """State of a learned optimizer in a loop."""

    base: OptState
    learned: OptState
    key: Key  # of the noise of the next step


def wrap_optimizer(
    base: optax.GradientTransformation, discovered: Discovered, layers: Layers | None = None, key: Key | None = None
) -> optax.GradientTransformationExtraArgs:
    """An agent's optimizer, followed by what a discovered objective says of its steps.

    For a drift or LPG it is `base`. For a schedule its updates are multiplied by the schedule's factors. For
    `WithOptimizer` the learned optimizer is told what `base` proposes, and decides. Its `update` takes keywords, and
    those that the objective has no use for may be left out:

    - `progress`: `metadisco.Progress`, before the agent's update. For a learned optimizer, and for `base`.
    - `factors`: `Rule.step_factors(targets)`. For a schedule.
    - `epoch`: share of the passes over this rollout that are over, 0 in the first, 1 in the last. For a learned
      optimizer; 0 by default.
    - `activity`: mean |output| of the units of each layer, [units], in two lists like those of `layers`. For a learned
      optimizer, to which units are equally active by default.

    Where the policy and the predictions have optimizers of their own, wrap each; one of the lists is then empty.

    Args:
        base: any optax transformation.
        discovered: what `metadisco.load` returns.
        layers: parameters to the layers of the policy and those of all predictions, two lists of subtrees, from input
            to output; the last of each is the head, or all heads as one subtree. A torso that both share is the
            policy's. Every array must be in one of them. Not needed for a drift or LPG.
        key: of the noise of a learned optimizer. It is part of the state, so replicas with equal states draw equally.

    Example:
        >>> import metadisco
        >>> schedule = metadisco.load("scheduled-a2c-quick")
        >>> tx = wrap_optimizer(optax.sgd(1.0), schedule, lambda params: ([params["pi"]], [params["v"]]))
        >>> gradients = {"pi": jnp.ones(2), "v": jnp.ones(1)}
        >>> updates, _ = tx.update(gradients, tx.init(gradients), factors={"policy": 0.5})
        >>> {name: leaf.tolist() for name, leaf in updates.items()}
        {'pi': [-0.5, -0.5], 'v': [-1.0]}
    """
    check_discovered(discovered)
    objective, tx = discovered.objective, optax.with_extra_args_support(base)
    has_factors = isinstance(_innermost(objective), ScalesSteps)
    if not isinstance(objective, HasOptimizer) and not has_factors:
        return tx
    kind = type(objective).__name__
    if layers is None:
        raise ValueError(f"{kind} treats the policy and predictions differently: give wrap_optimizer their layers=")
    if isinstance(objective, HasOptimizer):
        if key is None:
            raise ValueError(f"the optimizer of {kind} draws noise: give wrap_optimizer a key=, as jax.random.key(0)")
        meta_params = objective.optimizer_params(discovered.meta_params)
        tx = _learned(tx, objective.optimizer, meta_params, layers, key)
    return optax.chain(tx, _scale_by_factors(layers)) if has_factors else tx


def _innermost(objective: Objective) -> Objective:
    """The objective without those around it, such as `WithOptimizer`, which scale steps only if it does."""
    while hasattr(objective, "objective"):
        objective = objective.objective
    return objective


def _learned(
    base: optax.GradientTransformationExtraArgs,
    optimizer: LearnedOptimizer,
    meta_params: MetaParams,
    layers: Layers,
    key: Key,
) -> optax.GradientTransformationExtraArgs:
    """What a learned optimizer makes of the updates of `base`."""

    def init(params: AgentParams) -> LearnedOptState:
        named = _named(jax.tree.leaves(params), _places(params, layers))
        return LearnedOptState(base.init(params), optimizer.init_state(named), key)

    def update(
        updates: AgentParams,
        state: LearnedOptState,
        params: AgentParams | None = None,
        *,
        progress: Progress | None = None,
        epoch: jax.Array | float = 0.0,
        activity: Activity | None = None,
        **others: Any,
    ) -> tuple[AgentParams, LearnedOptState]:
        if params is None or progress is None:
            raise ValueError(
                "a learned optimizer sees the parameters and n/N: call update(gradients, state, params, "
                "progress=metadisco.Progress(n, N))"
            )
        proposed, base_state = base.update(updates, state.base, params, progress=progress, **others)
        places = _places(params, layers)
        named, gradients, base_updates = (_named(jax.tree.leaves(tree), places) for tree in (params, updates, proposed))
        step = LearningStep(
            gradients,
            base_updates,
            _activity(params, places, activity),
            progress.fraction,
            jnp.asarray(epoch, jnp.float32),
        )
        now, later = jax.random.split(state.key)
        decided, learned = optimizer.update(now, meta_params, state.learned, named, step)
        return _unnamed(decided, params, places), LearnedOptState(base_state, learned, later)

    return optax.GradientTransformationExtraArgs(init, update)


def _scale_by_factors(layers: Layers) -> optax.GradientTransformationExtraArgs:
    """Multiply updates of the policy and of predictions by a factor each."""

    def update(
        updates: AgentParams,
        state: optax.EmptyState,
        params: AgentParams | None = None,
        *,
        factors: dict[str, jax.Array] | None = None,
        **_: Any,
    ) -> tuple[AgentParams, optax.EmptyState]:
        del params
        if factors is None:
            raise ValueError("a schedule scales steps: call update(..., factors=rule.step_factors(targets))")
        leaves, structure = jax.tree.flatten(updates)
        for group, network in zip(("policy", "prediction"), _places(updates, layers), strict=True):
            for place in (place for layer in network for place in layer):
                leaves[place] = factors.get(group, 1.0) * leaves[place]
        return jax.tree.unflatten(structure, leaves), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


Places = tuple[list[list[int]], list[list[int]]]  # of both networks, by layer, numbers of arrays in `jax.tree.leaves`


def _places(params: AgentParams, layers: Layers) -> Places:
    """Where the arrays of each layer are. Raises ValueError unless each array is in one layer."""
    leaves, structure = jax.tree.flatten(params)
    networks: Any = layers(jax.tree.unflatten(structure, range(len(leaves))))
    if len(networks) != 2 or not all(isinstance(network, list | tuple) for network in networks):
        raise ValueError("layers must return two lists: the layers of the policy, and those of all predictions")
    policy, prediction = ([jax.tree.leaves(layer) for layer in network] for network in networks)
    found = sorted(place for layer in (*policy, *prediction) for place in layer)
    if found != list(range(len(leaves))):
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
        wrong = ", ".join(f"{path} in {found.count(n)}" for n, path in enumerate(paths) if found.count(n) != 1)
        raise ValueError(f"layers must have every array of the parameters in one layer, and has {wrong}")
    return policy, prediction


def _named(leaves: Sequence[jax.Array], places: Places) -> AgentParams:
    """Arrays in the order of the parameters' tree, named as the parameters of metadisco's own agents."""
    named: AgentParams = {}
    for (torso, head), network in zip(_NAMES, places, strict=True):
        arrays = [[leaves[place] for place in layer] for layer in network]
        named |= {torso: arrays[:-1]} if arrays[:-1] else {}
        named |= {head: arrays[-1]} if arrays else {}
    return named


def _unnamed(named: AgentParams, like: AgentParams, places: Places) -> AgentParams:
    """The inverse of `_named`."""
    leaves, structure = jax.tree.flatten(like)
    for (torso, head), network in zip(_NAMES, places, strict=True):
        arrays = [*named.get(torso, []), *([named[head]] if head in named else [])]
        for layer, found in zip(network, arrays, strict=True):
            for place, leaf in zip(layer, found, strict=True):
                leaves[place] = leaf
    return jax.tree.unflatten(structure, leaves)


def _activity(params: AgentParams, places: Places, activity: Activity | None) -> AgentParams:
    """Activity of the units that each array feeds, named; 1 where it is not told."""
    leaves = [jnp.ones(leaf.shape[-1:], jnp.float32) for leaf in jax.tree.leaves(params)]
    for network, sizes in zip(places, activity or (), strict=False):
        if len(sizes) != len(network):
            raise ValueError(f"activity must have one array for each of {len(network)} layers, got {len(sizes)}")
        for layer, size in zip(network, sizes, strict=True):
            for place in layer:
                leaves[place] = size
    return _named(leaves, places)
