"""Catalogs: named parts that are imported when they are used, from this tree or from outside it.

A catalog maps names to "module:attribute". A package outside the tree adds to it by an entry point
in the catalog's group, so that adding a part touches no file here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


@dataclass(frozen=True)
class Catalog:
    """Parts of one kind, by name.

    Args:
        kind: What one part is called in messages, such as "perceiver".
        group: The entry-point group for parts from outside.
        parts: The parts of this tree: name to "module:attribute".
    """

    kind: str
    group: str
    parts: Mapping[str, str]

    def names(self) -> list[str]:
        """Return every name that can be used here, this tree's first."""
        return [*self.parts, *(name for name in self._outside() if name not in self.parts)]

    def check(self, name: str) -> None:
        """Do nothing for a known name.

        Raises:
            ValueError: Nothing has this name; the message lists the names and suggests one.
        """
        names = self.names()
        if name in names:
            return
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no {self.kind} {name!r}; there are: {', '.join(names)}{hint}")

    def load(self, name: str) -> Any:
        """Import a part and return it.

        Raises:
            ValueError: Nothing has this name.
            ImportError: The part, or something that it needs, cannot be imported.
        """
        self.check(name)
        # A name of this tree cannot be taken over from outside.
        if name not in self.parts:
            return self._outside()[name].load()
        module, _, attribute = self.parts[name].partition(":")
        return getattr(import_module(module), attribute)

    def _outside(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}
