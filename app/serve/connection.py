"""The web server: uvicorn's, with an end to every wait and a bound on every number."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 256
MOST_OF_ONE = 128
"""Connections of one address."""
HEAD_S = 10.0
"""A request's head is there by then, from the connection's or its own first byte on."""
STUCK_S = 10.0
_LEAST_TAKEN = 16 << 10
"""Who is sent more than fits and takes fewer bytes in that time is cut."""


class Connection(H11Protocol):
    """uvicorn waits for ever for a request's end and for whoever reads nothing; this one does
    not."""

    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        peers = [getattr(each, "client", None) or ("",) for each in self.connections]
        of_one = sum(peer[0] == host for peer in peers)
        if len(peers) > MOST_CONNECTIONS or of_one > MOST_OF_ONE:
            transport.abort()
            return
        self._late = self.loop.call_later(HEAD_S, transport.abort)
        self._see_out(0)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        upgraded = self.transport.get_protocol() is not self
        under_way = self.cycle is not None and not self.cycle.response_complete
        if upgraded or under_way:
            self._in_time()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.transport.abort)

    def on_response_complete(self) -> None:
        # Between two requests uvicorn's own limit holds.
        self._in_time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self._taken()
        super().connection_lost(exc)

    def _watch(self, waiting: int) -> None:
        """Look in a while whether ``waiting`` bytes have become fewer."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if waiting - left < _LEAST_TAKEN:
                self.transport.abort()
            else:
                self._watch(left)

        self._stuck = self.loop.call_later(STUCK_S, look)

    def _see_out(self, waiting: int) -> None:
        """As long as it lasts, a socket's too: closing waits for what is still to be sent, and
        that for whoever takes nothing."""

        def look() -> None:
            left, closing = self.transport.get_write_buffer_size(), self.transport.is_closing()
            if closing and waiting and waiting - left < _LEAST_TAKEN:
                self.transport.abort()
            elif left or not closing:
                self._see_out(left if closing else 0)

        self.loop.call_later(STUCK_S, look)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _taken(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def server_of(app: Any) -> uvicorn.Server:
    """The server of an application, not yet running; signals are its caller's. Who puts a proxy
    before it names that in FORWARDED_ALLOW_IPS: anybody may write an X-Forwarded-For."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, http=Connection, lifespan="off", log_level="warning", access_log=False,
            server_header=False, limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=16 << 10, timeout_graceful_shutdown=2,
            ws_max_size=1 << 12, ws_max_queue=8, ws_per_message_deflate=False,
            forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", ""),
        )
    )  # fmt: skip
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    return server


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError, in one line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(f"{host}:{port}: cannot be listened on: {error.strerror}") from None
    return listening
