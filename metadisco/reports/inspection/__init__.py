"""What a checkpoint does, measured: its inputs, their worth, schedules, and what becomes of entropy."""

from metadisco.reports.inspection.measures import Inspection, inspect
from metadisco.reports.inspection.pictures import figures, write
from metadisco.reports.inspection.text import explain

__all__ = ["Inspection", "explain", "figures", "inspect", "write"]
