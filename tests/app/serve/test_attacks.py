"""Attacks on a served page, each over a real connection, and their results
(docs/results/live.md)."""

from __future__ import annotations

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.serve import connection, live
from app.serve import security as guard
from app.serve.token_auth import TokenAuth
from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import SourceError
from pipeline.capture.open import open_source
from pipeline.core.redact import without_credentials
from tests.support.paths import ROOT

pytest.importorskip("uvicorn")
websockets = pytest.importorskip("websockets.sync.client")
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from tests.support.clips import numbered, write_clip  # noqa: E402
from tests.support.serving import PICTURES, TOKEN, Served, serving  # noqa: E402
from tests.support.waiting import until  # noqa: E402

pytestmark = pytest.mark.timeout(60)
HEAD = b"Host: localhost\r\nConnection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def served(nobody, tmp_path_factory) -> Iterator[Served]:
    with serving(nobody, tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.fixture(scope="module")
def locked(nobody, tmp_path_factory) -> Iterator[Served]:
    with serving(nobody, tmp_path_factory.mktemp("locked"), TOKEN) as one:
        yield one


@pytest.fixture(autouse=True)
def no_rates(request, monkeypatch):
    """Attacks come at once; the tests of rates have them."""
    if "rates" not in request.keywords:
        monkeypatch.setattr(guard.Buckets, "take", lambda *_: True)
        monkeypatch.setattr(guard.Buckets, "has", lambda *_: True)


def raw(served: Served, request: bytes) -> bytes:
    """Return the answer until the server closes the connection; TimeoutError if it does not."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as one:
        got = b""
        try:
            one.sendall(request)
            while part := one.recv(1 << 16):
                got += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return got


def status(answer: bytes) -> int:
    """0 for a connection that was cut."""
    return int(answer.split(b" ")[1]) if answer else 0


def post(body: bytes, *more: bytes) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"".join((b"POST /api/sources HTTP/1.1\r\n", HEAD, *more, length, b"\r\n", body))


# Tokens.

WRONG = {
    "none": {},
    "wrong": {"Authorization": "Bearer a-wrong-token-of-some-length"},
    "short": {"Authorization": "Bearer s"},
    "part": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "more": {"Authorization": f"Bearer {TOKEN}x"},
    "long": {"Authorization": "Bearer " + "x" * 8000},
    "not-ascii": {"Authorization": b"Bearer \xe4\xff\x80" + TOKEN.encode()},
    "empty": {"Authorization": "Bearer"},
    "basic": {"Authorization": f"Basic {TOKEN}"},
    "cookie-is-token": {"Cookie": f"bodystream={TOKEN}"},
    "cookie-forged": {"Cookie": f"bodystream=99999999999.{'0' * 64}"},
    "cookie-endless": {"Cookie": f"bodystream={'9' * 5000}.x"},
    "cookie-broken": {"Cookie": 'bodystream="\\777;=;;'},
    "cookie-of-another-token": {"Cookie": f"bodystream={TokenAuth('x' * 20).session()}"},
    "cookie-of-old": {"Cookie": f"bodystream={TokenAuth(TOKEN, lambda: 1e9).session()}"},
    "session-as-bearer": {"Authorization": f"Bearer {TokenAuth(TOKEN).session()}"},
    "in-the-address": {"X": "see the path"},
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_token_opens_nothing(locked, how):
    with locked.client() as client:
        for path in ("/api/sources", "/metrics", "/openapi.json", "/video/x", "/page/page.js"):
            query = f"?token={TOKEN}&access_token={TOKEN}" if how == "in-the-address" else ""
            assert client.get(path + query, headers=WRONG[how]).status_code == 401, path
        new = {"address": "rtsp://127.0.0.1:1/x"}
        assert client.post("/api/sources", json=new, headers=WRONG[how]).status_code == 401


@pytest.mark.rates
def test_guessing_tokens_is_slowed_whatever_address_is_claimed(serve):
    served = serve(TOKEN)
    with served.client() as client:

        def tried(number: int, path: str) -> int:
            claimed = {"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": f"10.0.1.{number}"}
            if path == "/login":
                return client.post(path, data={"token": f"{number}"}, headers=claimed).status_code
            given = {"Authorization": f"Bearer {number}", **claimed}
            return client.get(path, headers=given).status_code

        for path, most in (("/login", 6), ("/api/sources", 25)):
            answers = [tried(number, path) for number in range(40)]
            assert set(answers) == {401, 429}
            assert answers.count(401) <= most
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/sources", headers=right).status_code == 429, "no guess is weighed"
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", served.port))
        bearer = f"Authorization: Bearer {TOKEN}\r\n".encode()
        other.sendall(b"GET /api/sources HTTP/1.1\r\n" + bearer + HEAD + b"\r\n")
        assert status(other.recv(1 << 16)) == 200, "from elsewhere the right one opens"


@pytest.mark.rates
def test_too_many_requests_are_refused(served):
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as one:
        one.sendall(ask)
        got = b""
        while got.count(b"HTTP/1.1 ") < 400:
            got += one.recv(1 << 16)
    assert got.count(b" 429 ") > 50
    time.sleep(0.2)
    assert httpx.get(f"{served.url}/healthz").status_code in (200, 503), "and answered again soon"


def test_a_session_is_not_the_token_and_ends(serve):
    with serve(TOKEN).client() as client:
        done = client.post("/login", data={"token": TOKEN})
        told = done.headers["set-cookie"]
        assert TOKEN not in told
        assert {"httponly", "samesite=strict"} <= set(told.lower().split("; "))
        assert client.get("/api/sources").status_code == 200
    now = [1e9]
    key = TokenAuth(TOKEN, lambda: now[0])
    session = key.session()
    assert key.is_session(session)
    assert not key.is_session(session.replace("1", "2", 1))
    now[0] += 31 * 86400
    assert not key.is_session(session)


@pytest.mark.parametrize(
    "token", ["short", "x" * 513, "with spaces in between", "ü" * 20, "a\r\nSet-Cookie: xxxx=y"]
)
def test_tokens_that_could_stand_in_no_header_are_none(token):
    with pytest.raises(ValueError, match="a token"):
        TokenAuth(token)


# Paths.


@pytest.mark.parametrize("root", ["/api/files/", "/page/"])
@pytest.mark.parametrize(
    "path",
    ["../secret.mp4", "..%2fsecret.mp4", "%2e%2e/secret.mp4", "%252e%252e%252fsecret.mp4",
     "..%5csecret.mp4", "..\\secret.mp4", "/etc/passwd", "%2fetc%2fpasswd", "....//secret.mp4",
     "x.mp4%00", "%00", ".", "", "%c0%ae%c0%ae/secret.mp4", "link.mp4", "C:%5cx", "~/secret.mp4",
     "x" * 5000],
)  # fmt: skip
def test_paths_do_not_leave_their_folder(served, root, path):
    secret = served.folder.parent / "secret.mp4"
    secret.write_text("s3cret")
    link = served.folder / "link.mp4"
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    answer = raw(served, f"GET {root}{path} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
    assert status(answer) in (400, 404, 307)
    assert b"s3cret" not in answer
    assert b"root:" not in answer


# Requests that are none.

MALFORMED = {
    "host-is-no-address": b"GET / HTTP/1.1\r\nHost: [::1\r\nConnection: close\r\n\r\n",
    "no-host": b"GET / HTTP/1.0\r\n\r\n",
    "two-hosts": b"GET / HTTP/1.1\r\nHost: evil.example\r\n" + HEAD + b"\r\n",
    "origin-is-no-address": post(b"{}", b"Origin: http://[\r\n"),
    "two-origins": post(b"{}", b"Origin: http://evil.example\r\nOrigin: http://localhost\r\n"),
    "two-tokens": post(b"{}", b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
    "length-and-chunks": post(b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
    "negative-length": post(b"", b"Content-Length: -5\r\n"),
    "endless-length": post(b"", b"Content-Length: " + b"9" * 6000 + b"\r\n"),
    "large-header": b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n" + HEAD + b"\r\n",
    "large-header-open": b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000,
    "many-headers": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 1000 + HEAD + b"\r\n",
    "folded-header": b"GET / HTTP/1.1\r\nX: a\r\n b\r\nA : b\r\n" + HEAD + b"\r\n",
    "nul": b"GET /\0 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "noise": bytes(range(256)) * 100,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200 + b"\r\n\r\n",
    "lone-surrogate": post(b'{"address": "rtsp://x/\\ud800"}', JSON),
    "surrogate-name": post(b'{"address": "rtsp://x/", "name": "\\udfff"}', JSON),
    "not-a-number": post(b'{"address": NaN}', JSON),
    "deep": post(b'{"address":' + b"[" * 60_000, JSON),
    "no-json": post(b"{", JSON),
    "as-text": post(b'{"address": "rtsp://127.0.0.1:1/x"}', b"Content-Type: text/plain\r\n"),
    "as-a-form": post(b"address=rtsp://127.0.0.1:1/x",
                      b"Content-Type: application/x-www-form-urlencoded\r\n"),
    "line-break": b"DELETE /api/sources/a%0d%0aSet-Cookie:x HTTP/1.1\r\n" + HEAD + b"\r\n",
    "another-method": b"TRACE / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "proxy": b"GET http://evil.example/ HTTP/1.1\r\n" + HEAD + b"\r\n",
    "connect": b"CONNECT evil.example:80 HTTP/1.1\r\n" + HEAD + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("how", MALFORMED)
def test_malformed_requests_are_refused(served, how, caplog):
    answer = raw(served, MALFORMED[how])
    assert status(answer) in (0, 400, 403, 404, 405, 413, 422, 431), answer[:200]
    assert b"\r\nset-cookie" not in answer.lower()
    assert "Traceback" not in caplog.text
    assert served.hub.sources() == []


@pytest.mark.parametrize("how", ["announced", "in-chunks", "more-than-announced", "login"])
def test_large_bodies_are_not_read(served, how):
    large = b'{"address": "' + b"x" * (4 * guard.MOST_BODY) + b'"}'
    request = post(large, JSON)
    if how == "in-chunks":
        chunk = b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n"
        request = b"POST /api/sources HTTP/1.1\r\n" + HEAD + JSON
        request += b"Transfer-Encoding: chunked\r\n\r\n" + chunk
    elif how == "more-than-announced":
        request = post(b"{}", JSON) + large
    elif how == "login":
        request = request.replace(b"/api/sources", b"/login", 1).replace(JSON, b"")
    assert status(raw(served, request)) in (0, 400, 413, 422)
    assert served.hub.sources() == []


# Slow clients.


@pytest.mark.parametrize(
    ("before", "sent"),
    [(b"", b""), (b"", b"GET / HTTP/1.1\r\nHost: loc"),
     (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: loc")],
)  # fmt: skip
def test_a_request_that_does_not_end_is_cut(serve, monkeypatch, before, sent):
    monkeypatch.setattr(connection, "HEAD_S", 0.5)
    with socket.create_connection(("127.0.0.1", serve().port), timeout=4) as one:
        if before:
            one.sendall(before)
            assert b" 200 " in one.recv(1 << 16)
        one.sendall(sent)
        with suppress(ConnectionResetError):
            while one.recv(1 << 16):
                pass


def test_a_head_byte_by_byte_is_cut(served, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_S", 0.5)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port)) as one:
        cut = suppress(ConnectionResetError, BrokenPipeError)
        with cut:
            for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 1000:
                one.sendall(bytes([byte]))
                time.sleep(0.05)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("path", [b"/api/sources", b"/login"])
def test_a_body_that_does_not_end_is_cut(served, monkeypatch, path):
    monkeypatch.setattr(guard, "BODY_S", 0.5)
    kind = JSON if path != b"/login" else b"Content-Type: application/x-www-form-urlencoded\r\n"
    request = post(b"{", kind).replace(b"Content-Length: 1", b"Content-Length: 100")
    assert status(raw(served, request.replace(b"/api/sources", path))) in (400, 408)


def taking_nothing(served: Served, request: bytes) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect(("127.0.0.1", served.port))
    one.sendall(request)
    return one


def is_held(served: Served, one: socket.socket) -> bool:
    """Return whether the server still has the connection."""
    port = one.getsockname()[1]
    ends = f":{served.port:04X} 0100007F:{port:04X} 01"
    return ends in Path("/proc/net/tcp").read_text()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks Linux for its connections")
@pytest.mark.parametrize("what", ["/video/test", "/api/files/large.mp4", "/watch/test"])
def test_whoever_takes_nothing_is_cut_and_their_place_is_free(serve, monkeypatch, what):
    monkeypatch.setattr(connection, "STUCK_S", 0.5)
    monkeypatch.setattr(live, "STUCK_S", 0.5)
    monkeypatch.setattr(live, "MOST_VIEWERS", 1)
    served = serve()
    served.hub.add("lavfi:testsrc2=size=1280x720:rate=50", "test", trusted=True)
    with (served.folder / "large.mp4").open("wb") as file:
        file.truncate(64 << 20)
    until(lambda: served.hub.sources()[0].drawn > 0)
    upgrade = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" if "watch" in what else b""
    )  # fmt: skip
    stuck = taking_nothing(
        served, f"GET {what} HTTP/1.1\r\nHost: localhost\r\n".encode() + upgrade + b"\r\n"
    )
    if upgrade:  # It asks, and asks, and never looks.
        assert b" 101 " in stuck.recv(1000)
        stuck.sendall(b"\x81\x80\0\0\0\0" * 200)
    until(lambda: not is_held(served, stuck), 20)
    with served.client() as client, client.stream("GET", "/video/test") as answer:
        assert answer.status_code == 200
        assert next(answer.iter_raw())
    stuck.close()


def test_slow_viewers_cost_the_api_nothing(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: served.hub.sources()[0].drawn > 0)
    ask = b"GET /video/test HTTP/1.1\r\nHost: localhost\r\n\r\n"
    slow = [taking_nothing(served, ask) for _ in range(40)]
    times = []
    with served.client() as client:
        for _ in range(20):
            begun = time.monotonic()
            assert client.get("/api/sources").status_code == 200
            times.append(time.monotonic() - begun)
    assert sorted(times)[10] < 0.25
    for each in slow:
        each.close()


def test_there_are_only_so_many_viewers(serve, monkeypatch):
    monkeypatch.setattr(live, "MOST_VIEWERS", 2)
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    with served.client() as client:
        with client.stream("GET", "/video/test") as a, client.stream("GET", "/video/test") as b:
            assert (a.status_code, b.status_code) == (200, 200)
            # Held: a stream whose iterator goes is closed.
            both = [a.iter_raw(), b.iter_raw()]
            assert all(next(each) for each in both)
            assert client.get("/video/test").status_code == 503
            with websockets.connect(f"ws://127.0.0.1:{served.port}/watch/test") as late:
                assert closed(late) == 1013

        def again() -> bool:
            with client.stream("GET", "/video/test") as answer:
                return answer.status_code == 200

        until(again)


def test_one_address_has_only_so_many_connections(serve, monkeypatch):
    monkeypatch.setattr(connection, "MOST_OF_ONE", 5)
    served = serve()
    held = [socket.create_connection(("127.0.0.1", served.port), timeout=5) for _ in range(5)]
    time.sleep(0.2)
    ask = b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n"
    assert raw(served, ask) == b"", "cut"
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", served.port))
        other.sendall(ask)
        assert b" 200 " in other.recv(1 << 16)
    for each in held:
        each.close()


# Sockets.


def test_a_socket_from_another_site_or_without_a_token_is_refused(serve):
    served = serve(TOKEN)
    right = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("ws", "watch"):
        address = f"ws://127.0.0.1:{served.port}/{path}/test"
        for headers, origin in (({}, None), (right, EVIL), (right, "null"), ({}, served.url)):
            with pytest.raises(InvalidStatus, match="403"):
                websockets.connect(address, additional_headers=headers, origin=origin)


def closed(opened: Any) -> int:
    """Return the code with which the server closes a WebSocket."""
    with suppress(ConnectionClosed):
        while True:
            opened.recv(timeout=5)
    return opened.close_code


def test_a_socket_takes_no_large_and_no_unasked_messages(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    address = f"ws://127.0.0.1:{served.port}"
    with websockets.connect(f"{address}/watch/test") as large:
        large.send("x" * (1 << 20))
        assert closed(large) == 1009
    with websockets.connect(f"{address}/ws/test") as talking:
        talking.send("hello")
        assert closed(talking) in (1000, 1005, 1006)
    with websockets.connect(f"{address}/watch/test") as own:
        own.send("")
        assert own.recv(timeout=5)[:3] == b"\xff\xd8\xff"
        with pytest.raises(TimeoutError):
            own.recv(timeout=0.3)  # None that was not asked for.


# Other sites.


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/sources"), ("PUT", "/api/sources/test/recording"),
     ("DELETE", "/api/sources/test"), ("PATCH", "/api/sources/test"),
     ("POST", "/api/sources/test/restart"), ("DELETE", "/api/recordings/test"), ("POST", "/login")],
)  # fmt: skip
@pytest.mark.parametrize(
    "headers",
    [{"Origin": EVIL}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Origin": ""},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
     {"Origin": EVIL, "Content-Type": "text/plain"},
     {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}],
)  # fmt: skip
def test_other_sites_change_nothing(served, method, path, headers):
    body = b'{"address": "rtsp://127.0.0.1:1/x", "on": true}'
    lines = {"Host": "localhost", "Content-Type": "application/json", **headers}
    answer = httpx.request(method, served.url + path, content=body, headers=lines)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert served.hub.sources() == []


@pytest.mark.parametrize("path", ["/video/x", "/api/sources", "/api/files", "/metrics"])
def test_other_sites_embed_nothing_and_may_link(served, path):
    for site in ("cross-site", "same-site"):
        embeds = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        assert httpx.get(served.url + path, headers=embeds).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = httpx.get(served.url + "/", headers=link)
    assert answer.status_code == 200
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "DELETE"}
    preflight = httpx.options(served.url + "/api/sources", headers=asked)
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example",
     "169.254.169.254", "0.0.0.0:{port}", ""],
)  # fmt: skip
def test_a_name_that_was_bound_to_this_machine_is_refused(served, host):
    host = host.format(port=served.port)
    for path in ("/", "/api/sources", "/page/page.js"):
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert status(raw(served, request.encode())) == 403


# What sources could be made to read.


@pytest.mark.parametrize(
    "address",
    ["/etc/passwd", "file:///etc/passwd", "samples/pitch.mp4", "lavfi:movie=/etc/passwd", "", " ",
     "concat:a|b", "rtsp://a b", "x" * 3000, "subfile,,start,0,end,9,,:/etc/passwd", "http://",
     "data:x", "pipe:0", "unix:/run/x", "rtsp://x\r\ny", "camera:x", "/dev/video0/../../x",
     ".", "img_%03d.jpg", "*.jpg", "-", "/dev/stdin", "٣"],
)  # fmt: skip
def test_no_file_of_this_machine_is_added(served, address):
    answer = httpx.post(f"{served.url}/api/sources", json={"address": address})
    assert answer.status_code == 422
    assert served.hub.sources() == []


@pytest.mark.parametrize(
    "address",
    ["tcp://0.0.0.0:{port}?listen=1", "tcp://127.0.0.1:{port}?listen", "TCP://0.0.0.0:{port}?listen=2",
     "tcp://0.0.0.0:{port}/x?a=1&listen=1", "udp://0.0.0.0:{port}", "udp://:{port}", "udp://@:{port}",
     "udp://127.0.0.1:{port}", "udp://[::]:{port}", "udp://239.0.0.1:{port}?localaddr=0.0.0.0",
     "rtmp://0.0.0.0:{port}/live?listen=1", "http://0.0.0.0:{port}/x?listen=1",
     "rtsp://0.0.0.0:{port}/x?listen", "rtsp://127.0.0.1:{port}/x?udp",
     "srt://0.0.0.0:{port}?mode=listener", "rtp://0.0.0.0:{port}"],
)  # fmt: skip
def test_no_port_of_this_machine_is_opened(served, address):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    added = httpx.post(f"{served.url}/api/sources", json={"address": address.format(port=port)})
    assert added.status_code == 422
    assert served.hub.sources() == []


def test_a_multicast_group_may_be_added(served):
    added = httpx.post(f"{served.url}/api/sources", json={"address": "udp://@239.255.0.9:5999"})
    assert added.status_code == 201

    def bound() -> str:
        """The addresses that port 5999 is bound to, in hexadecimal, the last byte first."""
        lines = "".join(Path(f"/proc/net/udp{kind}").read_text() for kind in ("", "6"))
        return " ".join(re.findall(rf" (\w+):{5999:04X} \w+:0000 ", lines))

    until(bound)
    assert bound() == "0900FFEF"
    served.hub.remove(added.json()["name"])


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


@pytest.fixture(scope="module")
def secret(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "secret.ts"
    return write_clip(path, [numbered(number) for number in range(30)])


def attempts(secret: Path) -> dict[str, str]:
    words = "root:x:0:0:the words of an inner page\n"
    return {
        "file.m3u8": PLAYLIST.format(f"file://{secret}"),
        "path.m3u8": PLAYLIST.format(secret),
        "concat.m3u8": PLAYLIST.format(f"concat:{secret}|{secret}"),
        "subfile.m3u8": PLAYLIST.format(f"subfile,,start,0,end,0,,:{secret}"),
        "crypto.m3u8": PLAYLIST.format(f"crypto:file://{secret}"),
        "async.m3u8": PLAYLIST.format(f"async:file://{secret}"),
        "udp.m3u8": PLAYLIST.format("udp://0.0.0.0:5997"),
        "listen.m3u8": PLAYLIST.format("tcp://0.0.0.0:5998?listen=1"),
        "list.ffconcat": f"ffconcat version 1.0\nfile 'file://{secret}'\n",
        "words.txt": words * 60,
        "words.nfo": words * 60,
        "inner.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5999 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "moved.mp4": "",
    }


@pytest.fixture(params=["http", "tcp"])
def hostile(request, secret) -> Iterator[str]:
    """A server that answers any path with one of the attempts."""
    texts = attempts(secret)

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved.mp4":
                self.send_response(302)
                self.send_header("Location", f"file://{secret}")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(texts[self.path[1:]].encode())

        def log_message(self, *_: object) -> None:
            pass

    if request.param == "http":
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()
        return
    listening = socket.create_server(("127.0.0.1", 0))
    wanted = request.node.callspec.params["attempt"]

    def answer() -> None:
        try:
            while True:
                one, _ = listening.accept()
                one.sendall(texts[wanted].encode())
                one.close()
        except OSError:
            return

    threading.Thread(target=answer, daemon=True).start()
    yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.mark.parametrize("attempt", sorted(attempts(Path("x"))))
def test_a_hostile_server_has_no_file_and_no_text_shown(hostile, attempt):
    source = open_source(f"{hostile}/{attempt}", SourceOptions(retry_s=0.0))
    with pytest.raises(SourceError):
        source.open()
    source.close()


# Logins.

LOGINS = [
    "rtsp://ann:s3cret@127.0.0.1:1/x",
    "rtsp://ann:s3/cr@et@127.0.0.1:1/x",
    "http://127.0.0.1:1/x?user=ann&password=s3cret&size=1",
    "http://127.0.0.1:1/x.cgi?loginuse=ann&loginpas=s3cret",
    "http://127.0.0.1:1/x?access_token=s3cret/s3cret",
    "rtsp://127.0.0.1:1/user=ann_password=s3cret_channel=1.sdp",
    "http://ann@127.0.0.1:1/;jsessionid=s3cret",
]


def test_logins_are_in_no_message(serve, capfd, caplog):
    served = serve()
    told = []
    with served.client() as client:
        for address in LOGINS:
            added = client.post("/api/sources", json={"address": address})
            # One whose login does not end where FFmpeg would end it is refused.
            name = added.json().get("name", "none")
            assert (added.status_code == 422) == (name == "none") == ("s3/" in address)
            told += [added.text, name]
            for wrong in (
                {"address": address, "name": name}, {"address": address + "x" * 3000},
                {"address": [address]}, {"address": address, "name": "x" * 99},
                {"address": address + " y"}, {address: address},
            ):  # fmt: skip
                told.append(client.post("/api/sources", json=wrong).text)
            told.append(client.get(f"/api/sources/{name}/poses").text)
            told.append(client.put(f"/api/sources/{name}/recording", json={"on": True}).text)
        until(lambda: all(view.reason for view in served.hub.sources()))
        paths = ("/api/sources", "/metrics", "/openapi.json", "/healthz", "/api/files")
        told += [client.get(path).text for path in paths]
    streams = served.hub._scheduler.streams
    told += [f"{served.hub._reason(stream)} {stream.source.name}" for stream in streams]
    told += [repr(served.hub.sources()), *(thread.name for thread in threading.enumerate())]
    told += [path.name for path in served.folder.iterdir()]
    served.end()
    told += [*capfd.readouterr(), caplog.text]
    for text in told:
        for part in ("ann", "s3cret", "s3/", "cr@et"):
            harmless = text.replace("channel", "").replace("mannequin", "")
            assert part not in harmless, (part, text)


def test_a_masked_address_still_says_where():
    for address in LOGINS:
        assert "127.0.0.1:1/" in without_credentials(address)


# Names.


@pytest.mark.parametrize(
    "name",
    ["<img src=x>", "../x", "a/b", ".x", "a b", "x" * 61, "ä", "a\r\nb", "a\0b", 'a"b', "-x"],
)
def test_a_hostile_name_is_refused(served, name):
    new = {"address": "rtsp://127.0.0.1:1/x", "name": name}
    assert httpx.post(f"{served.url}/api/sources", json=new).status_code == 422
    assert served.hub.sources() == []


def test_the_page_writes_text_only():
    """Addresses and reasons may say anything; the page takes none of it for HTML or a script, and
    the policy would run nothing that stood in it."""
    page = Path(connection.__file__).with_name("page")
    script = "\n".join(each.read_text() for each in page.glob("*.js"))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|\.on\w+ ?= ?\"",
        script,
    )
    for name in ("index.html", "login.html"):
        assert not re.search(r"<script>|\son\w+=|style=|https?://", (page / name).read_text())
    policy = dict(guard._HEADERS)[b"content-security-policy"]
    assert b"unsafe" not in policy
    assert b"default-src 'self'" in policy


def test_the_page_of_attacks_names_these_tests():
    """docs/results/live.md's table has every test here, and none that is not."""
    here = set(re.findall(r"(?m)^def (test_\w+)", Path(__file__).read_text()))
    text = (ROOT / "docs" / "results" / "live.md").read_text()
    told = set(re.findall(r"`(test_\w+)`", text.partition("## Attacks tried")[2]))
    assert told == here - {"test_the_page_of_attacks_names_these_tests"}
