"""A web application on an address, for as long as a command runs."""

from __future__ import annotations

import re
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from app.config import ConfigError
from app.serve.connection import server_of
from app.serve.security import App, is_loopback
from app.serve.token_auth import TokenAuth

_END_S = 5.0
"""How long the web server may take to end its requests."""


def host_and_port(text: str) -> tuple[str, int]:
    """Return the host and port of [HOST:]PORT; the default host is this machine alone. Raises
    ConfigError."""
    # From the right, because an IPv6 address has colons of its own.
    host, _, port = text.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) >= 65536:
        raise ConfigError(f"{text}: give [HOST:]PORT, such as 8080 or 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


def token_for(host: str, token: str | None) -> str | None:
    """Return the token that an address is served with, None where it needs none.

    Args:
        host: The address. Where other machines can reach it, a token is made and shown if none is
            given.
        token: The token that was given.

    Raises:
        ConfigError: It is too short, too long, or cannot be sent in a header.
    """
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
        print(f"token: {token}", file=sys.stderr)
    if token is not None:
        try:
            TokenAuth(token)
        except ValueError as error:
            raise ConfigError(f"--token: {error}") from None
    return token


@contextmanager
def running(app: App, listening: socket.socket) -> Iterator[tuple[str, threading.Thread]]:
    """Run an application within a ``with`` block.

    Args:
        app: The ASGI application.
        listening: A bound socket; it listens from now on.

    Yields:
        The page's address, which is also shown, and the server's thread, which ends early only
        where the server fails.
    """
    server = server_of(app)
    listening.listen()
    # In a thread of its own, because the main thread receives the signals that end the command. A
    # daemon, as its own threads then are: one may wait for a disk that never answers.
    thread = threading.Thread(target=partial(server.run, [listening]), name="web", daemon=True)
    thread.start()
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    print(url, file=sys.stderr, flush=True)
    try:
        yield url, thread
    finally:
        server.should_exit = True
        thread.join(_END_S)
