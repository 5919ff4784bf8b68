"""Mazes of 13x13 cells to test on: one start, one goal, long detours (in the spirit of arXiv:2310.02782).

A maze is a drawing: `#` wall, `.` free, `S` start, `G` goal. All were drawn by hand or by maze-building algorithms, so
none comes from a distribution that anything is trained on.
"""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np

from metadisco.envs.gridworld.dynamics import GridLevel, GridWorld

MAZES: Mapping[str, str] = MappingProxyType(
    {
        "sixteen_rooms": """
S............
..#...#...#..
.###.###.###.
..#...#...#..
.............
..#...#...#..
.###.###.###.
..#...#...#..
.............
..#...#...#..
.###.###.###.
..#...#...#..
............G
""",
        "sixteen_rooms_few_doors": """
..#...#...#..
.S........#..
########.##.#
..#...#...#..
..........#..
..#...#...#..
#.#########.#
..#...#...#..
......#......
..#...#...#..
####.######.#
...........G.
..#...#...#..
""",
        "four_rooms": """
......#......
.S....#......
......#......
.............
......#......
......#......
##.#######.##
......#......
......#......
.............
......#......
......#....G.
......#......
""",
        "spiral": """
S............
############.
...........#.
.#########.#.
.#.......#.#.
.#.#####.#.#.
.#.#..G#.#.#.
.#.#.###.#.#.
.#.#.....#.#.
.#.#######.#.
.#.........#.
.###########.
.............
""",
        "zigzag": """
S............
############.
.............
.############
.............
############.
.............
.############
.............
############.
.............
.############
............G
""",
        "perfect_maze_winding": """
G....#.......
####.###.####
...#...#.....
##.###.#####.
.....#.#.....
.###.#.#.###.
.#...#.#...#.
.#####.###.#.
.#.....#...#.
.#.#####.###.
.#...#...#...
.###.#.###.##
.......#....S
""",
        "perfect_maze_bushy": """
.............
.###.########
.#.#........G
.#.#.########
...#.#.....#.
##.###.#####.
.............
.#.##########
.#...#.#.#.#S
####.#.#.#.#.
.............
.#.#.#.#.####
.#.#.#.#.....
""",
        "perfect_maze_mixed": """
...........#.
.#########.#.
.......#.#...
.###.#.#.###.
.#.#.#...#.#G
##.#.#.###.##
.#...#.......
.###.#.#####.
.....#...#...
.###.###.###.
...#.#.....#.
.#######.#.##
......S#.#...
""",
        "labyrinth": """
.....#.......
.###########.
.#..#......#.
.#.###.###.#.
.#.#.....#.#.
.#.#.###.#.#.
.#.#.#G#.#.#.
.#.#.#.#.#.#.
.#.##....#.#.
.#.#######.#.
.#.........#.
.#####.#####.
S............
""",
        "small_corridor": """
#############
#############
#############
.#.#.#.#.#G#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
S............
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
#############
#############
#############
""",
        "large_corridor": """
.#.#.#.#.#G#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
S............
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
""",
        "pillars": """
S............
.#.#.#.#.#.#.
.............
.#.#.#.#.#.#.
.............
.#.#.#.#.#.#.
.............
.#.#.#.#.#.#.
.............
.#.#.#.#.#.#.
.............
.#.#.#.#.#.#.
............G
""",
        "trap": """
.............
.............
..#########..
..........#..
..........#..
..........#..
........S.#.G
..........#..
..........#..
..........#..
..#########..
.............
.............
""",
        "open_room": """
............G
.............
.............
.............
.............
.............
.............
.............
.............
.............
.............
.............
S............
""",
    }
)


def maze(name: str, *, max_steps: int = 250) -> tuple[GridWorld, GridLevel]:
    """Look up a maze: the tabular grid world that it is for, and the level.

    Args:
        name: a key of `MAZES`.
        max_steps: episode length.

    Raises:
        ValueError: there is no maze of that name.

    Example:
        >>> env, level = maze("zigzag")
        >>> env.rows, env.columns, int(level.max_steps)
        (13, 13, 250)
    """
    if name not in MAZES:
        raise ValueError(f"no maze is called {name!r}; choose from {', '.join(MAZES)}")
    lines = MAZES[name].strip().splitlines()
    env = GridWorld(rows=len(lines), columns=len(lines[0]), num_objects=1, num_types=1)
    return env, parse_ascii(MAZES[name], max_steps=max_steps)


def parse_ascii(text: str, *, max_steps: int = 250) -> GridLevel:
    """Read a drawing of a maze. The goal gives reward 1 and ends the episode.

    Args:
        text: lines of equal length with exactly one `S` and one `G`; blank lines around them are ignored.
        max_steps: episode length.

    Returns:
        A level with one object, for a grid world of the size of the drawing.

    Raises:
        ValueError: unequal lines, unknown symbols, not exactly one start and one goal, or no time.
    """
    lines = text.strip().splitlines()
    if len({len(line) for line in lines}) != 1:
        raise ValueError(f"a maze needs lines of equal length, got lengths {[len(line) for line in lines]}")
    symbols = "".join(lines)
    unknown = set(symbols) - set("#.SG")
    if unknown:
        raise ValueError(f"a maze is drawn with '#', '.', 'S' and 'G', got {sorted(unknown)}")
    for symbol, meaning in (("S", "start"), ("G", "goal")):
        if symbols.count(symbol) != 1:
            raise ValueError(f"a maze has exactly one {meaning} {symbol!r}, got {symbols.count(symbol)}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    return GridLevel(
        walls=jnp.asarray(np.array(list(symbols)) == "#"),
        start=jnp.asarray(symbols.index("S"), jnp.int32),
        object_cell=jnp.array([symbols.index("G")], jnp.int32),
        object_type=jnp.zeros(1, jnp.int32),
        reward=jnp.ones(1),
        p_terminate=jnp.ones(1),
        p_respawn=jnp.zeros(1),
        max_steps=jnp.asarray(max_steps, jnp.int32),
    )
