"""The program of a decoder process: it reads one live source for its parent.

Run by `decoder_pool` as ``python -m pipeline.capture.decoder_process FD``. FD is a socket of whole
messages (SOCK_SEQPACKET) to the parent:

1. The parent sends an order as JSON: "input" and "arguments" for `devices.input_of`, "max_pixels",
   and "memory_mb", the limit of this process.
2. The process sends JSON for each step: {"slots": bytes of a slot} with the file descriptor of new
   slots; {"facts": ...} once; a picture's header (`shared_writer.Header`) with "captured_ns",
   "aspect" and "damaged"; at the end {"end": [kind, message], "damaged": packets}, or null for the
   stream's own end.
3. The parent sends two bytes for each slot that may be written again: the number of the memory,
   counted from 1 modulo 256, and the slot's number.

The end of the socket means that the parent has closed the connection, or has died: the process
ends, also while FFmpeg hangs. Signals of the terminal are the parent's: it starts this process with
them blocked.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import av
from av.video.frame import VideoFrame

from pipeline.capture.connection import Connection
from pipeline.capture.devices import input_of
from pipeline.capture.errors import SourceError, SourceTooLarge, SourceUnreachable, reason
from pipeline.capture.shared_writer import SLOTS, SlotWriter, plain
from pipeline.core.process_limits import limit_process

_LEAVE_S = 0.25
"""Time to close the connection in order, so that an RTSP server is informed."""
_MOST_MESSAGE = 500
"""A longer text is cut: a message must fit into the socket's buffer."""


class Closed(Exception):
    """The parent has closed the connection."""


class Sender:
    """Sends pictures to the parent. Belongs to the main thread, but for ``freed`` and ``close``."""

    def __init__(self, parent: socket.socket, most_bytes: int) -> None:
        self._parent = parent
        # Shared memory does not count as data of a process, so it has the same limit once more.
        self._writer = SlotWriter(most_bytes)
        self._memory = 0
        self._free: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()

    def picture(self, image: VideoFrame, captured_ns: int, connection: Connection) -> None:
        """Send a picture, waiting for a free slot. Raises Closed."""
        image = plain(image)
        if self._writer.fit(image):
            self._memory = (self._memory + 1) % 256
            for slot in range(SLOTS):
                self._free.put((self._memory, slot))
            self._send({"slots": self._writer.size, "memory": self._memory}, self._writer.memory)
        aspect = connection.aspect
        header = self._writer.write(image, self._free_slot())
        self._send(
            header
            | {
                "captured_ns": captured_ns,
                "aspect": aspect and (aspect.numerator, aspect.denominator),
                "damaged": connection.damaged,
            }
        )

    def facts(self, facts: Any) -> None:
        self._send({"facts": asdict(facts)})

    def end(self, error: SourceError | None, damaged: int) -> None:
        """Send what ended the connection, and the number of damaged packets."""
        end = error and (type(error).__name__, str(error)[:_MOST_MESSAGE])
        with contextlib.suppress(Closed):
            self._send({"end": end, "damaged": damaged})

    def freed(self, message: bytes) -> None:
        """Note what the parent says about slots."""
        for at in range(0, len(message) - 1, 2):
            self._free.put((message[at], message[at + 1]))

    def close(self) -> None:
        """End the wait for a slot."""
        self._free.put(None)

    def _free_slot(self) -> int:
        while True:
            freed = self._free.get()
            if freed is None:
                raise Closed
            memory, slot = freed
            # Slots of earlier, smaller memory may come back late.
            if memory == self._memory:
                return slot

    def _send(self, message: dict[str, Any], memory: int = -1) -> None:
        fds = [memory] if memory >= 0 else []
        try:
            socket.send_fds(self._parent, [json.dumps(message).encode()], fds)
        except OSError as error:
            raise Closed from error


def main() -> None:
    """Serve one order."""
    parent = socket.socket(fileno=int(sys.argv[1]))
    # FFmpeg's own messages would mix with the parent's on its terminal.
    av.logging.set_level(av.logging.PANIC)
    order = parent.recv(1 << 16)
    if not order:
        return
    # The parent's program may have set a default timeout, which the socket's other end shares.
    parent.setblocking(True)
    wanted = json.loads(order)
    sender = Sender(parent, wanted["memory_mb"] << 20)
    left = threading.Event()
    threading.Thread(target=_listen, args=(parent, sender, left), daemon=True).start()
    limit_process(wanted["memory_mb"])
    stream_input = input_of(wanted["input"], wanted["arguments"])
    connection = Connection(stream_input, wanted["max_pixels"])
    error = _serve(connection, sender, left, stream_input.name)
    sender.end(error, connection.damaged)
    # Wait for the parent to close: the slots are its pictures' until then.
    left.wait()
    # Not a normal exit: FFmpeg's and Python's ends of a process may hang as well.
    os._exit(0)


def _serve(
    connection: Connection, sender: Sender, left: threading.Event, name: str
) -> SourceError | None:
    """Send the pictures of the ordered source; return what ended it."""
    told = False
    try:
        with contextlib.closing(connection.pictures()) as pictures:
            for image in pictures:
                captured_ns = time.monotonic_ns()
                if left.is_set():
                    return None
                if not told:
                    sender.facts(connection.facts)
                    told = True
                sender.picture(image, captured_ns, connection)
    except Closed:
        return None
    except SourceError as error:
        return error
    except MemoryError:
        return SourceTooLarge(f"{name}: no memory for its pictures")
    except Exception as error:
        # A format that cannot be converted, or memory that cannot be shared.
        return SourceUnreachable(f"{name}: its pictures cannot be passed on: {reason(error)}")
    return None


def _listen(parent: socket.socket, sender: Sender, left: threading.Event) -> None:
    """Note the slots that the parent frees; end the process when the parent has closed."""
    try:
        while message := parent.recv(1 << 12):
            sender.freed(message)
    finally:
        # Whatever ended it: without this thread nothing would notice the parent's end.
        try:
            left.set()
            sender.close()
            time.sleep(_LEAVE_S)
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()
