"""Standard input as a clip: a video that another program pipes in, read once."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable
from typing import BinaryIO

import av

from pipeline.capture.addresses import STANDARD_INPUT
from pipeline.capture.base import SourceOptions, StopSignal
from pipeline.capture.clip import ClipSource
from pipeline.capture.devices import ANY_TAGS, acceleration
from pipeline.capture.errors import (
    SourceEmpty,
    SourceNotFound,
    SourceNotVideo,
    SourceUnreachable,
    reason,
)
from pipeline.capture.files import refuse_text
from pipeline.capture.seek import StartFrame
from pipeline.capture.session import Session, session_in

_POLL_S = 0.05
_MP4 = "; an MP4 in a pipe needs its index in front (-movflags +faststart), or give the file itself"


class StandardInputSource(ClipSource):
    """A clip from standard input. Every picture before ``start_s`` is decoded: a pipe cannot seek.

    Args:
        options: As those of `ClipSource`.
        stop_signal: Ends ``open()`` and ``frames()`` from outside, also while the pipe is silent.
        clock_ns: The clock of `Frame.captured_ns`.
    """

    def __init__(
        self, options: SourceOptions, *, stop_signal: StopSignal, clock_ns: Callable[[], int]
    ) -> None:
        super().__init__(STANDARD_INPUT[0], options, stop_signal=stop_signal, clock_ns=clock_ns)
        self.name = "stdin"

    @property
    def mark(self) -> str:
        """No mark: nothing tells one pipe from another."""
        return ""

    def _find_start(self) -> StartFrame | None:
        return None

    def _start(self) -> Session:
        file = _input(self._stop)
        try:
            container = av.open(
                file,
                # A playlist in the pipe must not open anything else.
                options={"protocol_whitelist": "pipe"},
                hwaccel=acceleration(self._decode),
                **ANY_TAGS,
            )
        except av.error.FFmpegError as error:
            if self._stop.is_set():
                raise SourceUnreachable("stdin: stopped before its first frame came") from error
            if isinstance(file, _Pipe) and file.is_empty:
                raise SourceEmpty("stdin: is empty: nothing was piped in") from error
            raise SourceNotVideo(
                f"stdin: is not a video FFmpeg can read from a pipe: {reason(error)}{_MP4}"
            ) from error
        refuse_text(container, self.name)
        try:
            return session_in(container, self.name, self._track)
        except SourceNotVideo as error:
            raise SourceNotVideo(f"{error}{_MP4}") from error


class _Pipe:
    """Standard input as PyAV reads it. A set signal is its end."""

    def __init__(self, fileno: int, stop_signal: StopSignal) -> None:
        self._fileno = fileno
        self._stop = stop_signal
        self.is_empty = True

    def read(self, size: int) -> bytes:
        # Windows selects sockets only; there a silent pipe is waited for.
        while sys.platform != "win32" and not self._stop.is_set():
            if select.select([self._fileno], [], [], _POLL_S)[0]:
                break
        data = b"" if self._stop.is_set() else os.read(self._fileno, size)
        self.is_empty = self.is_empty and not data
        return data


def _input(stop_signal: StopSignal) -> _Pipe | BinaryIO:
    """Standard input; a redirected file can seek. Raises SourceNotFound where there is none."""
    if sys.stdin is None or sys.stdin.closed:
        raise SourceNotFound("stdin: standard input is closed: pipe a video into it")
    if sys.stdin.isatty():
        raise SourceNotFound("stdin: is the terminal: pipe a video in, as in: cat clip.ts | ... -")
    fileno = sys.stdin.fileno()
    if stat.S_ISREG(os.fstat(fileno).st_mode):
        return open(fileno, "rb", closefd=False)
    return _Pipe(fileno, stop_signal)
