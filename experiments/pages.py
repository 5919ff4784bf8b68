"""Parts of pages that programs write: what is between two marks."""

from pathlib import Path


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text between the marks of a page, in place of what is there; a page without them stays as it is."""
    before, found, rest = page.read_text().partition(begin)
    if found:
        page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")
