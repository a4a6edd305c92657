"""The web server: uvicorn with a limit on every wait and on every number of connections.

uvicorn alone waits without end for a request that never ends and for a client that reads nothing.
A few such clients would hold all connections, so `Connection` adds timers (docs/results/live.md).
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 256
# Half of all, so that one client cannot lock out the others.
MOST_OF_ONE = 128
"""The most connections of one address."""
HEAD_S = 10.0
"""The time for a request's head to arrive, from the start of the connection or from the request's
first byte."""
STUCK_S = 10.0
_LEAST_TAKEN = 16 << 10
"""A client whose buffer is full and that takes fewer bytes than this within ``STUCK_S`` is
disconnected."""


class Connection(H11Protocol):
    """uvicorn's connection, with time limits for slow requests and for clients that read nothing.

    Two timers run: ``_late`` until a request's head is complete, ``_stuck`` while the write buffer
    is full. Either aborts the connection.
    """

    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        peers = [getattr(other, "client", None) or ("",) for other in self.connections]
        of_one = sum(peer[0] == host for peer in peers)
        if len(peers) > MOST_CONNECTIONS or of_one > MOST_OF_ONE:
            # `abort`, not `close`: closing would wait until the client has read what is buffered.
            transport.abort()
            return
        self._late = self.loop.call_later(HEAD_S, transport.abort)
        self._watch_closing(0)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A WebSocket has its own protocol, and a request under way has its own limits on the body.
        upgraded = self.transport.get_protocol() is not self
        under_way = self.cycle is not None and not self.cycle.response_complete
        if upgraded or under_way:
            self._cancel_late()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.transport.abort)

    def on_response_complete(self) -> None:
        # Between two requests uvicorn's own keep-alive timeout applies.
        self._cancel_late()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_buffer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_stuck()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_late()
        self._cancel_stuck()
        super().connection_lost(exc)

    def _watch_buffer(self, waiting: int) -> None:
        """Abort after ``STUCK_S`` unless the ``waiting`` bytes of the write buffer shrink."""

        def check() -> None:
            left = self.transport.get_write_buffer_size()
            if waiting - left < _LEAST_TAKEN:
                self.transport.abort()
            else:
                self._watch_buffer(left)

        self._stuck = self.loop.call_later(STUCK_S, check)

    def _watch_closing(self, waiting: int) -> None:
        """Abort a closing connection whose last bytes are not taken.

        Closing waits until the buffer is sent, so a client that reads nothing would hold its
        connection for ever. This check runs for the whole connection, a WebSocket's too.
        """

        def check() -> None:
            left, closing = self.transport.get_write_buffer_size(), self.transport.is_closing()
            if closing and waiting and waiting - left < _LEAST_TAKEN:
                self.transport.abort()
            elif left or not closing:
                self._watch_closing(left if closing else 0)

        self.loop.call_later(STUCK_S, check)

    def _cancel_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cancel_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def server_of(app: Any) -> uvicorn.Server:
    """Return the server of an ASGI application, not yet running.

    It installs no signal handlers: the caller sets ``should_exit``. Behind a proxy, name the proxy
    in the environment's FORWARDED_ALLOW_IPS; by default X-Forwarded-For is ignored, because any
    client can write that header.

    Args:
        app: The ASGI application, as `create_app` returns it.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            # Limits on heads and messages keep a client from filling the memory; without
            # compression, a small message cannot unpack to a large one.
            app, http=Connection, lifespan="off", log_level="warning", access_log=False,
            server_header=False, limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=16 << 10, timeout_graceful_shutdown=2,
            ws_max_size=1 << 12, ws_max_queue=8, ws_per_message_deflate=False,
            forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", ""),
        )
    )  # fmt: skip
    # Signals belong to the command, which also ends the sources.
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    return server


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, IPv4 or IPv6, not yet listening.

    Args:
        host: An address of this machine, such as 127.0.0.1 or ::1.
        port: The port; 0 for any free one.

    Raises:
        OSError: The address cannot be bound; the message is one line.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    # Lets a restarted server bind while connections of the last one are in TIME_WAIT.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(f"{host}:{port}: cannot be listened on: {error.strerror}") from None
    return listening
