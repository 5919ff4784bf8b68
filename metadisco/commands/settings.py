"""Settings of a run before it runs: each with its path, value and meaning, and files of settings.

The paths are those of the trainer's own fields and the meanings those of the components' docstrings, so there is no
second list to keep in step.
"""

import datetime
import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metadisco.core import config

_ENTRY = re.compile(r"^ {4}(\w[\w, ]*): (.*)$")


class Setting(NamedTuple):
    """One setting, as it is written on the command line."""

    path: str
    value: str
    meaning: str


def settings(component: config.Component) -> list[Setting]:
    """Every setting of a component. What is in a tuple of one item goes without the tuple, as on the command line."""
    return [
        Setting(
            at,
            config.class_name(value) if config.is_component(value) else as_text(value),
            _meanings(type(owner)).get(name, ""),
        )
        for at, owner, name, value in config.walk(component)
        if at.rpartition(".")[2] == name  # and not one of several items, which has no value of its own
    ]


def as_text(value: object) -> str:
    """A value as the command line reads it."""
    if type(value) is tuple:
        return "()" if not value else ",".join(map(as_text, value)) + ("," if len(value) == 1 else "")
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _meanings(cls: type) -> dict[str, str]:
    """What the docstring of a class says of its attributes."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = [name.strip() for name in entry[1].split(",")]
            found.update(dict.fromkeys(names, entry[2].strip()))
        elif line.startswith("        ") and names:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        elif line.strip():
            break
    return found


def read(path: str | Path) -> dict[str, object]:
    """Read a TOML file of settings: tables are components, `[meta_optimizer.sigma]` or `meta_optimizer.sigma.start`.

    Returns:
        Dotted path -> value, for `config.replace_fields`.

    Raises:
        config.ConfigError: where the file cannot be read or holds what no setting can be.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise config.ConfigError(f"--settings {str(path)!r} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise config.ConfigError(f"--settings {path} is not TOML: {error}") from error
    return dict(_flat(document, ""))


def _flat(table: Mapping[str, Any], path: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        where = config.join(path, name)
        if isinstance(value, Mapping):
            yield from _flat(value, where)
        else:
            yield where, _as_setting(value, where)


def _as_setting(value: Any, where: str) -> object:
    if isinstance(value, list):
        return tuple(_as_setting(item, where) for item in value)
    if isinstance(value, (Mapping, datetime.date, datetime.time)):
        raise config.ConfigError(f"{where} = {value}: a setting is a number, a text, true, false or a list of these")
    return value
