"""Settings as data: any component to JSON and back, fields replaced by their dotted path, and two settings compared.

A component is a frozen dataclass whose fields are scalars, strings, None, tuples and other components, so it already is
the configuration. This module only writes it down: `{"class": "package.module:Class", field: value, ...}`. Nothing is
evaluated. Reading back imports nothing outside metadisco that the process has not imported itself, and calls nothing
but the constructors of frozen dataclasses, so that a file of unknown origin cannot choose which code runs.
"""

import ast
import dataclasses
import difflib
import importlib
import math
import operator
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from metadisco.core import moved

Component = Any  # an instance of a frozen dataclass
Data = Any  # what `json` reads and writes
MAX_COUNT = 2**31 - 1  # of int32, in which everything is counted
MOST_NEAR = 12  # paths of settings that an error message names
_WORDS = {"true": True, "false": False, "none": None, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}


_trusted: set[str] = set()


class ConfigError(ValueError):
    """Settings that name something that does not exist, or hold a value that does not belong there."""


class UnknownFieldError(ConfigError):
    """A path of a setting that there is not."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


def check_positive(component: Any, *names: str) -> None:
    """Raise ValueError unless the named settings are positive and finite."""
    for name in names:
        value = getattr(component, name)
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{type(component).__name__}.{name} must be positive and finite, got {value}")


def check_counts(component: Any, *names: str) -> None:
    """Raise ValueError unless the named settings are at least 1 and fit into 32 bits, or are None."""
    for name in names:
        value = getattr(component, name)
        if value is not None and value < 1:
            raise ValueError(f"{type(component).__name__}.{name} must be at least 1, got {value}")
        if value is not None and value > MAX_COUNT:
            raise ValueError(f"{type(component).__name__}.{name} must be at most {MAX_COUNT:,}, got {value}")


def check_whole(name: str, value: Any, low: int, high: int = MAX_COUNT) -> None:
    """Raise ValueError unless an argument is a whole number from `low` to `high`."""
    is_whole = hasattr(value, "__index__") and not isinstance(value, bool)  # also of numpy
    if not is_whole or not low <= operator.index(value) <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high:,}, got {value!r}")


def check_seed(value: Any) -> None:
    """Raise ValueError unless a seed is a whole number of 32 bits."""
    check_whole("seed", value, 0, 2**32 - 1)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which names are valid and which of them is closest to `name`; the tail of an error message."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Valid: {', '.join(names) or '(none)'}."


def is_component(value: object) -> bool:
    """Whether `value` is an instance of a frozen dataclass."""
    return not isinstance(value, type) and _is_component_class(type(value))


def class_name(component: Component) -> str:
    """Name the class of a component as `package.module:Class`."""
    return class_name_of(type(component))


def class_name_of(cls: type) -> str:
    """Name a class as `package.module:Class`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def to_data(component: Component) -> dict[str, Data]:
    """Turn a component into JSON-able data with all its fields, `from_data` being the exact inverse.

    Args:
        component: A frozen dataclass of scalars, strings, None, tuples and other components.

    Returns:
        `{"class": "package.module:Class", field: value, ...}`; a tuple as a list, an infinite float as
        `{"float": "inf"}`.

    Raises:
        ConfigError: If the component or something in it is of another type; the message names the path.
    """
    if not is_component(component):
        raise ConfigError(f"{component!r} is not a component: use an instance of a dataclass(frozen=True).")
    return _encode(component, "")


def from_data(data: Data, *, allow: tuple[str, ...] = ()) -> Component:
    """Build the component that `to_data` wrote.

    Args:
        data: What `to_data` of this or an earlier release returned, usually read from JSON. A field that is not in it
            takes its default.
        allow: Packages, besides metadisco and the modules that are already imported, that may be imported.

    Raises:
        ConfigError: For an unknown class or field, a value of the wrong type, or a module that is not allowed.
    """
    if not isinstance(data, Mapping) or "class" not in data:
        raise ConfigError(
            f"A component is an object with a 'class' such as 'package.module:Class'; got {_short(data)}."
        )
    return _decode(moved.current(data), "", allow)


