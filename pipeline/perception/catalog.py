"""The names of the perceivers."""

from __future__ import annotations

import difflib


def names() -> list[str]:
    """Return the names of all perceivers."""
    return ["blazepose"]


def check(name: str) -> None:
    """Raise ValueError, with a suggestion, if there is no perceiver of that name."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no {name!r}; there are: {', '.join(names())}{hint}")
