"""A child process that runs one function and talks to its parent through a pipe.

It ends with its parent, however that ends, and the terminal's signals are its parent's alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from app.interrupts import ending_signals

_LEAVE_S = 10.0
"""How long a child may finish what it does once its parent has ended, or hung up."""

Target = Callable[..., None]
"""What a child runs: it takes its end of the pipe, then the arguments it was started with."""


class WorkerProcess:
    """A child process.

    Args:
        target: A function of a module, since the child starts as a new interpreter: a fork would
            share locks and a GPU's context.
        args: Its arguments after the pipe; they are pickled.

    Attributes:
        connection: This end of the pipe. Reading raises EOFError or OSError once the child has
            ended.
    """

    def __init__(self, target: Target, *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(target, theirs, args))
        # As in the decoder processes: threads that come and go would touch one arena after another.
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")
        with _signals_held_back():
            self._process.start()
        # Or the pipe would not end with the child.
        theirs.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def end(self) -> int:
        """Hang up and wait for the child's end, by force after ten seconds.

        Returns:
            Its exit status, negative for a signal.
        """
        self.connection.close()
        self._process.join(_LEAVE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> int:
        """End the child at once, whatever it does.

        Returns:
            As `end`.
        """
        self._process.kill()
        return self.end()


def ending_of(status: int) -> str:
    """Return how a process ended, in words, by its exit status."""
    if status >= 0:
        return f"exit status {status}"
    # Real-time signals have no names.
    known = {number.value: number.name for number in signal.Signals}
    return known.get(-status, f"signal {-status}")


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """A terminal sends its signals to the whole group, also to a child that is just starting. A new
    process inherits the mask of the thread that makes it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started before: its start, which would come with the child's, takes the mask away.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(target: Target, connection: Connection, args: tuple[Any, ...]) -> None:
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with connection:
        target(connection, *args)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    # The function finds its pipe closed; one that hangs, or computes on, is not waited for.
    time.sleep(_LEAVE_S)
    os._exit(1)
