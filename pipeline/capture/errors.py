"""What can be wrong with a source: each error is one line that says what to do."""

from __future__ import annotations

import re

# A login ends at the last @ before the path; one with a slash in its password is no valid address
# but must not be shown either.
_LOGIN = re.compile(r"(?<=://)(?:[^/\s:@]+:(?!\d+/)\S*@|[^/?#\s]*@)")
# Some cameras take logins in the path: /user=admin_password=1234_channel=1.
_SECRET = re.compile(
    r"(?i)([?&;#/_][^=&;/?\s]*(?:pas|pwd|pw|token|key|auth|secret|use?r|login|cred|sess|sig)"
    r"[^=&;/?\s]*=)[^&\s]+"
)


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


def without_credentials(address: str) -> str:
    """``address`` without its user, password and tokens, fit for messages and file names."""
    return _SECRET.sub(r"\1***", _LOGIN.sub("***@", address))


def reason(error: BaseException) -> str:
    """FFmpeg's or the system's few words on ``error``, without the address (it holds logins)."""
    words = getattr(error, "strerror", None) or type(error).__name__
    return words[:1].lower() + words[1:]
