"""Copies of records with other values, where `dataclasses.replace` takes too long: following people
makes them by the dozen in each window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def replaced(record: T, **values: Any) -> T:
    """Return what `dataclasses.replace` returns, in two thirds of its time.

    Args:
        record: An instance of a dataclass of at least two fields, all of which its constructor
            takes by position.
        **values: The fields to replace.

    Raises:
        KeyError: There is no such field.
        TypeError: The constructor takes a field by name only, or not at all.
    """
    kind: Any = type(record)
    read, places = _layout(kind)
    new = list(read(record))
    for name, value in values.items():
        new[places[name]] = value
    return kind(*new)


@cache
def _layout(kind: Any) -> tuple[Callable[[Any], tuple[Any, ...]], dict[str, int]]:
    """What reads all fields of a dataclass, and the place of each."""
    for field in fields(kind):
        if field.kw_only or not field.init:
            raise TypeError(f"{kind.__name__}.{field.name} is not taken by position")
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), {name: place for place, name in enumerate(names)}
