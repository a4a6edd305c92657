"""What a live source is doing, for whoever watches it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """``connecting``: its first picture is waited for; ``live``; ``stalled``: connected, but no
    picture comes; ``reconnecting``: lost and tried again; ``refused``: it is there and does not
    let us, tried again now and then; ``ended``."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    REFUSED = "refused"
    ENDED = "ended"


@dataclass(frozen=True)
class Status:
    """A state, why (a line without logins, or nothing), and since when (monotonic ns)."""

    state: State
    reason: str = ""
    since_ns: int = 0
