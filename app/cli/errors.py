"""Errors in a line or two."""

from __future__ import annotations

from typing import Any

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from app.cli.system import library_remedy
from app.setting import did_you_mean, wanted
from pipeline.core.problem import one_line, printable
from pipeline.core.program import program

_MOST = 400
"""The most letters of a line of a message."""


def describe(error: Exception) -> str:
    """Return two lines at most: the message where it is meant for people, else its type too."""
    # First, because such an error's own message does not say what to install.
    remedy = library_remedy(error) if isinstance(error, ImportError | OSError) else None
    if remedy is not None:
        return remedy
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return one_line(error)
    # Libraries may raise messages of pages; two lines say enough.
    lines = [line for line in str(error).strip().splitlines() if line.strip()][:2]
    lines = [_cut(printable(line)) for line in lines]
    if lines and isinstance(error, OSError | ValueError | RuntimeError | ImportError):
        return "\n".join(lines)
    return f"{type(error).__name__}: {''.join(lines[:1])}\nThis is a bug; --debug shows where."


def _cut(line: str) -> str:
    return line if len(line) <= _MOST else f"{line[: _MOST - 4]} ..."


def parse_message(error: CycloptsError) -> str:
    """Return what is wrong with a command line, and where its help is, in two lines."""
    chain = " ".join([program(), *(error.command_chain or ())])
    return f"error: {_problem(error)}\nsee: {chain} --help"


def _problem(error: CycloptsError) -> str:
    if isinstance(error, UnknownOptionError):
        # `--flag=value` is one word to cyclopts.
        flag = (error.token.keyword or error.token.value).partition("=")[0]
        known = [name for argument in error.argument_collection for name in argument.names]
        return f"there is no flag {flag}{did_you_mean(flag, [*known, '--debug', '--help'])}"
    if isinstance(error, UnknownCommandError):
        return _unknown_command(error)
    # Where there are commands, an unused word is meant as one.
    if isinstance(error, UnusedCliTokensError):
        if error.app is not None and list(_names(error)):
            return _unknown_command(error)
        return f"unexpected: {' '.join(error.unused_tokens or ())}"
    if isinstance(error, ValidationError):
        return error.exception_message
    argument: Any = error.argument
    if argument is None:
        return str(error)
    if isinstance(error, CoercionError) and error.token is not None:
        problem = error.msg or f"{wanted(error.target_type)}, not {error.token.value!r}"
        return f"{error.token.keyword or argument.name}: {problem}"
    if isinstance(error, MissingArgumentError):
        flag = getattr(error, "keyword", None) or argument.name
        return f"{flag}: a value is missing" if flag.startswith("-") else f"{flag} is missing"
    return str(error)


def _unknown_command(error: CycloptsError) -> str:
    word, known = (error.unused_tokens or [""])[0], list(_names(error))
    hint = did_you_mean(word, known)
    return f"there is no command {word!r}; there are: {', '.join(known)}{hint}"


def _names(error: CycloptsError) -> list[str]:
    return [name for name in error.app or () if not name.startswith("-")]
