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
    """A chart as a PNG of 32 colors, a quarter as large as one of millions and the same to the eye."""
    content = io.BytesIO()
    few = picture.convert("RGB").quantize(32, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(content, "PNG", optimize=True)
    return content.getvalue()


def image_of(figure, dpi: int) -> Image.Image:
    """A figure of matplotlib on white."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, facecolor="white")
    return Image.open(content)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write results with the digits that they have, atomically."""
    write_atomically(path, (json.dumps(_rounded(document), indent=1, allow_nan=False) + "\n").encode())


def _rounded(value: Any) -> Any:
    """Floats in a nest with six significant digits, more than any interval here, and half as long a file."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
