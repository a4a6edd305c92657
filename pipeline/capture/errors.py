"""What can be wrong with a source: each error is one line that says what to do."""

from __future__ import annotations


class SourceError(OSError):
    """A source cannot be read."""


class SourceNotFound(SourceError):
    """There is no such file, camera or kind of address."""


class SourceNotVideo(SourceError):
    """It is there, but it is not a video that can be decoded."""


class SourceEmpty(SourceError):
    """The part that was asked for holds no frame."""


class SourceRefused(SourceError):
    """It is there, but does not let us: a login, permissions, in use by another program."""


class SourceLogin(SourceRefused):
    """It does not take the login that was given, or wants one."""


class SourceUnreachable(SourceError):
    """It could not be reached in the time given."""


class SourceNotThere(SourceUnreachable):
    """The server answers, but has no such stream (yet)."""


class SourceLost(SourceUnreachable):
    """It was live, stopped, and did not come back in the time given."""


def reason(error: BaseException) -> str:
    """FFmpeg's or the system's few words on ``error``, without the address (it holds logins)."""
    words = getattr(error, "strerror", None) or type(error).__name__
    return words[:1].lower() + words[1:]
