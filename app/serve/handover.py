"""What goes with a served source from one hub to another, in another process."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import torch

from app.config import Config
from app.serve.event_log import StoredEvents
from pipeline.capture.looped import Position
from pipeline.core.stats import Snapshot


@dataclass(frozen=True)
class Begin:
    """How a source begins in a hub; the defaults are those of a new one.

    Attributes:
        figures: What was counted of it before; nothing of it is in flight.
        position: How far it was read.
        state: What the estimator remembered of it, as `pack` returns it: its tracks with their
            identities and shapes.
        events: The events that were stored.
        recording: Whether it is to be recorded.
        first_picture: Its pictures' numbers begin after this one.
        every: Only each n-th of its frames is taken.
    """

    figures: Snapshot | None = None
    position: Position | None = None
    state: bytes | None = None
    events: StoredEvents | None = None
    recording: bool = False
    first_picture: int = 0
    every: int = 1


BEGINNING = Begin()
"""How a new source begins."""


@dataclass(frozen=True)
class Handover:
    """A source that a hub has ended: its settings, and how it begins elsewhere."""

    config: Config
    begin: Begin


@dataclass(frozen=True)
class SourceReport:
    """How a source stands in its hub.

    Attributes:
        figures: What was counted of it, without quantiles.
        position: How far it was read; None before its first frame.
        config: Its settings.
        recording: Whether it is to be recorded.
        number: Its number in the hub: another one once it has begun again.
        events: How many events it has had.
    """

    figures: Snapshot
    position: Position | None
    config: Config
    recording: bool
    number: int
    events: int

    def begin_elsewhere(self) -> Begin:
        """Return how the source begins in another hub where this one is gone: frames that were in
        flight are lost, and count as moved."""
        # The events themselves are lost; new ones get the numbers after theirs.
        events = StoredEvents(self.events, ())
        return Begin(
            with_moved(self.figures), self.position, events=events, recording=self.recording
        )


def with_moved(figures: Snapshot) -> Snapshot:
    """Return a source's counters with its frames in flight counted as dropped, cause "moved"."""
    if not figures.in_flight:
        return figures
    moved = figures.dropped.get("moved", 0) + figures.in_flight
    return replace(figures, dropped=figures.dropped | {"moved": moved})


def pack(state: Any) -> bytes:
    """Return an estimator's state of a source as bytes."""
    data = io.BytesIO()
    torch.save(state, data)
    return data.getvalue()


def unpack(data: bytes, device: torch.device) -> Any:
    """Return the state that `pack` was given.

    Args:
        data: What it returned. It is unpickled, so it must come from a hub of the same cluster.
        device: Where this hub's estimator computes; all tensors come there.
    """
    return torch.load(io.BytesIO(data), map_location=device, weights_only=False)
