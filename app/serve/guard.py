"""Who may ask, how often and how much: a gate before the web application.

OWASP's lists are what it is held against: tokens compared in constant time, requests from other
sites and other names refused (cross-site request forgery, DNS rebinding), bodies and rates limited.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

LEAST_TOKEN = 16
MOST_BODY = 64 << 10
COOKIE = "bodystream"
_OPEN = ("/healthz", "/login", "/page/style.css")
"""What needs no token: it tells nothing."""
_RATE, _BURST = 50.0, 200.0
"""Requests a second of one address, and at once."""
_LOGINS, _LOGIN_BURST = 0.1, 5.0
_MOST_CLIENTS = 4096
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip

Scope = dict[str, Any]
App = Callable[..., Any]


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests through to ``app``. Without a ``token`` only names of this machine are
    answered; with one, whoever has it, under any name."""

    def __init__(
        self, app: App, token: str | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        if token is not None and len(token) < LEAST_TOKEN:
            raise ValueError(f"a token has at least {LEAST_TOKEN} characters")
        self._app = app
        self._token = None if token is None else token.encode()
        self._rates = Buckets(_RATE, _BURST, clock_s)
        self._logins = Buckets(_LOGINS, _LOGIN_BURST, clock_s)

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is not None:
            await _refuse(scope, send, *refused)
            return
        if scope["type"] == "http":
            send = _with_headers(send)
            receive = _limited(receive)
        await self._app(scope, receive, send)

    def is_token(self, given: str) -> bool:
        """In constant time."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """The status and a line, or None where a request may pass."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        client = (scope.get("client") or ("?", 0))[0]
        method = scope.get("method", "GET")
        if not self._rates.take(client):
            return 429, "too many requests"
        host = headers.get(b"host", "")
        if self._token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 403, "this name is not served"
        if not _same_site(scope["type"], method, headers, host):
            return 403, "requests from other sites are refused"
        if _length(headers) > MOST_BODY:
            return 413, f"at most {MOST_BODY} bytes"
        if scope["path"] == "/login" and method == "POST" and not self._logins.take(client):
            return 429, "too many tries; wait a minute"
        if self._token is None or scope["path"] in _OPEN or self.is_token(_token_in(headers)):
            return None
        return 401, "a token is needed: log in at /login or send Authorization: Bearer"


def _same_site(kind: str, method: str, headers: dict[bytes, str], host: str) -> bool:
    """Whether what changes something, or opens a socket, comes from our own pages or from no
    page at all."""
    if kind == "http" and method in ("GET", "HEAD", "OPTIONS"):
        return True
    if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get(b"origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _length(headers: dict[bytes, str]) -> int:
    text = headers.get(b"content-length", "0")
    return int(text) if text.isdecimal() else MOST_BODY + 1


def _token_in(headers: dict[bytes, str]) -> str:
    kind, _, given = headers.get(b"authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return given.strip()
    try:
        morsel = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


async def _refuse(scope: Scope, send: App, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": words})
        return
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    if status == 401 and scope["method"] == "GET" and scope["path"] == "/":
        status, headers = 303, [(b"location", b"/login"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: App) -> App:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", [])}
            more = [each for each in _HEADERS if each[0] not in there]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sending


def _limited(receive: App) -> App:
    """The bytes that really come, whatever was announced."""
    taken = 0

    async def receiving() -> dict[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BODY:
            # As if whoever sends it had gone: the application reads no further.
            return {"type": "http.disconnect"}
        return message

    return receiving


class Buckets:
    """How often each client may do something: ``rate`` a second, ``burst`` at once."""

    def __init__(self, rate: float, burst: float, clock_s: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock_s = rate, burst, clock_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        now = self._clock_s()
        left, at = self._left.pop(client, (self._burst, now))
        left = min(left + (now - at) * self._rate, self._burst)
        allowed = left >= 1.0
        self._left[client] = (left - 1.0 if allowed else left, now)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return allowed
