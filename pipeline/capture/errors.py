"""The errors of sources. Each message is one line that says what to do."""

from __future__ import annotations

CAUSES = {
    "refused": "it refuses access, does not exist or sends no video",
    "too large": "its pictures are too large",
    "lost": "it could not be reached, or the connection broke",
    "ended": "it ended by itself",
    "stalled": "it was live and sent no picture for too long",
    "silent": "it was reached and sent no first picture",
    "crashed": "the process that decoded it ended unexpectedly",
}
"""What ends a connection, by the names that the counts use."""


class SourceError(OSError):
    """A source cannot be read.

    Attributes:
        cause: One of `CAUSES`.
    """

    cause = "refused"


class SourceNotFound(SourceError):
    """No such file or camera exists, or the kind of address is not supported."""


class SourceNotVideo(SourceError):
    """The source exists but is not a video that can be decoded."""


class SourceEmpty(SourceError):
    """The part to read holds no frame."""


class SourceRefused(SourceError):
    """The source exists but refuses access: a login, permissions, another program's use."""


class SourceLogin(SourceRefused):
    """The source refuses the login in the address, or requires one."""


class SourceTooLarge(SourceRefused):
    """Its pictures are larger, or take more memory, than this program allows."""

    cause = "too large"


class SourceUnreachable(SourceError):
    """The source could not be reached in the time allowed."""

    cause = "lost"


class SourceNotThere(SourceUnreachable):
    """The server answers but has no such stream, or does not have it yet."""


class SourceSilent(SourceUnreachable):
    """The source was opened, or did not answer, and no picture came."""

    cause = "silent"


class SourceCrashed(SourceUnreachable):
    """The process that decoded the source ended unexpectedly."""

    cause = "crashed"


class SourceLost(SourceUnreachable):
    """The source was live, stopped, and did not come back in the time allowed."""


def reason(error: BaseException) -> str:
    """Return the system's short text for an error, without the address, which may hold a login."""
    text = getattr(error, "strerror", None) or type(error).__name__
    return text[:1].lower() + text[1:]
