"""A matplotlib figure as a part of a web page.

Its colors are the page's CSS variables, so the page decides them (light or dark), and its text is text in the page's
font, which can be searched and read aloud.
"""

import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

from metadisco.reports import chart_style
from metadisco.reports.markup import part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_svg(figure: "Figure", identifier: str, description: str) -> Markup:
    """A figure as an SVG element to put into a web page.

    Args:
        figure: drawn by a function of `metadisco.reports.plots`.
        identifier: of the figure in the page, so that two figures do not share names.
        description: what a reader who cannot see it is told.
    """
    from matplotlib import style

    content = io.StringIO()
    with style.context(["default", {**chart_style.STYLE, "svg.hashsalt": identifier}]):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->", r"\sfont-family: [^;\"]*;?"):
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r"'DejaVu Sans'(, [\w-]+)*", "var(--font)", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{identifier}-", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    head = part("svg_head", description, Markup(box[0]))
    svg = re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.DOTALL)
    for variable, value in chart_style.PALETTE.items():
        svg = svg.replace(value, f"var(--{variable})")
    return Markup(re.sub(r"\n\s*", "\n", svg).strip())
