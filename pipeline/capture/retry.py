"""How long to wait before a source is tried again."""

from __future__ import annotations

from pipeline.capture.errors import (
    SourceError,
    SourceLogin,
    SourceNotThere,
    SourceNotVideo,
    SourceRefused,
)

FIRST_TRY_S = 10.0
"""Default time for the first connection; a source that has been live is tried without a limit."""
PAUSES_S: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
"""Pauses between tries, in order; the last one repeats. So for those below."""
_NOT_THERE_PAUSES_S = (2.0,)
"""For a server that may be waiting for its camera. Also for a missing login: without one, no tries
count as guesses at a password."""
_NOT_VIDEO_PAUSES_S = (1.0, 2.0, 5.0, 10.0)
"""For a server that sends no video, or none that can be decoded. It may send another soon."""
_REFUSED_PAUSES_S = (5.0, 10.0, 20.0, 30.0)
_LOGIN_PAUSES_S = (2.0, 30.0, 300.0)
"""For a refused login. A camera that is starting may not know its users yet, but many cameras lock
an account after five failures in five minutes, its owner included."""
_JITTER = 0.25


def pauses_s(error: SourceError, name: str) -> tuple[float, ...]:
    """Return the pauses between tries, in seconds, after an error; the last one repeats.

    Args:
        error: What ended the last try.
        name: The source's name. It holds no credentials but shows ("***@") whether the address
            does.
    """
    if isinstance(error, SourceLogin) and "***@" in name:
        return _LOGIN_PAUSES_S
    if isinstance(error, SourceNotThere | SourceLogin):
        return _NOT_THERE_PAUSES_S
    if isinstance(error, SourceNotVideo):
        return _NOT_VIDEO_PAUSES_S
    return _REFUSED_PAUSES_S if isinstance(error, SourceRefused) else PAUSES_S


def pause_s(pauses: tuple[float, ...], tries: int, random: float) -> float:
    """Return the pause after ``tries`` failures, in seconds.

    It is shortened by up to a quarter, so that many lost sources do not reconnect at once.

    Args:
        pauses: As `pauses_s` returns them.
        tries: The failures before, from 0.
        random: A random number from 0 to 1.
    """
    return pauses[min(tries, len(pauses) - 1)] * (1 - _JITTER * random)