def trust(package: str) -> None:
    """Let files name components of a package from now on, as the user asks for it on the command line (`--allow`).

    Raises:
        ConfigError: If it is not the name of a package or module.
    """
    if not all(part.isidentifier() for part in package.split(".")):
        raise ConfigError(f"{package!r} is not the name of a module: write my_module or my_package.")
    _trusted.add(package)


def resolve(name: str) -> type:
    """Import a component class by its name `package.module:Class`.

    This imports the module, so it is for names that the user typed; data from a file goes through `from_data`.
    """
    module_name, _, attribute = moved.current_name(name).partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{name!r} is not the name of a component: write 'package.module:Class'.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"Cannot import the module of {name!r}: {error}. Install it, or run from the folder that holds it."
        ) from error
    members = {key: value for key, value in vars(module).items() if _is_component_class(value)}
    if attribute in members:
        return members[attribute]
    if attribute in vars(module):
        raise ConfigError(f"{name!r} is not a component class: make it a dataclass(frozen=True).")
    raise ConfigError(f"The module {module_name!r} has no component {attribute!r}.{nearest(attribute, members)}")


def replace_field(component: Component, path: str, value: object) -> Component:
    """Return `component` with the field at a dotted path replaced: `replace_field(trainer, "meta.sigma", 0.1)`."""
    return replace_fields(component, {path: value})


def replace_fields(component: Component, overrides: Mapping[str, object]) -> Component:
    """Return `component` with several fields replaced at once, so that only the result has to be valid.

    Args:
        component: A frozen dataclass.
        overrides: Dotted path (`"meta.sigma"`, `"curricula.0.weight"` inside a tuple) to value. What is inside the only
            item of a tuple may be named without the tuple: `"weight"` for `"curricula.0.weight"`. A string is taken as
            text from a command line where the field is not a string: `"0.1"`, `"none"`, `"1,2"`, `"package:Class"`.

    Raises:
        ConfigError: For an unknown field (it lists the valid ones and the nearest) or a value of the wrong type.
        ValueError: Whatever the component's own checks raise.
    """
    whole = {_whole_path(component, path): value for path, value in overrides.items()}
    try:
        return _replace(component, whole, "")
    except UnknownFieldError as error:
        near = _near(component, error.path)
        raise UnknownFieldError(f"{error}{f' Settings near it: {near}.' if near else ''}", error.path) from None


def _whole_path(component: Component, path: str) -> str:
    """A path that may leave out a tuple of one item, written out."""
    name = path.partition(".")[0]
    if not is_component(component) or name in _fields(component):
        return path
    return f"{tuple_of}.0.{path}" if (tuple_of := _in_tuples_of_one(component).get(name)) else path


def _near(component: Component, path: str) -> str:
    """The settings whose path has a part that is spelled like the last one of this path."""
    paths, wanted = [field.path for field in walk(component)], path.rpartition(".")[2]
    parts = {part for each in paths for part in each.split(".")}
    like = {*difflib.get_close_matches(wanted, parts, n=3, cutoff=0.75)}
    found = [each for each in paths if like & {*each.split(".")[-2:]}]
    return ", ".join([*found[:MOST_NEAR], *(["..."] if len(found) > MOST_NEAR else [])])


class Field(NamedTuple):
    """A setting somewhere in a component."""

    path: str  # as on the command line: what is the only item of a tuple at the top goes without the tuple
    owner: Component  # that has it
    name: str  # of the field
    value: object  # or one of several items, whose path ends with its number


def walk(component: Component, path: str = "") -> Iterator[Field]:
    """Every setting of a component, those of a part right after it."""
    for name in field_names(component):
        value, where = getattr(component, name), join(path, name)
        items = {where: value}
        if type(value) is tuple and any(map(is_component, value)):
            is_alone = len(value) == 1 and not path
            items = {path if is_alone else join(where, index): item for index, item in enumerate(value)}
        for at, item in items.items():
            if at:
                yield Field(at, component, name, item)
            if is_component(item):
                yield from walk(item, at)


def _in_tuples_of_one(component: Component) -> dict[str, str]:
    """Fields of what is the only item of a tuple, each with the name of the tuple."""
    values = {name: getattr(component, name) for name in _fields(component)}
    items = {name: value[0] for name, value in values.items() if type(value) is tuple and len(value) == 1}
    return {field: name for name, item in items.items() if is_component(item) for field in _fields(item)}


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
    sides = (to_data(side) if is_component(side) else side for side in (before, after))
    first, second = map(moved.current, sides)
    return list(_diff(first, second, ""))


