"""Write the notebooks as pages of the documentation: `python -m notebooks.pages`, after a notebook has changed.

The pages, docs/notebooks/, show text and code. What comes out depends on the machine and takes minutes, so notebooks
are kept without outputs, and so are the pages; `make notebooks` executes them into build/notebooks.
"""

import re
from pathlib import Path

import nbformat

from notebooks.execute import notebooks

PAGES = Path(__file__).parents[1] / "docs" / "notebooks"
NOT_RUN = "<!-- not run: the tests execute the notebook -->"
MAGIC = re.compile(r"(?m)^%.*\n?")


def page(path: Path) -> str:
    """A notebook as Markdown, with a word on where it is after its title."""
    title, *rest = (_cell(cell) for cell in nbformat.read(path, as_version=4).cells)
    heading, _, text = title.partition("\n")
    where = f"*From the checkout: `jupyter lab notebooks/{path.name}`, or `make notebooks` for all with outputs.*"
    return "\n\n".join([heading, where, text.strip(), *filter(None, rest)]) + "\n"


def _cell(cell: nbformat.NotebookNode) -> str:
    if cell.cell_type != "code":
        return re.sub(r"\((\d\d_\w+)\.ipynb\)", r"(\1.md)", cell.source).strip()
    if cell.source.startswith("%%"):  # a whole cell of another language, or a file that is written
        return f"```text\n{cell.source.strip()}\n```"
    return f"{NOT_RUN}\n```python\n{MAGIC.sub('', cell.source).strip()}\n```"


def main() -> None:
    """Write all of them."""
    PAGES.mkdir(exist_ok=True)
    for path in notebooks():
        (PAGES / f"{path.stem}.md").write_text(page(path))


if __name__ == "__main__":
    main()
