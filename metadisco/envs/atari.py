"""Atari 2600 games (arXiv:1207.4708) by ale-py, which brings the games along.

Preprocessing is the usual one (arXiv:1312.5602, arXiv:1709.06009): up to 30 no-ops at the start, every action for four
frames, the maximum of the last two, 84 x 84 gray pixels, four of them stacked; fire where a game waits for it. Agents
learn from the signs of rewards and take a lost life for an end; they are evaluated on whole games and true scores.

Scores are of the 26 games that are usual for small budgets (arXiv:1903.00374). Those of the random policy and of a
human are the published ones that human-normalised scores are computed from (arXiv:1511.06581).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from metadisco.core.config import nearest
from metadisco.core.jax_defaults import own_defaults
from metadisco.envs.base import Box, Discrete, EnvSpec
from metadisco.envs.host import require


class Game(NamedTuple):
    """What is known of a game."""

    num_actions: int  # that do something in it
    random_score: float
    human_score: float


GAMES: Mapping[str, Game] = MappingProxyType(
    {
        "alien": Game(18, 227.8, 7127.7),
        "amidar": Game(10, 5.8, 1719.5),
        "assault": Game(7, 222.4, 742.0),
        "asterix": Game(9, 210.0, 8503.3),
        "bank_heist": Game(18, 14.2, 753.1),
        "battle_zone": Game(18, 2360.0, 37187.5),
        "boxing": Game(18, 0.1, 12.1),
        "breakout": Game(4, 1.7, 30.5),
        "chopper_command": Game(18, 811.0, 7387.8),
        "crazy_climber": Game(9, 10780.5, 35829.4),
        "demon_attack": Game(6, 152.1, 1971.0),
        "freeway": Game(3, 0.0, 29.6),
        "frostbite": Game(18, 65.2, 4334.7),
        "gopher": Game(8, 257.6, 2412.5),
        "hero": Game(18, 1027.0, 30826.4),
        "jamesbond": Game(18, 29.0, 302.8),
        "kangaroo": Game(18, 52.0, 3035.0),
        "krull": Game(18, 1598.0, 2665.5),
        "kung_fu_master": Game(14, 258.5, 22736.3),
        "ms_pacman": Game(9, 307.3, 6951.6),
        "pong": Game(6, -20.7, 14.6),
        "private_eye": Game(18, 24.9, 69571.3),
        "qbert": Game(6, 163.9, 13455.0),
        "road_runner": Game(18, 11.5, 7845.0),
        "seaquest": Game(18, 68.4, 42054.7),
        "up_n_down": Game(6, 533.4, 11693.2),
    }
)


@own_defaults
@dataclass(frozen=True)
class Atari:
    """A game, in parallel threads.

    Attributes:
        game: one of `GAMES`.
        max_frames: after which a game is truncated.
        sticky: probability that an action is ignored and the one before it repeated (arXiv:1709.06009); published
            human-normalised scores are mostly for 0.

    Example:
        >>> Atari("pong").spec
        EnvSpec(observation=Box(shape=(84, 84, 4), low=-inf, high=inf), action=Discrete(num=6))
    """

    game: str
    max_frames: int = 108_000
    sticky: float = 0.0

    def __post_init__(self) -> None:
        if self.game not in GAMES:
            raise ValueError(f"Atari.game {self.game!r} is unknown.{nearest(self.game, GAMES)}")
        if self.max_frames < 4:
            raise ValueError(f"Atari.max_frames must be at least 4, one step, got {self.max_frames}")
        if not 0.0 <= self.sticky < 1.0:
            raise ValueError(f"Atari.sticky must be in [0, 1), got {self.sticky}")

    @property
    def spec(self) -> EnvSpec:
        """Images of bytes, and the actions that do something in the game. Needs no library."""
        return EnvSpec(Box((84, 84, 4)), Discrete(GAMES[self.game].num_actions))

    def check(self) -> None:
        """Raise ConfigError where ale-py is missing."""
        require("ale_py", needed_by=f"Atari ({self.game})", install='pip install "metadisco[atari]"')

    def make(self, num_workers: int, *, training: bool, noop_max: int = 30) -> Any:
        """ale-py's own vector environment, with up to `noop_max` no-ops at the start of a game."""
        self.check()
        from ale_py.vector_env import AtariVectorEnv
        from gymnasium.vector import AutoresetMode

        return AtariVectorEnv(
            self.game,
            num_workers,
            autoreset_mode=AutoresetMode.SAME_STEP,
            max_num_frames_per_episode=self.max_frames,
            repeat_action_probability=self.sticky,
            noop_max=noop_max,
            frameskip=4,
            maxpool=True,
            stack_num=4,
            use_fire_reset=True,
            episodic_life=training,
            reward_clipping=training,
        )

    def observe(self, obs: np.ndarray) -> np.ndarray:
        """Frames are channels: [B, 4, 84, 84] to [B, 84, 84, 4], bytes."""
        return np.moveaxis(obs, 1, -1)
