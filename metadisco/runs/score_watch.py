"""Warnings of scores that say nothing: the same for all levels, or never finite, over a window of meta-steps.

A curriculum that is given such scores goes on and chooses levels as if by chance, and nothing else would show it. The
loop looks at the rows that it logs: `nonfinite_scores` is there where a curriculum learns from scores, beside
`score_low`, `score_high` and `num_scored` of the lives that have ended.
"""

import math
from dataclasses import dataclass

from metadisco.runs.run_folder import Row

WINDOW = 25  # meta-steps
MIN_SCORES = 8  # in a window; of fewer nothing is said
ROUNDING = 1e-6  # of the largest score: a difference within it is none
_MARK = "nonfinite_scores"


@dataclass
class _Window:
    """The scores of one domain since the last multiple of `WINDOW`."""

    first_step: int
    low: float = math.inf
    high: float = -math.inf
    num_finite: int = 0
    num_nonfinite: int = 0

    def add(self, row: Row, domain: str) -> None:
        self.num_nonfinite += int(row[_MARK + domain])
        num = int(row.get(f"num_scored{domain}", 0))
        if num:
            self.num_finite += num
            self.low = min(self.low, row[f"score_low{domain}"])
            self.high = max(self.high, row[f"score_high{domain}"])

    def warning(self, last_step: int, domain: str) -> str | None:
        """What to say of it; None where the scores are as they should be, or too few."""
        where = f"Warning: meta-steps {self.first_step} to {last_step}"
        levels = f"levels of {domain.removeprefix('/')}" if domain else "levels"
        if self.num_finite == 0 and self.num_nonfinite >= MIN_SCORES:
            return (
                f"{where}: none of {self.num_nonfinite} scores of {levels} was finite, so the curriculum has learned "
                "nothing. Agents have diverged, or the score cannot be computed on these levels: lower the agents' "
                "learning rates, find the first NaN with JAX_DEBUG_NANS=1, or use another score."
            )
        is_constant = self.high - self.low <= ROUNDING * max(abs(self.high), abs(self.low))
        if self.num_finite >= MIN_SCORES and is_constant:
            return (
                f"{where}: all {self.num_finite} scores of {levels} were {self.high:.4g}, so the curriculum cannot "
                "tell levels apart. Use a score in which they differ, levels on which agents differ, or longer "
                "lifetimes; DomainRandomization is as good as this, and costs less."
            )
        return None


class ScoreWatch:
    """Reads the rows of a run in their order."""

    def __init__(self) -> None:
        self.windows: dict[str, _Window] = {}  # suffix of a domain's metrics -> its present window

    def look(self, rows: list[Row]) -> list[str]:
        """Warnings of the windows that end with one of these rows, at most one for each window and domain."""
        found: list[str] = []
        for row in rows:
            step = int(row["step"])
            for domain in [name.removeprefix(_MARK) for name in row if name.startswith(_MARK)]:
                self.windows.setdefault(domain, _Window(step)).add(row, domain)
            if step % WINDOW == 0:
                warnings = [window.warning(step, domain) for domain, window in self.windows.items()]
                found += [warning for warning in warnings if warning is not None]
                self.windows = {}
        return found
