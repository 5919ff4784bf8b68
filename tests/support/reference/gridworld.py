"""Grid worlds once more: slow, plain Python, written from the description of the rules and not from the package.

Levels are read into Python numbers and lists; cells are numbered row by row; noise is what the package draws, so that
both can be compared step by step.
"""

import functools
import itertools
from dataclasses import dataclass, field

import numpy as np

MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)]  # up, down, left, right, stay


@dataclass
class Level:
    """A level as Python numbers."""

    rows: int
    columns: int
    walls: list[bool]
    start: int
    object_cell: list[int]
    object_type: list[int]
    reward: list[float]
    p_terminate: list[float]
    p_respawn: list[float]
    max_steps: int

    @classmethod
    def read(cls, env, level) -> "Level":
        values = {
            name: np.asarray(getattr(level, name)).tolist() for name in cls.__annotations__ if hasattr(level, name)
        }
        return cls(rows=env.rows, columns=env.columns, **values)


def move(level: Level, cell: int, action: int) -> int:
    """The cell after an action."""
    row, column = divmod(cell, level.columns)
    down, right = MOVES[action]
    row, column = row + down, column + right
    if not (0 <= row < level.rows and 0 <= column < level.columns):
        return cell
    target = row * level.columns + column
    return cell if level.walls[target] else target


def distances(level: Level) -> dict[int, int]:
    """Breadth-first search from the start: cells that can be reached, with the number of steps."""
    found = {level.start: 0}
    queue = [level.start]
    for cell in queue:
        for action in range(5):
            target = move(level, cell, action)
            if target not in found:
                found[target] = found[cell] + 1
                queue.append(target)
    return found


@dataclass
class Simulator:
    """One worker. Objects that wait toss one coin per step; the coins of one wait come from a single uniform number."""

    level: Level
    num_types: int = 0
    random_positions: bool = False
    cell: int = 0
    time: int = 0
    object_cell: list[int] = field(default_factory=list)
    waiting: list = field(default_factory=list)  # None where the object is present, else [uniform, P(still waiting)]

    def reset(self, placement: np.ndarray) -> None:
        level = self.level
        self.cell, self.time = level.start, 0
        self.waiting = [None] * len(level.object_cell)
        if not self.random_positions:
            self.object_cell = list(level.object_cell)
            return
        self.object_cell = []
        for k, cell in enumerate(level.object_cell):
            self.object_cell.append(self._random_free_cell(placement[k]) if cell >= 0 else -1)

    def step(self, action: int, event: float, placement: np.ndarray) -> tuple[float, bool, bool]:
        """Act; returns reward, terminated, truncated."""
        level = self.level
        self.cell = move(level, self.cell, action)
        self.time += 1
        reward, terminated = 0.0, False
        for k in range(len(level.object_cell)):
            if self.object_cell[k] < 0:
                continue
            if self.waiting[k] is not None:
                # One more coin: it has come up by now with probability 1 - (1 - p)^steps.
                self.waiting[k][1] *= 1.0 - level.p_respawn[k]
                if self.waiting[k][0] < 1.0 - self.waiting[k][1]:
                    self.waiting[k] = None
            elif self.object_cell[k] == self.cell:
                reward += level.reward[k]
                terminated = event < level.p_terminate[k]
                if not terminated:
                    self.waiting[k] = [(event - level.p_terminate[k]) / (1.0 - level.p_terminate[k]), 1.0]
                else:
                    self.waiting[k] = [2.0, 1.0]
                if self.random_positions:
                    self.object_cell[k] = self._random_free_cell(placement[0])
        return reward, terminated, self.time >= level.max_steps and not terminated

    def present(self) -> list[bool]:
        return [cell >= 0 and waiting is None for cell, waiting in zip(self.object_cell, self.waiting, strict=True)]

    def index(self) -> int:
        """Tabular observation."""
        subset = sum(2**k for k, here in enumerate(self.present()) if here)
        return self.cell + self.level.rows * self.level.columns * subset

    def planes(self) -> np.ndarray:
        """Observation for networks."""
        planes = np.zeros((self.level.rows, self.level.columns, 1 + self.num_types), np.float32)
        planes[self.cell // self.level.columns, self.cell % self.level.columns, 0] = 1.0
        for k, here in enumerate(self.present()):
            if here:
                row, column = divmod(self.object_cell[k], self.level.columns)
                planes[row, column, 1 + self.level.object_type[k]] = 1.0
        return planes

    def _random_free_cell(self, uniform: float) -> int:
        taken = {self.cell, *self.object_cell}
        free = [cell for cell, wall in enumerate(self.level.walls) if not wall and cell not in taken]
        return free[int(float(uniform) * len(free))]


def expected_return(level: Level, probabilities=None) -> float:
    """Expected episode return by walking the whole tree of events, one Bernoulli draw per absent object and step.

    Args:
        level: tiny.
        probabilities: [S, A] of a stationary policy; None for the best policy.
    """
    exists = tuple(cell >= 0 for cell in level.object_cell)

    @functools.cache
    def value(cell: int, present: tuple[bool, ...], steps_left: int) -> float:
        if steps_left == 0:
            return 0.0
        values = [after(move(level, cell, action), present, steps_left) for action in range(5)]
        if probabilities is None:
            return max(values)
        subset = sum(2**k for k, here in enumerate(present) if here)
        row = probabilities[cell + level.rows * level.columns * subset]
        return sum(float(p) * v for p, v in zip(row, values, strict=True))

    def after(cell: int, present: tuple[bool, ...], steps_left: int) -> float:
        reward, go_on = 0.0, 1.0
        options = []
        for k, here in enumerate(present):
            if here and level.object_cell[k] == cell:
                reward, go_on = level.reward[k], 1.0 - level.p_terminate[k]
                options.append([(False, 1.0)])
            elif here:
                options.append([(True, 1.0)])
            elif exists[k]:
                options.append([(True, level.p_respawn[k]), (False, 1.0 - level.p_respawn[k])])
            else:
                options.append([(False, 1.0)])
        future = 0.0
        for outcome in itertools.product(*options):
            weight = np.prod([p for _, p in outcome])
            future += weight * value(cell, tuple(here for here, _ in outcome), steps_left - 1)
        return reward + go_on * future

    return value(level.start, exists, level.max_steps)


def assert_legal(levels):
    """Start and objects on distinct free cells; nothing is left of objects that do not exist."""
    for i in range(levels.start.shape[0]):
        exists = levels.object_cell[i] >= 0
        cells = [levels.start[i], *levels.object_cell[i][exists]]
        assert len(set(cells)) == len(cells)
        assert not levels.walls[i][cells].any()
        for name in ("reward", "p_terminate", "p_respawn"):
            assert (getattr(levels, name)[i][~exists] == 0).all()
