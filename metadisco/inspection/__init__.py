"""What a checkpoint does, measured: its inputs, their worth, schedules, and what becomes of entropy."""

from metadisco.inspection.measures import Inspection, inspect
from metadisco.inspection.pictures import figures, write
from metadisco.inspection.text import explain

__all__ = ["Inspection", "explain", "figures", "inspect", "write"]
