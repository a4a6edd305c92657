"""The state of a live source, as its user sees it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """The states of a live source.

    Attributes:
        CONNECTING: No picture has come yet.
        LIVE: Pictures come.
        STALLED: Connected, but no picture comes.
        RECONNECTING: Lost; connecting again.
        REFUSED: The source exists but refuses access; tried again from time to time.
        ENDED: Closed, or at its end.
    """

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    REFUSED = "refused"
    ENDED = "ended"


@dataclass(frozen=True)
class Status:
    """A state and its reason.

    Attributes:
        state: The state.
        reason: One line without credentials, or "".
        since_ns: When the state began, in nanoseconds of the monotonic clock.
    """

    state: State
    reason: str = ""
    since_ns: int = 0
