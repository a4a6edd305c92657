"""Ends a command by Ctrl-C, SIGTERM or SIGHUP, with its outputs complete."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.interrupts import end_at_once, ending_signals

_ONE_WISH_S = 1.0
"""Signals within this time of the first are one wish to end: `timeout`, `sudo`, a closing terminal
and a process group each send several."""


class Interrupted(KeyboardInterrupt):
    """A signal ends a command that has temporary files to remove.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class StopSignal:
    """Set by the first signal; one that comes a second or more after it ends the process at once.

    Args:
        clock_s: The monotonic clock in seconds, for tests.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.event = threading.Event()
        self.signal: int | None = None
        self._clock_s = clock_s
        self._first_s = 0.0

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal."""
        if self.signal is None:
            self.signal, self._first_s = number, self._clock_s()
            self.first()
        elif self._clock_s() - self._first_s >= _ONE_WISH_S:
            # Not `sys.exit`: that would wait for threads, and one of them may be stuck.
            end_at_once(number, frame)

    def first(self) -> None:
        """Do what the first signal asks for."""
        self.event.set()

    def finished(self) -> None:
        """Give what is left a second again: the summary and the process's end."""
        self._first_s = self._clock_s()

    def exit_code(self, code: int) -> int:
        """Return the exit code: 128 and the signal's number after a signal, else ``code``."""
        return code if self.signal is None else 128 + self.signal


class _UnwindSignal(StopSignal):
    """Raises `Interrupted` at the first signal."""

    def first(self) -> None:
        assert self.signal is not None
        raise Interrupted(self.signal)


@contextmanager
def stop_by_signal() -> Iterator[StopSignal]:
    """Give a `StopSignal` that SIGINT, SIGTERM and SIGHUP set while the block runs."""
    with _handled_by(StopSignal()) as stop:
        yield stop


@contextmanager
def unwind_by_signal() -> Iterator[None]:
    """Raise `Interrupted` in the block at SIGINT, SIGTERM or SIGHUP, for what it must remove.

    Not around imports: an exception within them may be printed or lost.
    """
    with _handled_by(_UnwindSignal()):
        yield


@contextmanager
def _handled_by(stop: StopSignal) -> Iterator[StopSignal]:
    numbers = ending_signals()
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Only the main thread may set handlers.
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        stop.finished()
        for number, handler in before.items():
            # Tests, and programs that call `main`, get their own handlers back. The command's own
            # process is ending after a signal: what follows within a second is the same wish.
            if stop.signal is None or handler is not end_at_once:
                signal.signal(number, handler)
