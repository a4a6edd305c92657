"""Ends a command by Ctrl-C, SIGTERM or SIGHUP, with its outputs complete."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ONE_WISH_S = 1.0
"""Signals within this time of the first are one wish to end: `timeout`, `sudo`, a closing terminal
and a process group each send several."""


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
            self.event.set()
        elif self._clock_s() - self._first_s >= _ONE_WISH_S:
            # Not `sys.exit`: that would wait for threads, and one of them may be stuck.
            os._exit(128 + number)

    def exit_code(self, code: int) -> int:
        """Return the exit code: 128 and the signal's number after a signal, else ``code``."""
        return code if self.signal is None else 128 + self.signal


@contextmanager
def stop_by_signal() -> Iterator[StopSignal]:
    """Give a `StopSignal` that SIGINT, SIGTERM and SIGHUP set while the block runs."""
    stop = StopSignal()
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Windows has no SIGHUP. `nohup` has the process ignore it, and means it.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Only the main thread may set handlers.
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        # Tests, and programs that call `main`, get their own handlers back.
        for number, handler in before.items():
            signal.signal(number, handler)
