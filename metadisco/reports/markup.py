"""The HTML of a report: macros of `templates/parts.html`, which escape every text that they are given.

A piece of a page is `Markup`, which is put into other pieces as it is; a plain string is text. So what must be escaped
need not be remembered.
"""

import functools
from typing import Any

from markupsafe import Markup

NOTHING = Markup("")


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("metadisco.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template(file: str, /, **values: Any) -> str:
    """A whole page, of this file in `templates`."""
    return _environment().get_template(file).render(values)


def part(name: str, *values: Any, **named: Any) -> Markup:
    """A piece of a page: what the macro of this name makes of the values."""
    return getattr(_environment().get_template("parts.html").module, name)(*values, **named)


def stack(*pieces: Markup) -> Markup:
    """Pieces one below the other."""
    return Markup("\n").join(pieces)


def paragraph(text: str | Markup) -> Markup:
    """A paragraph."""
    return part("paragraph", text)


def note(text: str) -> Markup:
    """A paragraph in small print."""
    return part("paragraph", text, "note")


def missing(text: str) -> Markup:
    """Say that something is not there."""
    return part("paragraph", text, "missing")


def grid(charts: list[Markup]) -> Markup:
    """Charts side by side where there is room."""
    return part("grid", charts, "charts")
