"""Settings that are numbers as arguments of a program, so that one compilation shows what each of them does."""

import operator
from copy import copy


def with_values(component, values):
    """A copy with other numbers, by their paths; also traced ones, which no check could pass."""
    component = copy(component)
    for path, value in values.items():
        name, _, rest = path.partition(".")
        object.__setattr__(component, name, with_values(getattr(component, name), {rest: value}) if rest else value)
    return component


def values_of(component, paths):
    """The numbers that a component has, by their paths."""
    return {path: operator.attrgetter(path)(component) for path in paths}
