"""How suites are asked for by name: one of them or a group, at its own lifetime or at others.

    NAME              a suite, or each one of a group, at the lifetime that it is meant for
    NAME@250          at a lifetime of 250 agent updates
    NAME@x4           at four times its own; NAME@x1/4 at a quarter
    horizons:NAME     at 1/4, 1, 4 and 16 times its own
    horizons:NAME@64  at 1/4, 1, 4 and 16 times 64 agent updates, such as the lifetime that an objective was trained on

Factors are of the suite's own lifetime, since environments differ in what a usual budget is. A lifetime that is not a
whole number is rounded; below 1 there is none.
"""

from fractions import Fraction

from metadisco.core import config
from metadisco.evaluation import suites

HORIZONS = (Fraction(1, 4), Fraction(1), Fraction(4), Fraction(16))
_PREFIX = "horizons:"


def find(name: str) -> list[tuple[suites.Suite, int | None]]:
    """All that a name stands for: suites and their lifetimes, None for their own.

    Raises:
        config.ConfigError: where there is no such suite or group, or the lifetime is not one.

    Example:
        >>> [(suite.name, lifetime) for suite, lifetime in find("horizons:grid-tiny")]
        [('grid-tiny', 2), ('grid-tiny', None), ('grid-tiny', 32), ('grid-tiny', 128)]
    """
    plain, at, wanted = name.removeprefix(_PREFIX).partition("@")
    factors = HORIZONS if name.startswith(_PREFIX) else (Fraction(1),)
    if at and not wanted:
        raise config.ConfigError(f"{name!r} says no lifetime after @; write NAME@LIFETIME or NAME@xFACTOR")
    chosen = [suites.suite(member) for member in suites.GROUPS.get(plain, (plain,))]
    return [(suite, _lifetime(name, suite, wanted, factor)) for suite in chosen for factor in factors]


def _lifetime(name: str, suite: suites.Suite, wanted: str, factor: Fraction) -> int | None:
    """Agent updates; None where they are the suite's own."""
    if wanted.startswith("x"):
        factor *= _factor(name, wanted)
    elif wanted:
        if not (wanted.isdecimal() and int(wanted) > 0):
            raise config.ConfigError(
                f"{name!r}: the lifetime after @ must be a positive integer, or a factor such as x4 or x1/4, got "
                f"{wanted!r}"
            )
        return _rounded(name, suite, factor * int(wanted))
    return None if factor == 1 else _rounded(name, suite, factor * suite.lifetime)


def _factor(name: str, wanted: str) -> Fraction:
    try:
        factor = Fraction(wanted[1:])
    except (ValueError, ZeroDivisionError):
        factor = Fraction(0)
    if factor <= 0:
        raise config.ConfigError(
            f"{name!r}: the factor after @x must be a positive number such as 4, 1/4 or 0.25, got {wanted[1:]!r}"
        )
    return factor


def _rounded(name: str, suite: suites.Suite, lifetime: Fraction) -> int:
    if lifetime < 1:
        raise config.ConfigError(
            f"{name!r}: {suite.name} would live for {float(lifetime):g} agent updates; ask for a lifetime of at least 1"
        )
    return round(lifetime)
