"""Say in one line what went wrong."""

from __future__ import annotations

from pipeline.core.redact import without_credentials

_LONGEST = 300
# The messages of these are sentences; those of the others need their type to make sense.
_SENTENCES = (OSError, ValueError, RuntimeError, ImportError)


class Notice(UserWarning):
    """A run goes on, but not as it was asked for; the message is one line for the user."""


def one_line(error: BaseException) -> str:
    """Return an error in one line of at most 300 letters, without logins.

    Args:
        error: Any error, also one of a library whose message has pages.
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = " ".join(str(error).split())
    if not (text and isinstance(error, _SENTENCES)):
        text = ": ".join(filter(None, (type(error).__name__, text)))
    return printable(without_credentials(text))[:_LONGEST]


def printable(text: str) -> str:
    """Return a text that may be shown anywhere: control characters become question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
