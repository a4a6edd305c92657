"""One POST, bounded in time whatever the other side does."""

from __future__ import annotations

import base64
import re
import ssl
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from pipeline.core.connection_cut import ConnectionCut
from pipeline.core.redact import without_credentials

_MOST_READ = 64 * 1024
"""The bytes of an answer that are read and discarded: only its status counts."""
_MOST_WORDS = 200


@dataclass(frozen=True)
class Receiver:
    """Where events go.

    Attributes:
        address: The URL without its login.
        name: Scheme, host and port, fit for messages.
        login: The value of the Authorization header, None without a login.
    """

    address: str
    name: str
    login: str | None

    @classmethod
    def of(cls, url: str) -> Receiver:
        """Return the receiver at a URL.

        Raises:
            ValueError: The URL is not a usable address; the message is one line without secrets.
        """
        # Also refuses line breaks, which could add a header to the request.
        if re.search(r"[^!-~]", url):
            raise ValueError("webhook: write spaces and letters beyond ASCII as % and two digits")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # The error's words may hold a piece of a password.
            raise ValueError("webhook: not an address with a host and a port") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("webhook: give an address that starts with http:// or https://")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        name = f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
        query = f"?{parts.query}" if parts.query else ""
        login = None
        # In a header and never in the URL, because URLs appear in messages and logs.
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(f"{name}{parts.path or '/'}{query}", name, login)


@dataclass(frozen=True)
class DeliveryResult:
    """The result of one try to deliver an event.

    Attributes:
        status: The HTTP status, None without an answer.
        words: What happened, in a few words.
        reached: Whether there was a connection.
        retry_after: The Retry-After header as it came.
    """

    status: int | None
    words: str
    reached: bool
    retry_after: str | None = None


class HttpSender:
    """Posts to a receiver, through the proxy that the environment names for it.

    Requests go to httpx's transport itself: a client would look at where a redirect leads and add
    headers of its own.

    Raises:
        ValueError: The address or the environment's proxy cannot be used; the message is one line
            without credentials.
    """

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        try:
            self._url = httpx.URL(receiver.address)
        except httpx.InvalidURL:
            raise ValueError("webhook: not an address with a host and a port") from None
        try:
            self._transport = httpx.HTTPTransport(
                # The system's certificates and SSL_CERT_FILE, not those that httpx brings.
                verify=ssl.create_default_context(),
                trust_env=False,
                proxy=_proxy_for(self._url),
                # A connection a try: one that is kept may be dead by the next.
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        except (httpx.InvalidURL, ValueError, ImportError):
            # The proxy's address may hold a password.
            name = f"{self._url.scheme}_proxy"
            raise ValueError(f"webhook: {name}: not an http:// or https:// proxy") from None

    def post(
        self, body: bytes, headers: Mapping[str, str], timeout_s: float, done: Callable[[], None]
    ) -> Post:
        """Return a POST that has begun, in a thread; ``done`` is called in it when it is
        `Post.finished`."""
        own = {"Accept-Encoding": "identity", "Connection": "close"}
        if self.receiver.login is not None:
            own["Authorization"] = self.receiver.login
        request = httpx.Request("POST", self._url, headers={**headers, **own}, content=body)
        return Post(self._transport, request, timeout_s, done)


def _proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """Return the proxy that the environment names for an address, as urllib reads it: that of the
    address's own scheme, unless no_proxy excepts the host."""
    address = urllib.request.getproxies().get(url.scheme)
    if not address or urllib.request.proxy_bypass(url.host):
        return None
    return httpx.Proxy(address if "://" in address else f"http://{address}")


class Post:
    """A POST under way in a thread of its own; ``finished`` once it is over.

    A name server that hangs cannot be interrupted. So there is a thread that can be left behind,
    and `cut`, which shuts the connection under it when the time is up.
    """

    def __init__(
        self,
        transport: httpx.HTTPTransport,
        request: httpx.Request,
        timeout_s: float,
        done: Callable[[], None],
    ) -> None:
        self.finished = False
        self._transport, self._request = transport, request
        self._timeout_s, self._done = timeout_s, done
        # Half for one of a host's addresses: one that swallows packets leaves time for another.
        step_s = {"connect": timeout_s / 2, "read": timeout_s, "write": timeout_s}
        request.extensions |= {"timeout": {**step_s, "pool": timeout_s}, "trace": self._trace}
        self._lock = threading.Lock()
        self._connection = ConnectionCut()
        self._reached = False
        self._result: DeliveryResult | None = None
        # A daemon: a name server that hangs must not keep the process from ending.
        self.thread = threading.Thread(target=self._run, name="webhook post", daemon=True)
        self.thread.start()

    def cut(self) -> DeliveryResult:
        """End it at once, if it has not ended, and return its result."""
        self._connection.cut()
        with self._lock:
            return self._result or DeliveryResult(None, self._late(), self._reached)

    def _trace(self, step: str, info: Mapping[str, Any]) -> None:
        """Note a connection as it is made; httpx calls this. Raises TimeoutError if that comes too
        late."""
        self._connection.trace(step, info)
        secure = self._request.url.scheme == "https"
        if step.endswith("start_tls.complete" if secure else "connect_tcp.complete"):
            self._reached = True

    def _run(self) -> None:
        try:
            response = self._transport.handle_request(self._request)
            try:
                self._keep(
                    DeliveryResult(
                        response.status_code, f"answers {response.status_code}", True,
                        response.headers.get("Retry-After"),
                    )
                )  # fmt: skip
                read = 0
                for part in response.iter_raw():
                    read += len(part)
                    if read >= _MOST_READ:
                        break
            finally:
                response.close()
        except Exception as error:
            cause = _root(error)
            words = self._late() if isinstance(cause, TimeoutError) else _words(error, cause)
            self._keep(DeliveryResult(None, words, self._reached))
        finally:
            self._connection.release()
            self.finished = True
            self._done()

    def _late(self) -> str:
        return f"no {'answer' if self._reached else 'connection'} within {self._timeout_s:g} s"

    def _keep(self, result: DeliveryResult) -> None:
        """Store the result, unless there is one: an error after the status changes nothing."""
        with self._lock:
            self._result = self._result or result


def _root(error: BaseException) -> BaseException:
    """Return the error that others were raised from: httpx and httpcore wrap those of sockets and
    TLS, and httpcore's pool hides the cause, which the context still is."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _words(error: Exception, cause: BaseException) -> str:
    """Return a few words on an error and its cause, without an address."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"no TLS: {cause.reason or type(cause).__name__}"
    if isinstance(error, httpx.ProxyError):
        # The proxy's words may hold its login and line breaks.
        said = " ".join(without_credentials(str(error)).split())[:_MOST_WORDS]
        return f"the proxy refuses: {said}"
    if isinstance(error, httpx.RemoteProtocolError):
        # Its words may hold what was received.
        return "no answer in HTTP"
    words = getattr(cause, "strerror", None) or type(cause).__name__
    return words[:1].lower() + words[1:]