def _is_component_class(cls: object) -> bool:
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return False
    return cls.__dataclass_params__.frozen  # type: ignore[attr-defined]  # typeshed does not know it


def join(path: str, name: object) -> str:
    """The path of a field of what is at `path`."""
    return f"{path}.{name}" if path else str(name)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def field_names(component: Component) -> list[str]:
    """Names of the settings of a component."""
    return list(_fields(component))


def _fields(component: Component | type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(component) if field.init}


def _encode(value: object, path: str) -> Data:
    if is_component(value):
        if "." in type(value).__qualname__:
            raise ConfigError(f"{class_name(value)} cannot be found by name: define the class at the top of a module.")
        fields = {name: _encode(getattr(value, name), join(path, name)) for name in _fields(value)}
        return {"class": class_name(value), **fields}
    if type(value) is tuple:
        return [_encode(item, join(path, index)) for index, item in enumerate(value)]
    if type(value) is float and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ConfigError(
        f"{path} = {_short(value)} is a {type(value).__name__}: a component holds only bool, int, float, str, None, "
        "tuples and other frozen dataclasses."
    )


def _decode(data: Data, path: str, allow: tuple[str, ...]) -> object:
    if isinstance(data, list):
        return tuple(_decode(item, join(path, index), allow) for index, item in enumerate(data))
    if not isinstance(data, Mapping):
        return data
    if set(data) == {"float"} and data["float"] in ("inf", "-inf", "nan"):
        return float(data["float"])
    if not isinstance(data.get("class"), str):
        raise ConfigError(f"{path or 'the component'} has no 'class': {_short(data)}.")
    _check_trusted(data["class"], allow)
    cls = resolve(data["class"])
    hints = _hints(cls)
    values = {}
    for name in data.keys() - {"class"}:
        where = join(path, name)
        if name not in _fields(cls):
            raise ConfigError(f"{data['class']} has no field {name!r} (at {where}).{nearest(name, _fields(cls))}")
        values[name] = _fit(_decode(data[name], where, allow), hints.get(name, Any), where)
    return _construct(cls, values, path)


def _construct(cls: type, values: dict[str, object], path: str) -> Component:
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(
            f"Cannot build {cls.__module__}:{cls.__qualname__} at {path or 'the top'}: {error}."
        ) from error


def _check_trusted(name: str, allow: tuple[str, ...]) -> None:
    module = name.partition(":")[0]
    package = module.partition(".")[0]
    if module in sys.modules or any(
        module == known or module.startswith(known + ".") for known in ("metadisco", *allow, *_trusted)
    ):
        return
    raise ConfigError(
        f"The file asks to import {module!r}, which is not part of metadisco. If you trust it, allow it: "
        f'--allow {package} on the command line, allow=("{package}",) in Python, or import the module first.'
    )


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError):  # an annotation that only a type checker can see
        return {}


def _replace(component: Component, overrides: Mapping[str, object], path: str) -> Component:
    if "" in overrides:
        return overrides[""]
    groups: dict[str, dict[str, object]] = {}
    for key, value in overrides.items():
        name, _, rest = key.partition(".")
        groups.setdefault(name, {})[rest] = value
    for name, group in groups.items():
        if "" in group and len(group) > 1:
            raise ConfigError(f"{join(path, name)} is replaced as a whole and in part: give one of the two.")
    if type(component) is tuple:
        names, hints = [str(index) for index in range(len(component))], {}
    elif is_component(component):
        names, hints = list(_fields(component)), _hints(type(component))
    else:
        raise ConfigError(
            f"{path} = {_short(component)} has no fields, so {join(path, next(iter(overrides)))} is unknown."
        )
    changes = {}
    for name, group in groups.items():
        where = join(path, name)
        if name not in names:
            known = names if path else [*names, *_in_tuples_of_one(component)]
            valid = [join(path, each) for each in known]
            raise UnknownFieldError(f"Unknown field {where!r}.{nearest(where, valid)}", where)
        present = component[int(name)] if type(component) is tuple else getattr(component, name)
        hint = hints.get(name, Any if present is None or is_component(present) else type(present))
        value = _replace(present, group, where)
        changes[name] = _parse(value, hint, where) if isinstance(value, str) else _fit(value, hint, where)
    if type(component) is tuple:
        return tuple(changes.get(str(index), item) for index, item in enumerate(component))
    return dataclasses.replace(component, **changes)


