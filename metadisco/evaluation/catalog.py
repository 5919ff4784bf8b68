"""Names of the suites and what each is: what `metadisco list suites` says, without JAX."""

from collections.abc import Mapping
from types import MappingProxyType

GRID_SUITES: Mapping[str, str] = MappingProxyType(
    {
        "grid-unseen": "general grid worlds that were never trained or tuned on",
        "grid-unseen-long": "the first levels of grid-unseen at four times the lifetime",
        "grid-heldout": "general grid worlds that nothing was chosen on: not looked at while objectives were developed",
        "grid-validation": "general grid worlds to tune on",
        "grid-designed": "the five hand-designed tabular levels of arXiv:2007.08794, four draws of the positions each",
        "grid-random": "the five designs whose objects move, as levels where they stay, four draws of the positions "
        "each",
        "labyrinths": "random rooms full of walls, whose one reward is 12 steps away and more",
        "labyrinths-validation": "random labyrinths to tune on",
        "mazes": "mazes of 13 x 13 cells",
        "grid-tiny": "small rooms with short episodes, for a look at the machinery",
    }
)
"""Suites of grid worlds: name -> description."""

_GAMES = (
    "alien amidar assault asterix bank_heist battle_zone boxing breakout chopper_command crazy_climber demon_attack "
    "freeway frostbite gopher hero jamesbond kangaroo krull kung_fu_master ms_pacman pong private_eye qbert "
    "road_runner seaquest up_n_down"
)
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "classic": ("CartPole-v1", "Acrobot-v1", "Pendulum-v1"),
        "bsuite": ("Catch-bsuite", "DeepSea-bsuite", "DiscountingChain-bsuite", "UmbrellaChain-bsuite"),
        "minatar": ("Breakout-MinAtar", "Asterix-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar"),
        "brax": (
            "brax-inverted_pendulum",
            "brax-reacher",
            "brax-inverted_double_pendulum",
            "brax-hopper",
            "brax-halfcheetah",
        ),
        "atari": tuple(f"atari-{game}" for game in _GAMES.split()),
    }
)
"""Names for several suites at once; each member is a suite of one environment."""

UPPER_ANCHORS: Mapping[str, str] = MappingProxyType(
    {"optimal": "the optimum", "human": "the published score of a human", "reference": "PPO at its usual budget"}
)
"""What can have the score 1, by the name under which it stands among the agents of a table."""


UNSCALED = "unscaled"
"""In place of an upper anchor where no scale is known: scores are returns."""


def upper_anchor(name: str) -> str:
    """What has the score 1 on an environment: "human" for Atari, "optimal" where it is known, else "reference"."""
    if name.startswith("atari-"):
        return "human"
    return "optimal" if name.endswith("-bsuite") else "reference"
