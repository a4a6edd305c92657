"""What every perceiver promises."""

from __future__ import annotations

from typing import Any, Protocol

from pipeline.core.frame import Window
from pipeline.core.people import Person


class Perceiver(Protocol):
    """Finds people in windows. It holds no state of any source: what it remembers goes in and
    comes out as ``memory`` (None: nothing is remembered), so one perceiver serves many sources.
    """

    name: str

    def prepare(self, window: Window) -> Window:
        """The window as ``embed`` and ``decode`` want it: with its frames where they compute."""
        ...

    def embed(self, window: Window, memory: Any) -> Any:
        """The heavy half: looks at ``window.key_frame`` only and returns an embedding."""
        ...

    def decode(self, embedding: Any, window: Window) -> tuple[list[tuple[Person, ...]], Any]:
        """The light half: the people of every frame, in the window's order, and the memory to
        hand to the next window's ``embed``."""
        ...

    def close(self) -> None:
        """Give back what the models hold."""
        ...
