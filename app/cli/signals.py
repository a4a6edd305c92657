"""Ending a command by Ctrl-C or SIGTERM, with its outputs complete."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopSignal:
    """Set by the first signal; the second one ends the process at once."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal."""
        if self.signal is not None:
            # Not `sys.exit`: that would wait for threads, and one of them may be stuck.
            os._exit(128 + number)
        self.signal = number
        self.event.set()

    def exit_code(self, code: int) -> int:
        """Return the exit code: 128 and the signal's number after a signal, else ``code``."""
        return code if self.signal is None else 128 + self.signal


@contextmanager
def stop_by_signal() -> Iterator[StopSignal]:
    """Give a StopSignal that SIGINT and SIGTERM set while the block runs."""
    stop = StopSignal()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Only the main thread may set handlers.
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        # Tests, and programs that call `main`, get their own handlers back.
        for number, handler in before.items():
            signal.signal(number, handler)
