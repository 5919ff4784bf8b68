"""Names of the presets, what each is, and what it costs: what `metadisco list presets` says, without JAX.

Costs are wall-clock minutes of a whole run, its test included, on two CPU cores: measured of a whole run, or projected
from the pace of a shorter one.
"""

from dataclasses import dataclass

_GRIDS = ("grid-unseen", "grid-unseen-long", "grid-designed", "mazes")
_DRIFT = ("Acrobot-v1", "Pendulum-v1")
_REPLAY = "LPG (width 16) by meta-gradients on grid worlds replayed by {}, lifetimes 10..250"
_QUICK = "a drift for PPO, by ES on CartPole, Catch and grid worlds, lifetimes 24..96"
_INVADERS = "a drift for PPO, by ES on MinAtar SpaceInvaders with full lifetimes: for an accelerator"


@dataclass(frozen=True)
class Entry:
    """What is known of a preset before it is built.

    Attributes:
        description: one line.
        minutes: of a whole run; None where it was never measured.
        meta_steps: of a whole run that no limit of time ends before.
        suites: what its objective is tested on.
        is_projected: whether the minutes are projected.
    """

    description: str
    minutes: int | None
    meta_steps: int
    suites: tuple[str, ...] = _GRIDS
    is_projected: bool = False

    @property
    def cost(self) -> str:
        """The minutes as words."""
        if self.minutes is None:
            return "not measured"
        return f"{'about ' if self.is_projected else ''}{self.minutes} min"


PRESETS: dict[str, Entry] = {
    "quickstart": Entry(
        "schedules of A2C's coefficients and of a bonus for what is rare, on general grid worlds and labyrinths by ES, "
        "lifetimes 16..256",
        11,
        120,
        ("grid-unseen", "grid-unseen@16", "grid-unseen@256", "labyrinths"),
        is_projected=True,
    ),
    "smoke": Entry("everything once, tiny; the result is worthless", 1, 30, ("grid-tiny",)),
    "exploring-a2c-long": Entry(
        "the quickstart for longer, with twice the tasks, from schedules that also see how long episodes are",
        None,
        300,
        ("grid-unseen", "labyrinths", "mazes"),
    ),
    "scheduled-a2c-quick": Entry(
        "the schedule of A2C's coefficients without a bonus, on general grid worlds by ES, lifetimes 16..256",
        11,
        100,
        ("grid-unseen", "grid-unseen@16", "grid-unseen@256"),
        is_projected=True,
    ),
    "scheduled-a2c": Entry(
        "the schedule of A2C's coefficients on general grid worlds by ES, lifetimes 16..1000",
        90,
        600,
        is_projected=True,
    ),
    "scheduled-a2c-nres": Entry(
        "the schedule of A2C's coefficients on general grid worlds by noise-reuse ES, lifetimes 16..1000",
        None,
        3600,
    ),
    "scheduled-ppo-quick": Entry(
        "the schedule of PPO's coefficients, by ES on CartPole, Catch and grid worlds, lifetimes 24..96",
        8,
        100,
        _DRIFT,
        is_projected=True,
    ),
    "scheduled-ppo-grid": Entry(
        "the schedule of PPO's coefficients on general grid worlds by ES, lifetimes 16..256",
        15,
        100,
        is_projected=True,
    ),
    "open-quick": Entry(
        "an optimizer for PPO's networks (OPEN), by ES on CartPole and Catch, lifetimes 24..96",
        90,
        60,
        _DRIFT,
        is_projected=True,
    ),
    "open-grid": Entry(
        "an optimizer for A2C's tables (OPEN), by ES on small grid worlds, lifetimes 16..256",
        25,
        100,
        ("grid-unseen",),
        is_projected=True,
    ),
    "ta-lpg-quick": Entry(
        "TA-LPG on general grid worlds by ES, lifetimes 16..96",
        12,
        850,
        ("grid-unseen", "grid-unseen-long"),
    ),
    "ta-lpg-grid": Entry(
        "TA-LPG (width 16) on general grid worlds by ES, lifetimes 10..250", 90, 2500, is_projected=True
    ),
    "lpg-grid": Entry("LPG (width 16) on general grid worlds by ES, lifetimes 10..250", 90, 2500, is_projected=True),
    "lpg-grid-pes": Entry("LPG (width 16) on general grid worlds by persistent ES, lifetimes 10..250", None, 9000),
    "groove-grid-es": Entry(
        "TA-LPG (width 16) by ES on grid worlds replayed by algorithmic regret, lifetimes 10..250",
        180,
        2500,
        is_projected=True,
    ),
    "self-evolving-quick": Entry(
        "the schedule of A2C's coefficients on kinds of rooms and lifetimes that a bandit chooses by their regret",
        None,
        100,
        ("grid-unseen", "grid-unseen@16", "grid-unseen@256"),
    ),
    "lpg-grid-gradient": Entry("LPG (width 16) on general grid worlds by meta-gradients, lifetimes 10..250", 19, 5000),
    "groove-grid": Entry(_REPLAY.format("algorithmic regret"), 25, 5000),
    "plr-uniform": Entry(_REPLAY.format("chance"), 20, 5000, is_projected=True),
    "plr-l1": Entry(_REPLAY.format("L1 value loss"), 20, 5000, is_projected=True),
    "plr-pvl": Entry(_REPLAY.format("positive value loss"), 20, 5000, is_projected=True),
    "plr-maxmc": Entry(_REPLAY.format("MaxMC"), 20, 5000, is_projected=True),
    "plr-learnability": Entry(_REPLAY.format("learnability"), 20, 5000, is_projected=True),
    "plr-optimal-regret": Entry(_REPLAY.format("optimal regret"), 20, 5000, is_projected=True),
    "lpo-quick": Entry(f"LPO, {_QUICK}", 7, 250, _DRIFT),
    "lpo-spaceinvaders": Entry(f"LPO, {_INVADERS}", None, 500, _DRIFT),
    "ta-lpo-quick": Entry(f"TA-LPO, {_QUICK}", 7, 250, _DRIFT),
    "ta-lpo-spaceinvaders": Entry(f"TA-LPO, {_INVADERS}", None, 500, _DRIFT),
}
