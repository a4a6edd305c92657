"""Signals that end the process at once, from the first line of the program to its last."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress


def ending_signals() -> list[int]:
    """Return the signals that end a command: SIGINT, SIGTERM and SIGHUP.

    Without SIGHUP where there is none (Windows), or where it is ignored: `nohup` means it.
    """
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return numbers


def end_at_once(number: int, frame: object) -> None:
    """Handle a signal: end the process with 128 and the signal's number."""
    # What was printed reaches its reader. A stream may be in the middle of a write, or be closed.
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    # No exception: raised within an import or at the interpreter's exit, it would be printed.
    os._exit(128 + number)


def handle_signals() -> None:
    """Have the signals end the process at once, where nothing else handles them. A command that
    has outputs to finish handles them while it runs (`app.cli.signals`)."""
    # Registered first, so it runs last, once all threads have ended.
    atexit.register(_ignore_signals)
    for number in ending_signals():
        # A shell starts what runs in the background with SIGINT ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)


def _ignore_signals() -> None:
    # All is done, and the interpreter takes itself apart: a signal would change the exit code only.
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
