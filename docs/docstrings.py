"""How docstrings are read for the API reference: `Example:` is a section of doctests, as `Examples:` is.

An extension of griffe, named in `mkdocs.yml`.
"""

import re

from griffe import Extension, Object


class Examples(Extension):
    """Make doctests code blocks."""

    def on_object(self, *, obj: Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
