"""One POST, bounded in time whatever the other side does."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.core.redact import without_credentials

_MOST_READ = 64 * 1024
"""Bytes of an answer that are read, and thrown away: its status is all that counts."""
_MOST_WORDS = 200


@dataclass(frozen=True)
class Receiver:
    """Where events go. ``address`` holds no login, ``login`` is an Authorization header's value;
    ``name`` is fit for messages."""

    address: str
    name: str
    login: str | None

    @classmethod
    def of(cls, url: str) -> Receiver:
        """Raises ValueError, one line that shows nothing of what may be secret."""
        if re.search(r"[^!-~]", url):
            raise ValueError("webhook: write spaces and letters beyond ASCII as % and two digits")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # Its words may hold a piece of a password.
            raise ValueError("webhook: not an address with a host and a port") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("webhook: give an address that starts with http:// or https://")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        name = f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
        query = f"?{parts.query}" if parts.query else ""
        login = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(f"{name}{parts.path or '/'}{query}", name, login)


@dataclass(frozen=True)
class DeliveryResult:
    """What came of a try: an HTTP status, or None and ``words`` why there is none. ``reached``:
    there was a connection. ``retry_after`` is that header as it came."""

    status: int | None
    words: str
    reached: bool
    retry_after: str | None = None


class HttpSender:
    """Posts to a receiver, through whatever proxy the environment names."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._opener = urllib.request.OpenerDirector()
        # No handler of redirects: an event is for one receiver.
        for handler in (
            urllib.request.ProxyHandler(),
            _Plain(),
            _Secure(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def post(
        self, body: bytes, headers: Mapping[str, str], timeout_s: float, done: Callable[[], None]
    ) -> Post:
        """Begin one, in a thread; ``done`` is called in it when `Post.finished`."""
        return Post(self._opener, self.receiver, body, headers, timeout_s, done)


class Post(urllib.request.Request):
    """A POST under way in a thread of its own: a name server that hangs cannot be interrupted,
    only left behind, and a socket's timeouts start anew with every byte."""

    def __init__(
        self,
        opener: urllib.request.OpenerDirector,
        receiver: Receiver,
        body: bytes,
        headers: Mapping[str, str],
        timeout_s: float,
        done: Callable[[], None],
    ) -> None:
        login = {} if receiver.login is None else {"Authorization": receiver.login}
        super().__init__(receiver.address, body, {**headers, **login}, method="POST")
        self.finished = False
        self._opener, self._timeout_s, self._done = opener, timeout_s, done
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._reached = self._cut = False
        self._answer: DeliveryResult | None = None
        self.thread = threading.Thread(target=self._run, name="webhook post", daemon=True)
        self.thread.start()

    def cut(self) -> DeliveryResult:
        """End it at once, if it has not ended. What came of it."""
        with self._lock:
            self._cut = True
            if self._line is not None:
                with suppress(OSError):
                    self._line.shutdown(socket.SHUT_RDWR)
            return self._answer or DeliveryResult(None, self._late(), self._reached)

    def hold(self, line: socket.socket) -> None:
        """The connection stands. Raises TimeoutError if that comes too late."""
        with self._lock:
            if self._cut:
                raise TimeoutError
            self._reached = True
            # A handle of our own: http.client may close its own at any time, in another thread.
            self._line = socket.fromfd(line.fileno(), line.family, line.type)
        line.settimeout(self._timeout_s)

    def _run(self) -> None:
        try:
            with self._open() as response:
                after = response.headers.get("Retry-After")
                self._tell(
                    DeliveryResult(response.status, f"answers {response.status}", True, after)
                )
                response.read(_MOST_READ)
        except Exception as error:
            reason = getattr(error, "reason", None)
            cause = reason if isinstance(reason, Exception) else error
            words = self._late() if isinstance(cause, TimeoutError) else _words(cause)
            self._tell(DeliveryResult(None, words, self._reached))
        finally:
            with self._lock:
                if self._line is not None:
                    self._line.close()
                    self._line = None
            self.finished = True
            self._done()

    def _open(self) -> Any:
        try:
            # Half for one of a host's addresses: one that swallows packets leaves time for another.
            return self._opener.open(self, timeout=self._timeout_s / 2)
        except urllib.error.HTTPError as error:
            return error

    def _late(self) -> str:
        return f"no {'answer' if self._reached else 'connection'} within {self._timeout_s:g} s"

    def _tell(self, answer: DeliveryResult) -> None:
        with self._lock:
            self._answer = self._answer or answer


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, host: str, post: Post, **options: Any) -> None:
        super().__init__(host, **options)
        self._post = post

    def connect(self) -> None:
        super().connect()
        self._post.hold(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, post: Post, **options: Any) -> None:
        super().__init__(host, **options)
        self._post = post

    def connect(self) -> None:
        super().connect()
        self._post.hold(self.sock)


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: Any) -> Any:
        return self.do_open(partial(_PlainConnection, post=req), req)


class _Secure(urllib.request.HTTPSHandler):
    @cached_property
    def _verifying(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def https_open(self, req: Any) -> Any:
        return self.do_open(partial(_SecureConnection, post=req, context=self._verifying), req)


def _words(error: Exception) -> str:
    """A few words on ``error``, without an address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or type(error).__name__}"
    words = getattr(error, "strerror", None) or type(error).__name__
    if type(error) is OSError and not error.strerror:
        # A proxy's refusal.
        words = " ".join(without_credentials(str(error)).split())[:_MOST_WORDS]
    return words[:1].lower() + words[1:]
