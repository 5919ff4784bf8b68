"""What programs write for pages: the text between two marks, pictures, and numbers."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from metadisco.core.files import write_atomically


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text between the marks of a page, in place of what is there; a page without them stays as it is."""
    before, found, rest = page.read_text().partition(begin)
    if found:
        page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def png(picture: Image.Image) -> bytes:
    """A chart as a PNG of 64 colors, a third as large as one of millions and the same to the eye."""
    content = io.BytesIO()
    few = picture.convert("RGB").quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(content, "PNG", optimize=True)
    return content.getvalue()


def image_of(figure, dpi: int) -> Image.Image:
    """A figure of matplotlib on white."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, facecolor="white")
    return Image.open(content)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write results atomically, with six digits, more than any interval here has, and a line for each row."""
    write_atomically(path, f"{_text(document)}\n".encode())


def _text(value: Any, depth: int = 0) -> str:
    """JSON in which what holds no further containers is one line."""
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    if not isinstance(value, Mapping | list | tuple):
        return json.dumps(value, allow_nan=False)
    is_row = not any(isinstance(each, Mapping | list | tuple) for each in _values(value))
    open_, close = "{}" if isinstance(value, Mapping) else "[]"
    parts = [_text(each, depth + 1) for each in _values(value)]
    if isinstance(value, Mapping):
        parts = [f"{json.dumps(name)}: {part}" for name, part in zip(value, parts, strict=True)]
    if is_row:
        return f"{open_}{', '.join(parts)}{close}"
    edge = "\n" + " " * depth
    return f"{open_}{edge} {f',{edge} '.join(parts)}{edge}{close}"


def _values(container: Any) -> list[Any]:
    return list(container.values() if isinstance(container, Mapping) else container)
