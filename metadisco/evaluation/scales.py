"""Scales that were measured here, of environments without one of their own: what has the score 0, and what has 1.

They are kept in one file of the user's, `$XDG_DATA_HOME/metadisco/scales.json` (`~/.local/share/...` by default), which
`metadisco tune` writes and whoever tests on the environment reads.
"""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from metadisco.core import config
from metadisco.core.files import write_atomically


@dataclass(frozen=True)
class Scale:
    """What agents get on an environment.

    Attributes:
        random_return: mean return before anything is learned; the score 0.
        upper_return: mean return of PPO at its best rate, after `lifetime`; the score 1.
        lifetime: agent updates.
        rate_factor: of the usual rate of learning, the best that was tried.
        num_seeds: agents that were measured.
    """

    random_return: float
    upper_return: float
    lifetime: int
    rate_factor: float
    num_seeds: int

    def __post_init__(self) -> None:
        config.check_counts(self, "lifetime", "num_seeds")
        config.check_positive(self, "rate_factor")
        if not (math.isfinite(self.upper_return) and self.upper_return > self.random_return):
            raise ValueError(
                f"PPO's return {self.upper_return:g} is not above that of a policy that has not learned, "
                f"{self.random_return:g}: that makes no scale; give it more updates"
            )


def path() -> Path:
    """Where the scales are kept."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "metadisco" / "scales.json"


def read() -> dict[str, Scale]:
    """All scales by the name of their environment; none where nothing was measured yet.

    Raises:
        config.ConfigError: where the file is damaged; says which it is.
    """
    try:
        return {name: Scale(**fields) for name, fields in json.loads(path().read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise config.ConfigError(f"{path()} is damaged ({error}): remove it, and measure its scales again") from error


def keep(name: str, scale: Scale) -> None:
    """Add the scale of an environment, or replace it."""
    known = read() | {name: scale}
    rows = {each: asdict(known[each]) for each in sorted(known)}
    path().parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path(), (json.dumps(rows, indent=1) + "\n").encode())
