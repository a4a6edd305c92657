"""Read a live source in a process of its own, which can be limited, ended and replaced."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from pipeline.capture import errors
from pipeline.capture.connection import Facts
from pipeline.capture.decoder_pool import DECODERS, DecoderPool, DecoderProcess
from pipeline.capture.devices import StreamInput
from pipeline.capture.errors import SourceCrashed, SourceError, SourceUnreachable, reason
from pipeline.capture.reader import Picture
from pipeline.capture.shared_reader import SlotReader
from pipeline.core.limits import MAX_PIXELS, MEMORY_MB
from pipeline.core.ring import Closed, Policy, Ring

_MOST_BYTES = 1 << 16
_ERRORS = {kind: each for kind, each in vars(errors).items() if isinstance(each, type)}
"""The kinds of errors that a decoder process may send."""


class ProcessReader:
    """A `Reader` that decodes in a process of its own (Linux).

    Args:
        stream_input: What to open; it must have an order.
        clock_ns: The monotonic clock, in nanoseconds.
        policy: What happens to a picture not yet taken when the next one comes.
        max_pixels: The largest picture that is accepted, in pixels.
        memory_mb: What the process may allocate, in MB.
        pool: Where the process comes from.
    """

    def __init__(
        self,
        stream_input: StreamInput,
        clock_ns: Callable[[], int],
        policy: Policy = Policy.WAIT,
        *,
        max_pixels: int = MAX_PIXELS,
        memory_mb: int = MEMORY_MB,
        pool: DecoderPool = DECODERS,
    ) -> None:
        assert stream_input.order is not None, "this input can only be opened here"
        self._name = stream_input.name
        self._max_pixels = max_pixels
        self._order = dict(stream_input.order, max_pixels=max_pixels, memory_mb=memory_mb)
        self._clock_ns = clock_ns
        self._pool = pool
        self._lock = threading.Lock()
        self._decoder: DecoderProcess | None = None
        self._closed = False
        self._facts: Facts | None = None
        self._slots: SlotReader | None = None
        self.damaged = 0
        self.ready = threading.Event()
        self.pictures: Ring[Picture] = Ring(1, policy)
        self.error: SourceError | None = None
        # A daemon, although it always ends soon: a driver may hold the killed process for a while.
        self.thread = threading.Thread(target=self._run, name=f"read {self._name}", daemon=True)
        self.thread.start()

    @property
    def facts(self) -> Facts:
        assert self._facts is not None
        return self._facts

    def memory_bytes(self) -> int:
        """Return the resident memory of its process, in bytes; 0 once it has ended."""
        decoder = self._decoder
        return 0 if decoder is None else decoder.memory_bytes()

    def close(self) -> None:
        """Stop reading. The process leaves, or is killed, within about a second."""
        with self._lock:
            self._closed = True
            if self._decoder is not None:
                self._decoder.hang_up()
        self.pictures.abort()

    def _run(self) -> None:
        decoder: DecoderProcess | None = None
        try:
            decoder = self._pool.take()
            with self._lock:
                self._decoder = decoder
                if self._closed:
                    return
            # One that has ended already is found out by reading from it.
            with contextlib.suppress(ConnectionError):
                decoder.socket.send(json.dumps(self._order).encode())
            self._receive(decoder)
        except Closed:
            pass
        except SourceError as error:
            # Without the frames, which would hold this reader and its memory in a circle.
            self.error = error.with_traceback(None)
        except OSError as error:
            self.error = SourceUnreachable(
                f"{self._name}: no process can be started for it: {reason(error)}"
            )
        except Exception as error:
            # It has read what a server sent; this process believes it nothing.
            self.error = SourceCrashed(
                f"{self._name}: its decoder process sent nonsense: {type(error).__name__}"
            )
        finally:
            # Pictures that are still there keep the memory.
            self._slots = None
            # Closed before the signal, so that a thread that waits for `ready` finds the end.
            self.pictures.close()
            self.ready.set()
            with self._lock:
                self._decoder = None
            if decoder is not None:
                self._pool.end(decoder)

    def _receive(self, decoder: DecoderProcess) -> None:
        """Put the process's pictures into the ring until the end. Raises SourceError, Closed."""
        while not self._closed:
            data, descriptors = b"", list[int]()
            with contextlib.suppress(ConnectionError):
                data, descriptors, *_ = socket.recv_fds(
                    decoder.socket, _MOST_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
            if not data:
                raise self._crashed(decoder)
            try:
                message = json.loads(data)
                if "end" in message:
                    self._ended(message)
                    return
                self._take(message, descriptors, decoder.socket)
            finally:
                # Those that nothing has taken.
                for descriptor in descriptors:
                    os.close(descriptor)

    def _ended(self, message: dict[str, Any]) -> None:
        """Return for the stream's own end. Raises SourceError for any other."""
        self.damaged = message["damaged"]
        if message["end"] is not None:
            kind, text = message["end"]
            raise _ERRORS[kind](text)
        if self._facts is None:
            raise SourceCrashed(f"{self._name}: its decoder process could not send a picture")

    def _take(self, message: dict[str, Any], descriptors: list[int], to: socket.socket) -> None:
        if "slots" in message:
            if not descriptors:
                # The kernel drops it where this process has reached its limit.
                raise SourceUnreachable(f"{self._name}: no more files can be opened")
            free = _freer(to, message["memory"])
            memory = descriptors.pop()
            self._slots = SlotReader(memory, message["slots"], self._max_pixels, free)
        elif "facts" in message:
            self._facts = Facts(**message["facts"])
            if self._facts.recording:
                # It waits for its consumer, as any clip.
                self.pictures.policy = Policy.WAIT
            # Not before: it would delay the first picture.
            self._pool.prepare()
        else:
            assert self._slots is not None, "a picture before its slots"
            self.damaged = message["damaged"]
            # Both processes have the same clock. A test's clock stands in for it here.
            age_ns = time.monotonic_ns() - message["captured_ns"]
            aspect = message["aspect"] and Fraction(*message["aspect"])
            image = self._slots.image(message)
            self.pictures.put(
                Picture(
                    image,
                    self._clock_ns() - age_ns,
                    aspect,
                    message["matrix"],
                    message["peak_nits"],
                )
            )
            self.ready.set()

    def _crashed(self, decoder: DecoderProcess) -> SourceError:
        """The error for a process that ended without a word."""
        if self._closed:
            return SourceUnreachable(f"{self._name}: closed")
        status = decoder.end()
        how = f"exit status {status}"
        if status is not None and status < 0:
            # Real-time signals have no names.
            known = {number.value: number.name for number in signal.Signals}
            how = known.get(-status, f"signal {-status}")
        why = f"its decoder process ended unexpectedly ({how})"
        return SourceCrashed(why if self._facts is not None else f"{self._name}: {why}")


def _freer(to: socket.socket, memory: int) -> Callable[[int], None]:
    """Return a function that lets the process write a slot again. It runs wherever a picture is
    deleted, so it neither waits nor fails."""

    def free(slot: int) -> None:
        # The connection may have ended long before its last picture is deleted.
        with contextlib.suppress(OSError):
            to.send(bytes((memory, slot)), socket.MSG_DONTWAIT)

    return free
