"""The contract of curricula: what a meta-step relies on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metadisco.curricula.base import Curriculum, Proposal
from metadisco.testing import contract
from metadisco.testing.contract import Counted, demand


def check_curriculum(curriculum: Curriculum, *, num_tasks: int = 4, num_steps: int = 6) -> None:
    """Check a curriculum against the contract of `metadisco.curricula.base.Curriculum`.

    It is a hashable component that survives JSON; a proposal has N tasks with lifetimes from 1, and for each its place
    in the level buffer, when it entered it, and whether to train on it; shapes and dtypes of the state and of proposals
    stay, so that both functions compile once, for equal instances too; the same key gives the same proposal; compiled
    calls equal plain ones; scores of unfinished lives are ignored; a NaN score, or a proposal that comes back late,
    does not make the state non-finite.

    Args:
        curriculum: the curriculum.
        num_tasks: N.
        num_steps: meta-steps to simulate.

    Raises:
        AssertionError: what is broken, and how to repair it.
        ValueError: where the curriculum itself refuses so many tasks.

    Example:
        >>> from metadisco.curricula.randomization import DomainRandomization
        >>> from metadisco.envs.gridworld.levels import GridLevels
        >>> from metadisco.curricula.tasks import Tasks
        >>> levels = GridLevels(max_side=4, num_walls=2, max_objects=2, max_steps=(5, 12))
        >>> check_curriculum(DomainRandomization(Tasks(levels)), num_tasks=2, num_steps=2)
    """
    twin = contract.check_component(curriculum)
    curriculum.check(num_tasks)
    name = type(curriculum).__name__
    keys = jax.random.split(jax.random.key(0), 2 * num_steps + 1)
    state = jax.jit(curriculum.init)(keys[-1])
    _check_shapes(name, curriculum, state, num_tasks)

    propose = Counted(_propose, static=(0, 3))
    observe = Counted(_observe)
    all_finished, late = jnp.ones(num_tasks, bool), None
    for step in range(num_steps):
        key, observe_key = keys[2 * step], keys[2 * step + 1]
        before, proposal = propose(curriculum, key, state, num_tasks)
        _check_proposal(name, proposal, num_tasks)
        late = proposal if late is None else late
        scores = jax.random.uniform(jax.random.fold_in(key, 1), (num_tasks,))
        state, metrics = observe(curriculum, observe_key, before, proposal, scores, all_finished)
        contract.check_metrics(f"{name}.observe", metrics)
        contract.check_finite(f"the metric of {name}.observe ", metrics, "Look for a mean over nothing")

    again = propose(twin, key, state, num_tasks)
    contract.check_same(
        f"a proposal of {name}: ", again, propose(curriculum, key, state, num_tasks), "Equal keys must give equal ones"
    )
    why = "The first is of a plain call, the second under jax.jit: draw random numbers from the key only"
    plain = curriculum.propose(key, state, num_tasks)
    contract.check_same(f"{name}.propose: ", plain, again, why)
    before, proposal = again
    told = observe(twin, key, before, proposal, jnp.arange(num_tasks, dtype=jnp.float32), all_finished)
    plainly = curriculum.observe(key, before, proposal, jnp.arange(num_tasks, dtype=jnp.float32), all_finished)
    contract.check_same(f"{name}.observe: ", plainly, told, why)

    is_first = jnp.arange(num_tasks) == 0
    for others, what in ((jnp.nan, "NaN"), (99.0, "99")):
        scores = jnp.where(is_first, 0.5, others).astype(jnp.float32)
        told = observe(curriculum, key, before, proposal, scores, is_first)[0]
        known = observe(curriculum, key, before, proposal, jnp.where(is_first, jnp.float32(0.5), 0.0), is_first)[0]
        contract.check_same(
            f"the state of {name}: ",
            told,
            known,
            f"The first was told scores that are {what} for lives that are not finished, the second 0: mask scores by "
            "`finished`, with jnp.where and not with a product",
        )
    spoiled = observe(curriculum, key, before, proposal, jnp.full(num_tasks, jnp.nan, jnp.float32), all_finished)[0]
    contract.check_finite(
        f"the state of {name}", _was_finite(before, spoiled), "It was told a score that is NaN: leave such out"
    )
    returned = observe(curriculum, key, spoiled, late, jnp.ones(num_tasks), all_finished)[0]
    contract.check_finite(f"the state of {name}", _was_finite(before, returned), "A proposal came back late")
    demand(
        (propose.traces, observe.traces) == (1, 1),
        f"propose and observe of {name} were compiled {propose.traces} and {observe.traces} times: equal instances "
        "must have equal hashes, and states the same types before and after",
    )


def _propose(curriculum: Curriculum, key: jax.Array, state: Any, num_tasks: int) -> Any:
    return curriculum.propose(key, state, num_tasks)


def _observe(curriculum: Curriculum, *arguments: Any) -> Any:
    return curriculum.observe(*arguments)


def _check_shapes(name: str, curriculum: Curriculum, state: Any, num_tasks: int) -> None:
    key = jax.random.key(0)
    proposed, proposal = contract.shapes_of(f"{name}.propose", lambda s: curriculum.propose(key, s, num_tasks), state)
    why = "Keep the types of the state, so that one compilation is enough"
    contract.check_types(f"the state of {name} around propose: ", state, proposed, why)
    demand(
        isinstance(proposal, Proposal),
        f"{name}.propose returns a {type(proposal).__name__}: it must be (state, Proposal); see propose_new",
    )
    scores, finished = jnp.zeros(num_tasks), jnp.ones(num_tasks, bool)
    observed = contract.shapes_of(
        f"{name}.observe", lambda s, p: curriculum.observe(key, s, p, scores, finished), proposed, proposal
    )
    contract.check_types(f"the state of {name} around observe: ", proposed, observed[0], why)
    for field, dtype in (("places", jnp.int32), ("born", jnp.int32), ("train_mask", jnp.bool_)):
        leaf = getattr(proposal, field)
        demand(
            leaf.shape == (num_tasks,) and leaf.dtype == dtype,
            f"Proposal.{field} of {name} is {leaf.dtype}{list(leaf.shape)}: it must be {jnp.dtype(dtype)}[{num_tasks}]",
        )
    for leaf in jax.tree.leaves(proposal):
        demand(
            leaf.shape[:1] == (num_tasks,),
            f"a leaf of the proposal of {name} has the shape {list(leaf.shape)}: it must begin with N = {num_tasks}",
        )
    lifetime = proposal.tasks.lifetime
    demand(lifetime.dtype == jnp.int32, f"Task.lifetime of {name} is {lifetime.dtype}: it must be int32")


def _check_proposal(name: str, proposal: Proposal, num_tasks: int) -> None:
    least = int(np.min(proposal.tasks.lifetime))
    demand(least >= 1, f"{name} proposes a lifetime of {least}: a life has at least one update")
    demand(
        np.min(proposal.places) >= -1, f"{name} proposes the place {np.min(proposal.places)}: use -1 for a new level"
    )
    is_new = np.asarray(proposal.places) == -1
    demand(
        np.all(np.asarray(proposal.born)[is_new] == -1),
        f"{name} proposes a new level (place -1) with a clock of entry: `born` is -1 for it; see propose_new",
    )
    contract.check_finite(f"the level of a proposal of {name}", proposal.tasks.level, "Look at what makes the level")


def _was_finite(before: Any, after: Any) -> Any:
    """`after`, without what was not finite before."""

    def keep(old: jax.Array, new: jax.Array) -> np.ndarray:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return np.zeros(())
        return np.where(np.isfinite(np.asarray(old)), np.asarray(new), 0.0)

    return jax.tree.map(keep, before, after)
