"""The report of a run: one HTML file that needs nothing else."""

from metadisco.report.page import write

__all__ = ["write"]
