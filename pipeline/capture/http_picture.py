"""One picture over HTTP, bounded in time and bytes whatever the server does."""

from __future__ import annotations

import functools
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote, urljoin

import httpx

from pipeline.capture.addresses import Address, parse_address
from pipeline.capture.errors import (
    SourceError,
    SourceLogin,
    SourceNotThere,
    SourceRefused,
    SourceUnreachable,
    reason,
)
from pipeline.core.connection_cut import ConnectionCut
from pipeline.core.redact import without_credentials

MOST_BYTES = 1 << 24
"""The most bytes of a picture."""
_MOST_REDIRECTS = 3
_CONNECT_S = 2.5
_STEP_S = 5.0
"""Longest single read or write."""


class PictureServer:
    """Where pictures come from, and what is remembered between requests.

    Attributes:
        address: The address, with scheme http or https.
        name: The same for messages, without secrets.

    Args:
        address: The address, with any login.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name = without_credentials(address.url)
        # Digest first: it never sends the password, and most cameras ask for it.
        self._auth: httpx.Auth | None = (
            None if address.login is None else httpx.DigestAuth(*self._login())
        )
        # The headers that ask for a picture only if it is another than the last.
        self._validators: dict[str, str] = {}
        self._client = httpx.Client(
            verify=_certificates(),
            timeout=httpx.Timeout(_STEP_S, connect=_CONNECT_S),
            # A connection a request, so that cutting it is sure to hit the right one.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def get(self, trace: Callable[..., None]) -> bytes | None:
        """Return the picture's bytes, following redirects; None if it is the one of last time.

        Args:
            trace: Called by httpx with each step of a connection.

        Raises:
            SourceError: There is no picture. The message is one line without secrets.
        """
        address = self.address
        for _ in range(_MOST_REDIRECTS + 1):
            found = self._answer(address, trace)
            # What a server wants remembered would grow without a bound.
            self._client.cookies.clear()
            if not isinstance(found, Address):
                return found
            address = found
        raise SourceUnreachable(f"{self.name}: leads from address to address")

    def _answer(self, address: Address, trace: Callable[..., None]) -> bytes | Address | None:
        """The picture, None if it has not changed, or the address to ask instead."""
        url = replace(address, login=None).url
        # The login is for the host that the user named.
        auth = self._auth if _origin(address) == _origin(self.address) else None
        headers = {"Accept": "image/*", "Accept-Encoding": "identity", **self._validators}
        with self._client.stream(
            "GET", url, headers=headers, auth=auth, extensions={"trace": trace}
        ) as response:
            status = response.status_code
            if status == 304 and self._validators:
                return None
            if response.has_redirect_location:
                return _redirect(url, response.headers["location"], self.name)
            if status == 401 and isinstance(auth, httpx.DigestAuth) and _wants_basic(response):
                self._auth = httpx.BasicAuth(*self._login())
                return address
            if status != 200:
                raise _status_error(status, self.name, auth is not None)
            data = _body(response, self.name)
            asks = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
            self._validators = {
                ask: response.headers[tag] for ask, tag in asks.items() if tag in response.headers
            }
            return data

    def _login(self) -> tuple[str, str]:
        user, _, password = (self.address.login or "").partition(":")
        return unquote(user), unquote(password)


class PictureRequest:
    """A GET under way in a thread of its own; ``done`` is set once it is over.

    The thread hangs at most in a name server or in one connect; `cut` ends everything else.

    Args:
        server: Where the picture comes from. Used by the thread alone until ``done`` is set.
    """

    def __init__(self, server: PictureServer) -> None:
        self.done = threading.Event()
        self._server = server
        self._connection = ConnectionCut()
        self._data: bytes | None = None
        self._error: BaseException | None = None
        # A daemon: a name server that hangs must not keep the process from ending.
        self.thread = threading.Thread(target=self._run, name=f"get {server.name}", daemon=True)
        self.thread.start()

    def cut(self) -> None:
        """End it at once."""
        self._connection.cut()

    def result(self) -> bytes | None:
        """Return the picture's bytes once ``done`` is set; None if it is the one of last time.

        Raises:
            SourceError: There is no picture. The message is one line without secrets.
        """
        if self._error is not None:
            raise self._error
        return self._data

    def _run(self) -> None:
        name = self._server.name
        # Errors are stored as new ones: the traceback of one that was raised holds this request and
        # the bytes read so far, until the garbage collector finds the circle.
        try:
            self._data = self._server.get(self._connection.trace)
        except SourceError as error:
            self._error = type(error)(str(error))
        except httpx.HTTPError as error:
            self._error = SourceUnreachable(f"{name}: {_words(error)}")
        except (httpx.InvalidURL, LookupError, ValueError):
            # httpx raises these for a host that is none, and for a challenge that it cannot read.
            self._error = SourceRefused(f"{name}: its address or its login is of an unknown kind")
        except BaseException as error:
            self._error = error
        finally:
            self._connection.release()
            self.done.set()


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates and SSL_CERT_FILE, not those that httpx brings. They take a
    megabyte, so all servers share them."""
    return ssl.create_default_context()


def _origin(address: Address) -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port


def _wants_basic(response: httpx.Response) -> bool:
    asked = response.headers.get("www-authenticate", "").lower()
    return "basic" in asked and "digest" not in asked


def _redirect(url: str, location: str, name: str) -> Address:
    try:
        address = parse_address(urljoin(url, location))
    except ValueError:
        raise SourceRefused(f"{name}: leads to an address that is not read") from None
    if address.scheme not in ("http", "https"):
        raise SourceRefused(
            f"{name}: leads from HTTP to {address.scheme}://, which is not followed"
        )
    return address


def _status_error(status: int, name: str, login: bool) -> SourceError:
    if status == 401:
        if login:
            return SourceLogin(f"{name}: the login is refused: check user and password")
        return SourceLogin(f"{name}: wants a login: put user:password@ before the host")
    if status == 403:
        return SourceRefused(f"{name}: forbidden: this login may not watch it")
    if status in (404, 410):
        return SourceNotThere(f"{name}: no such picture there: check the path")
    return SourceUnreachable(f"{name}: the server answers {status}")


def _body(response: httpx.Response, name: str) -> bytes:
    """The picture's bytes. Raises SourceUnreachable for what is none or too large."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(("multipart/", "text/", "video/", "application/json")):
        raise SourceUnreachable(
            f"{name}: sends no single picture: give the camera's address of one picture a request"
        )
    data = bytearray()
    for part in response.iter_raw():
        data += part
        if len(data) > MOST_BYTES:
            raise SourceUnreachable(f"{name}: sends more than {MOST_BYTES >> 20} MB as a picture")
    return bytes(data)


def _words(error: httpx.HTTPError) -> str:
    """What failed, in words that hold nothing the server sent."""
    cause: BaseException = error
    # httpx and httpcore wrap the errors of sockets and TLS.
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(error, httpx.RemoteProtocolError):
        return "no answer in HTTP"
    if isinstance(cause, TimeoutError):
        return "no answer in time: check the address and that it is on"
    return f"{reason(cause)}: check the address and that it is on"