def _parse(text: str, hint: Any, path: str) -> object:
    """Read text from a command line as a value of the annotated type."""
    try:
        value = _WORDS[text.lower()] if text.lower() in _WORDS else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if isinstance(value, str) and ":" in value and not _fits(value, hint):
        value = _construct(resolve(value), {}, path)
    if isinstance(value, str) and "," in value and not _fits(value, hint):
        value = tuple(part.strip() for part in value.split(","))
    options = [value, text]
    if isinstance(value, float) and value.is_integer():
        options.append(int(value))  # 1e6 where an integer is wanted
    fitting = [option for option in options if _fits(option, hint)]
    return _fit(fitting[0] if fitting else value, hint, path)


def _fits(value: object, hint: Any) -> bool:
    try:
        _fit(value, hint, "")
    except ConfigError:
        return False
    return True


def _fit(value: object, hint: Any, path: str) -> object:
    """Check a value against a type annotation; an int becomes a float and a list a tuple where one is wanted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return value
    if origin is typing.Annotated:
        return _fit(value, arguments[0], path)
    if origin in (typing.Union, types.UnionType):
        exact = [option for option in arguments if type(value) is option]
        fitting = exact or [option for option in arguments if _fits(value, option)]
        if fitting:
            return _fit(value, fitting[0], path)
    elif origin is typing.Literal:
        if any(value == option and type(value) is type(option) for option in arguments):
            return value
    elif origin is tuple or hint is tuple:
        if isinstance(value, (tuple, list)):
            return _fit_tuple(tuple(value), arguments, path)
    elif hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{path} = {_short(value)} is too large.") from error
    elif getattr(hint, "_is_protocol", False):
        if is_component(value):
            missing = [name for name in _members(hint) if not _has(value, name)]
            if not missing:
                return value
            raise ConfigError(f"{path} = {class_name(value)} is no {hint.__name__}: it has no {', '.join(missing)}.")
    elif not isinstance(hint, type) or origin is not None or _is_instance(value, hint):
        return value
    wanted = getattr(hint, "__name__", str(hint)) if origin is None else str(hint).replace("typing.", "")
    raise ConfigError(f"{path} = {_short(value)} is a {type(value).__name__}; it must be {wanted}.")


def _members(protocol: type) -> list[str]:
    """What an implementation of a protocol must have."""
    parts = [cls for cls in protocol.__mro__ if getattr(cls, "_is_protocol", False) and cls is not typing.Protocol]
    names = dict.fromkeys(name for cls in parts for name in [*vars(cls), *vars(cls).get("__annotations__", {})])
    return [name for name in names if not name.startswith("_") or name == "__call__"]


def _has(component: Component, name: str) -> bool:
    return callable(component) if name == "__call__" else hasattr(type(component), name) or name in _fields(component)


def _is_instance(value: object, cls: type) -> bool:
    """Like isinstance, but True is not an int."""
    return type(value) is cls or (cls is not int and isinstance(value, cls))


def _fit_tuple(values: tuple, arguments: tuple, path: str) -> tuple:
    if not arguments:
        return values
    hints = arguments[:1] * len(values) if arguments[-1] is Ellipsis else arguments
    if len(hints) != len(values):
        raise ConfigError(f"{path} = {_short(values)} has {len(values)} items; it must have {len(hints)}.")
    return tuple(_fit(value, hint, join(path, index)) for index, (value, hint) in enumerate(zip(values, hints)))


def _diff(before: Data, after: Data, path: str) -> Iterable[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before.get("class") == after.get("class"):
        for name in dict.fromkeys([*before, *after]):
            yield from _diff(before.get(name, ABSENT), after.get(name, ABSENT), join(path, name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (left, right) in enumerate(zip(before, after)):
            yield from _diff(left, right, join(path, index))
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield Difference(path or "class", _summary(before), _summary(after))


def _summary(data: Data) -> Any:
    """Show a component by its class alone."""
    return data["class"] if isinstance(data, Mapping) and "class" in data else data
