"""End a request of httpx from another thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class ConnectionCut:
    """Shuts the connection under one request, so that the thread that waits in it goes on.

    httpx's timeouts are of a single connect, read or write, and start anew with every byte: a peer
    that drips would hold a request for ever. Give `trace` as the request's extension of that name,
    for a client without kept connections, and call `release` when the request is over.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False

    def trace(self, step: str, info: Mapping[str, Any]) -> None:
        """Note a connection as it is made; httpx calls this. Raises TimeoutError if that comes too
        late."""
        if step != "connection.connect_tcp.complete":
            return
        line = info["return_value"].get_extra_info("socket")
        with self._lock:
            # The time was up while it connected: the request must not be sent any more.
            if self._cut:
                raise TimeoutError
            self._close()
            # A handle of our own: httpx may close its own at any time, in another thread.
            self._socket = socket.fromfd(line.fileno(), line.family, line.type)

    def cut(self) -> None:
        """End the request at once, now and whenever it connects."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with suppress(OSError):
                    # Ends a read that is blocked in the thread; `close` would not.
                    self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the handle."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
