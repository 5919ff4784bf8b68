"""The report of a run: one HTML file that needs nothing else."""

from metadisco.reports.page import write

__all__ = ["write"]
