"""Hooks of the loop: measurements of the train state, and snapshots written into the run folder.

A hook is called on process 0 only, with a local copy of the train state. A resumed run repeats the meta-steps after the
newest checkpoint, so a hook must be deterministic in the state. The meta-steps at which hooks are called depend on
`every` alone, not on chunks and calls of the loop; one snapshot is added where a call of the loop stops.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metadisco.core.processes import is_first
from metadisco.runs.compiled_steps import on_this_process

MAX_EVERY = 2**31 - 1


@dataclass(frozen=True)
class Measurement:
    """Scalars of the train state, logged in the row of the meta-step after which they are taken.

    It is called after every meta-step that is a multiple of `every` and after the last one of the whole run, before
    that row is logged and thus before any checkpoint of that state. It is not called for the state that a call of the
    loop begins with: its row is in the log already.

    Attributes:
        name: the scalars are logged as `name/scalar`.
        every: meta-steps from one call to the next.
        function: train state to scalars.
    """

    name: str
    every: int
    function: Callable[[Any], Mapping[str, Any]]

    def __post_init__(self) -> None:
        _check_every(self)


@dataclass(frozen=True)
class Snapshot:
    """Files in the run folder.

    It is called after every meta-step that is a multiple of `every`, once the rows up to there are logged and before
    any checkpoint of that state or a later one, so no kill makes a run skip it. It is also called for the state that a
    call of the loop begins with, where that is a multiple (0 is one), and for the state that it stops with, whatever
    the reason except a kill. One call of the loop gives it no state twice.

    Attributes:
        name: unique among the hooks.
        every: meta-steps from one call to the next.
        function: called with the run folder and the train state. It must write whole files and replace those that
            a killed run left for the same meta-step.
    """

    name: str
    every: int
    function: Callable[[Path, Any], None]

    def __post_init__(self) -> None:
        _check_every(self)


Hook = Measurement | Snapshot


def _check_every(hook: Hook) -> None:
    if not 1 <= hook.every <= MAX_EVERY:
        raise ValueError(
            f"{type(hook).__name__}.every = {hook.every}: it must be 1 to {MAX_EVERY}. To do without "
            f"{hook.name!r}, leave the hook out."
        )


def intervals(hooks: Sequence[Hook]) -> dict[str, int]:
    """The `every` of each hook by its name; ValueError where two have the same name."""
    twice = [name for name, count in Counter(hook.name for hook in hooks).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is the name of two hooks: give each a name of its own.")
    return {hook.name: hook.every for hook in hooks}


class HookCalls:
    """Calls hooks when they are due, in the order in which they were given."""

    def __init__(self, hooks: Sequence[Hook], folder: Path, num_steps: int) -> None:
        """Prepare for a run in `folder` whose last meta-step is `num_steps`."""
        self.measurements = [hook for hook in hooks if isinstance(hook, Measurement)]
        self.snapshots = [hook for hook in hooks if isinstance(hook, Snapshot)]
        self.folder, self.num_steps = folder, num_steps
        self.taken: dict[str, int] = {}  # name of a snapshot -> meta-step of the newest

    def measure(self, step: int, state: Any) -> dict[str, float]:
        """The scalars of the measurements that are due; {} on all processes but the first."""
        due = [hook for hook in self.measurements if step % hook.every == 0 or step == self.num_steps]
        if not due or not is_first():
            return {}
        state = on_this_process(state)
        return {f"{hook.name}/{name}": float(value) for hook in due for name, value in hook.function(state).items()}

    def take_snapshots(self, step: int, state: Any, *, only_if_due: bool = False) -> None:
        """Take those that there are not of this meta-step yet; `only_if_due`: only at multiples of their interval."""
        for hook in self.snapshots:
            if self.taken.get(hook.name) == step or (only_if_due and step % hook.every):
                continue
            if is_first():
                hook.function(self.folder, on_this_process(state))
            self.taken[hook.name] = step
