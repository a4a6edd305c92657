"""Security before the web application: tokens, origins, rates and sizes of requests.

It follows OWASP's lists: tokens are compared in constant time; requests from other sites
(cross-site request forgery) and under other host names (DNS rebinding) are refused; bodies and
rates are limited. docs/results/live.md lists the attacks that were tried.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from app.serve.token_auth import TokenAuth

MOST_BODY = 64 << 10
"""The most bytes of a request's body."""
BODY_S = 10.0
"""The time for a request's body to arrive, in seconds."""
_MOST_HEAD, _MOST_HEADERS = 16 << 10, 100
COOKIE = "bodystream"
_OPEN = ("/healthz", "/login", "/page/style.css", "/page/theme.js")
"""Paths that need no token, because they reveal nothing."""
_RATE, _BURST = 50.0, 200.0
"""Requests of one address: a second, and at once."""
_LOGINS, _LOGIN_BURST = 0.1, 5.0
"""Attempts to log in of one address: a second, and at once."""
_GUESSES, _GUESS_BURST = 0.2, 20.0
"""Wrong tokens in headers of one address: a second, and at once. A page whose session has ended
sends its old cookie a few times before it shows the login, so some are allowed."""
_MOST_CLIENTS = 4096
"""Addresses whose rates are remembered; the longest unused is forgotten first."""
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; "
        b"base-uri 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not "no-referrer": a browser then hides our own form's origin.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip

Scope = dict[str, Any]
App = Callable[..., Any]


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can be reached from this machine only.

    Args:
        host: "localhost" or an IP address, IPv6 with or without brackets.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class SecurityMiddleware:
    """ASGI middleware that passes allowed requests to an application and answers the others.

    Without a token, only requests under names of this machine are allowed. With one, requests that
    carry the token or a session are allowed under any name.

    Args:
        app: The ASGI application.
        auth: The token to check; None to serve this machine without one.
        clock_s: A monotonic clock in seconds, for the rates.
    """

    def __init__(
        self, app: App, auth: TokenAuth | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._auth = auth
        self._rates = Buckets(_RATE, _BURST, clock_s)
        self._logins = Buckets(_LOGINS, _LOGIN_BURST, clock_s)
        self._guesses = Buckets(_GUESSES, _GUESS_BURST, clock_s)

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Before anything of the body is read, so a refused client costs next to nothing.
        refused = self._refused(scope)
        if refused is not None:
            await _refuse(scope, send, *refused)
            return
        if scope["type"] == "http":
            # A socket's messages are limited by uvicorn (`server_of`).
            send = _with_headers(send)
            receive = _limited(receive)
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the message of a refusal, or None for a request that may pass."""
        client = (scope.get("client") or ("?", 0))[0]
        method = scope.get("method", "GET")
        # First, because it is the cheapest check and limits how often the others run.
        if not self._rates.take(client):
            return 429, "too many requests"
        if (
            len(scope["headers"]) > _MOST_HEADERS
            or sum(len(name) + len(value) for name, value in scope["headers"]) > _MOST_HEAD
        ):
            return 431, f"at most {_MOST_HEAD} bytes and {_MOST_HEADERS} lines of headers"
        # latin-1 maps every byte to a character, so no header can raise here.
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if len(headers) < len(scope["headers"]) and _ambiguous(scope["headers"]):
            return 400, "a header is repeated"
        host = headers.get(b"host", "")
        # Without a token, a page of another site could point its own name at this machine and then
        # read everything (DNS rebinding), so only names of this machine are answered.
        if self._auth is None and not is_loopback(_split(f"//{host}")[0]):
            return 403, "this name is not served"
        if not _same_site(scope["type"], method, headers, host):
            return 403, "requests from other sites are refused"
        if _length(headers) > MOST_BODY:
            return 413, f"at most {MOST_BODY} bytes"
        # Login needs no token, so tries are counted here, right or wrong.
        if scope["path"] == "/login" and method == "POST" and not self._logins.take(client):
            return 429, "too many tries; wait a minute"
        if self._auth is None or scope["path"] in _OPEN:
            return None
        return self._unauthorized(self._auth, client, headers)

    def _unauthorized(
        self, auth: TokenAuth, client: str, headers: dict[bytes, str]
    ) -> tuple[int, str] | None:
        """Return the status and the message for a request without the token, or None."""
        token, session = _token_in(headers), _session_in(headers)
        if token or session:
            if not self._guesses.has(client):
                return 429, "too many wrong tokens; wait a minute"
            if auth.is_token(token) if token else auth.is_session(session):
                return None
            # Only wrong tokens are counted, so the page's own requests are never slowed.
            self._guesses.take(client)
        return 401, "a token is needed: log in at /login or send Authorization: Bearer"


_ONCE = (b"host", b"origin", b"authorization", b"cookie", b"content-length", b"content-type")
"""Headers that a decision depends on. Were one repeated, this check and the application might read
different values."""


def _ambiguous(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a header that a decision depends on is repeated."""
    names = [name for name, _ in headers if name in _ONCE or name.startswith(b"sec-fetch-")]
    return len(set(names)) < len(names)


def _same_site(kind: str, method: str, headers: dict[bytes, str], host: str) -> bool:
    """Return whether a request comes from our own pages or from no page at all. Links on other
    sites may lead here, so navigation to a page is allowed."""
    # Browsers set Sec-Fetch-Site and pages cannot forge it. Programs do not send it.
    own = headers.get(b"sec-fetch-site", "none") in ("same-origin", "none")
    if kind == "http" and method in ("GET", "HEAD", "OPTIONS"):
        return own or headers.get(b"sec-fetch-mode") == "navigate"
    # Older browsers send only Origin. A null origin (a sandboxed frame) never equals the host.
    origin = headers.get(b"origin")
    return own and (origin is None or _split(origin)[1] == host.lower() != "")


def _split(address: str) -> tuple[str, str]:
    """Return an address's host, and its host with the port; empty for what is no address."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.netloc.lower()
    except ValueError:
        return "", ""


def _length(headers: dict[bytes, str]) -> int:
    """Return the announced length of the body; a number above the limit for what is no number."""
    text = headers.get(b"content-length", "0")
    # Python refuses to convert numbers of thousands of digits, with an error.
    return int(text) if text.isdecimal() and len(text) < 16 else MOST_BODY + 1


def _token_in(headers: dict[bytes, str]) -> str:
    kind, _, given = headers.get(b"authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else ""


def _session_in(headers: dict[bytes, str]) -> str:
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
    # Only the page itself leads to the login; a program must see the 401.
    if status == 401 and scope["method"] == "GET" and scope["path"] == "/":
        status, headers = 303, [(b"location", b"/login"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: App) -> App:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])}
            more = [header for header in _HEADERS if header[0] not in present]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sending


def _limited(receive: App) -> App:
    """Limit the bytes of a body that really arrive, whatever length was announced, and their
    time."""
    received, complete = 0, False
    # One deadline for the whole body: a limit per message would let a byte a second go on.
    end_s = asyncio.get_running_loop().time() + BODY_S

    async def receiving() -> dict[str, Any]:
        nonlocal received, complete
        if complete:
            # After the body only the disconnect comes, however long the response takes.
            return await receive()  # type: ignore[no-any-return]
        try:
            async with asyncio.timeout_at(end_s):
                message: dict[str, Any] = await receive()
        except TimeoutError:
            raise HTTPException(408, f"a body takes at most {BODY_S:g} s") from None
        received += len(message.get("body", b""))
        if received > MOST_BODY:
            raise HTTPException(413, f"at most {MOST_BODY} bytes")
        complete = not message.get("more_body", False)
        return message

    return receiving


class Buckets:
    """Token buckets that limit how often each client may do something.

    Belongs to one event loop, so it needs no lock.

    Args:
        rate: How often a second, in the long run.
        burst: How often at once.
        clock_s: A monotonic clock in seconds.
    """

    def __init__(self, rate: float, burst: float, clock_s: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock_s = rate, burst, clock_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def has(self, client: str) -> bool:
        """Return whether a client may do it once more."""
        return self._level(client) >= 1.0

    def take(self, client: str) -> bool:
        """Count one use of a client; return whether it was allowed."""
        now, left = self._clock_s(), self._level(client)
        allowed = left >= 1.0
        self._left[client] = (left - 1.0 if allowed else left, now)
        # The order is that of use, so the first entry is the longest unused.
        self._left.move_to_end(client)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return allowed

    def _level(self, client: str) -> float:
        now = self._clock_s()
        # Computed from the time that passed, so no task has to refill the buckets.
        left, since = self._left.get(client, (self._burst, now))
        return min(left + (now - since) * self._rate, self._burst)
