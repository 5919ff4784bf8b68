"""Names that last: classes and fields that files call by the names of an earlier release.

A checkpoint or a run names its components as `package.module:Class`. Whoever moves a module, renames a class or changes
its fields adds a line here, so that everything that was ever written is still read. Files are never edited; what is
read from them is brought up to date by `current` before anything else looks at it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Data = Any  # what `json` reads and writes

MODULES: Mapping[str, str] = MappingProxyType({})
"""Module of an earlier release to the present one."""

CLASSES: Mapping[str, str] = MappingProxyType({})
"""`old.module:Class` to `module:Class` where the class has another name or did not go with its module."""

FIELDS: Mapping[str, Callable[[dict[str, Data]], dict[str, Data]]] = MappingProxyType({})
"""Name of an earlier release to a function that rewrites the fields of such a component, "class" among them."""


def current_name(name: str) -> str:
    """The present name of a class that a file calls `package.module:Class`; unknown names are returned as they are."""
    module, colon, attribute = name.partition(":")
    return CLASSES.get(name, f"{MODULES.get(module, module)}{colon}{attribute}")


def current(data: Data) -> Data:
    """Bring settings that were read from a file up to date: class names and fields, however deep.

    Args:
        data: What `config.to_data` of this or an earlier release wrote. It is not changed.

    Returns:
        The same settings in present names.
    """
    if isinstance(data, Mapping):
        fields = {name: current(value) for name, value in data.items()}
        name = fields.get("class")
        if not isinstance(name, str):
            return fields
        return FIELDS.get(name, dict)(fields) | {"class": current_name(name)}
    if isinstance(data, list):
        return [current(item) for item in data]
    return data
