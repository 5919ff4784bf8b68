"""Two settings compared, for a run that is to be resumed with other ones than it began with."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from metadisco.core import config, moved
from metadisco.core.config import Component, Data


class Difference(NamedTuple):
    """One setting on which two components differ."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Show the path and both values."""
        return f"{self.path}: {self.before!r} -> {self.after!r}"


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


ABSENT = _Absent()  # the value of a setting that only the other side has


def diff(before: Component | Data, after: Component | Data) -> list[Difference]:
    """List the settings on which two components (or what `to_data` once made of them) differ, with both values."""
    sides = (config.to_data(side) if config.is_component(side) else side for side in (before, after))
    first, second = map(moved.current, sides)
    return list(_diff(first, second, ""))


def _diff(before: Data, after: Data, path: str) -> Iterable[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before.get("class") == after.get("class"):
        for name in dict.fromkeys([*before, *after]):
            yield from _diff(before.get(name, ABSENT), after.get(name, ABSENT), config.join(path, name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (left, right) in enumerate(zip(before, after)):
            yield from _diff(left, right, config.join(path, index))
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield Difference(path or "class", _summary(before), _summary(after))


def _summary(data: Data) -> Any:
    """Show a component by its class alone."""
    return data["class"] if isinstance(data, Mapping) and "class" in data else data
