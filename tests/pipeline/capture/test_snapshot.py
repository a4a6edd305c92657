"""A camera's picture over HTTP: polled, lost and found, and servers that mean no good."""

from __future__ import annotations

import base64
import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import pytest

from pipeline.capture import snapshot
from pipeline.capture.addresses import parse_address
from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import (
    SourceError,
    SourceLogin,
    SourceLost,
    SourceNotThere,
    SourceRefused,
    SourceUnreachable,
)
from pipeline.capture.http_picture import MOST_BYTES
from pipeline.capture.open import open_source
from pipeline.capture.snapshot import SnapshotSource, is_snapshot
from pipeline.capture.status import State
from tests.support.clips import number_of, numbered


def jpeg(number: int, width: int = 160) -> bytes:
    return cv2.imencode(".jpg", numbered(number, width))[1].tobytes()


class Camera:
    """An HTTP server on the loopback; ``answer`` is called with each request's handler."""

    def __init__(self) -> None:
        self.requests: list[http.server.BaseHTTPRequestHandler] = []
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], None] = self.picture
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.requests.append(self)
                with contextlib.suppress(OSError):
                    camera.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        self.port = self._server.server_port

    def picture(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Send a picture of the request's number."""
        self.send(handler, jpeg(len(self.requests)))

    @staticmethod
    def send(
        handler: http.server.BaseHTTPRequestHandler,
        data: bytes = b"",
        status: int = 200,
        **headers: str,
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    def source(
        self, path: str = "snapshot.jpg", login: str = "", **options: object
    ) -> SnapshotSource:
        address = f"http://{login}127.0.0.1:{self.port}/{path}"
        source = open_source(address, SourceOptions(**{"fps": 50.0, **options}))  # type: ignore[arg-type]
        assert isinstance(source, SnapshotSource)
        return source

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def camera() -> Iterator[Camera]:
    camera = Camera()
    yield camera
    camera.close()


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("http://h/snapshot.jpg", True), ("https://h/a/img_001.JPEG?x=1", True),
        ("http://h/x.png", True), ("http://h/cgi-bin/snapshot.cgi?channel=1", True),
        ("http://h/ISAPI/channels/101/picture", True),
        ("http://h/onvif/snapshot", True), ("http://h/axis-cgi/jpg/image.cgi", True),
        ("http://h/?action=snapshot", True), ("http://h/cgi-bin/api.cgi?cmd=Snap&channel=0", True),
        ("http://h/api/door/latest.jpg", True),
        ("http://h/?action=stream", False), ("http://h/axis-cgi/mjpg/video.cgi", False),
        ("http://h/live.m3u8", False), ("http://h/snapshot.mp4", False), ("http://h", False),
        ("http://h/images/stream", False), ("rtsp://h/snapshot.jpg", False),
        ("tcp://h:1/x.jpg", False),
    ],
)  # fmt: skip
def test_which_addresses_are_snapshots(address, wanted):
    assert is_snapshot(parse_address(address)) is wanted


def test_every_answer_is_a_frame_at_its_time(camera):
    source = camera.source(fps=20.0, seconds=0.5)
    assert source.live
    source.open()
    info = source.info
    assert (info.width, info.height, info.live, info.codec) == (160, 96, True, "mjpeg")
    frames = list(source.frames())
    # The picture of the opening may be old when the frames are wanted.
    assert [number_of(frame.image) for frame in frames] == list(range(2, 2 + len(frames)))
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert frames[0].pts_s == 0
    # Never more than was asked for; fewer on a busy machine.
    assert 2 <= len(frames) <= 11
    assert all(a.pts_s < b.pts_s < 0.5 for a, b in zip(frames, frames[1:]))
    assert not any(frame.discontinuity for frame in frames)
    assert source.status.state is State.ENDED


def test_an_unchanged_picture_is_asked_for_more_seldom(camera):
    camera.answer = lambda handler: camera.send(handler, jpeg(7))
    source = camera.source(fps=50.0, seconds=1.0)
    source.open()
    frames = list(source.frames())
    # 20 ms, then 40, 80, ...: by 50 a second there would be 50.
    assert 2 <= len(frames) <= 7
    assert {number_of(frame.image) for frame in frames} == {7}
    assert frames[0].image is not frames[1].image


@pytest.mark.parametrize(
    ("tag", "value", "asks"),
    [("ETag", '"a"', "If-None-Match"), ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT",
                                        "If-Modified-Since")],
)  # fmt: skip
def test_a_picture_is_asked_for_only_if_it_is_new(camera, tag, value, asks):
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.headers.get(asks) == value:
            camera.send(handler, status=304)
        else:
            camera.send(handler, jpeg(9), **{tag.replace("-", "_"): value})

    camera.answer = answer
    source = camera.source(seconds=0.2)
    source.open()
    assert [number_of(frame.image) for frame in source.frames()][:2] == [9, 9]
    assert camera.requests[0].headers.get(asks) is None
    assert camera.requests[1].headers.get(asks) == value


def test_a_lost_camera_comes_back(camera):
    source = camera.source(retry_s=20.0)
    source.open()
    frames = source.frames()
    before = next(frames)
    fails = iter([500, 404])

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        status = next(fails, None)
        if status is None:
            camera.send(handler, jpeg(5, width=200))
        else:
            camera.send(handler, status=status)

    camera.answer = answer
    after = next(frames)
    assert after.discontinuity
    assert number_of(after.image) == 5
    assert after.id == before.id + 1
    assert after.pts_s > before.pts_s + 0.2
    assert source.counts["reconnected"] == 1
    assert source.status.state is State.LIVE
    assert "lost (the server answers 500), back after" in source.warnings[0]
    assert not next(frames).discontinuity
    source.close()
    assert list(frames) == []


def test_one_that_does_not_come_back_is_lost(camera):
    source = camera.source(retry_s=0.0)
    source.open()
    frames = source.frames()
    next(frames)
    camera.answer = lambda handler: camera.send(handler, status=503)
    with pytest.raises(SourceLost, match=r"lost \(the server answers 503\)"):
        next(frames)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "says"),
    [
        (401, {"WWW_Authenticate": 'Basic realm="x"'}, SourceLogin, "wants a login: put user"),
        (403, {}, SourceRefused, "forbidden"),
        (404, {}, SourceNotThere, "no such picture there: check the path"),
        (500, {}, SourceUnreachable, "the server answers 500"),
        (200, {}, SourceUnreachable, "no picture comes from there"),
        (200, {"Content_Type": "text/html"}, SourceUnreachable, "sends no single picture"),
        (200, {"Content_Type": "multipart/x-mixed-replace"}, SourceUnreachable, "single"),
        (302, {"Location": "file:///etc/passwd"}, SourceRefused, "leads to an address that is not"),
        (302, {"Location": "rtsp://h/x"}, SourceRefused, "from HTTP to rtsp://"),
        (302, {"Location": "//tcp:/x y"}, SourceRefused, "leads to an address that is not"),
        (302, {"Location": "/snapshot.jpg"}, SourceUnreachable, "from address to address"),
        (304, {}, SourceUnreachable, "the server answers 304"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_one_line(camera, status, headers, kind, says):
    camera.answer = lambda handler: camera.send(handler, b"s3cret", status, **headers)
    with pytest.raises(kind, match=says) as caught:
        camera.source(retry_s=0.0).open()
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1
    assert "s3cret" not in str(caught.value)


def test_a_redirect_is_followed_and_the_login_stays_at_its_host(camera):
    other = Camera()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        camera.send(handler, status=307, Location=f"http://localhost:{other.port}/picture")

    camera.answer = answer
    try:
        source = camera.source(login="ann:s3cret@", retry_s=0.0)
        source.open()
        source.close()
        assert "Authorization" not in other.requests[0].headers
    finally:
        other.close()


def needs_basic(camera: Camera, handler: http.server.BaseHTTPRequestHandler) -> None:
    expected = "Basic " + base64.b64encode(b"ann:p@ss").decode()
    if handler.headers.get("Authorization") == expected:
        camera.picture(handler)
    else:
        camera.send(handler, status=401, WWW_Authenticate='Basic realm="x"')


def needs_digest(camera: Camera, handler: http.server.BaseHTTPRequestHandler) -> None:
    if 'username="ann"' in handler.headers.get("Authorization", ""):
        camera.picture(handler)
    else:
        challenge = 'Digest realm="x", nonce="n", qop="auth", algorithm=MD5'
        camera.send(handler, status=401, WWW_Authenticate=challenge)


@pytest.mark.parametrize("needs", [needs_basic, needs_digest])
def test_a_login_is_sent_as_the_camera_asks(camera, needs):
    camera.answer = lambda handler: needs(camera, handler)
    source = camera.source(login="ann:p%40ss@", retry_s=0.0)
    source.open()
    assert "ann" not in source.name
    next(source.frames())
    source.close()
    # The first picture took a question for how; the second one no more.
    assert len(camera.requests) == 3


@pytest.mark.parametrize("needs", [needs_basic, needs_digest])
def test_a_wrong_login_is_one_guess_a_try(camera, needs):
    camera.answer = lambda handler: needs(camera, handler)
    with pytest.raises(SourceLogin, match="the login is refused"):
        camera.source(login="bob:no@", retry_s=0.0).open()
    assert sum("Authorization" in request.headers for request in camera.requests) == 1


@pytest.mark.parametrize(
    "challenge", ["Digest", "Digest realm=", 'Digest realm="x", nonce="n", algorithm=X-9', "%%"]
)
def test_an_odd_challenge_is_one_line(camera, challenge):
    camera.answer = lambda handler: camera.send(handler, status=401, WWW_Authenticate=challenge)
    with pytest.raises(SourceError) as caught:
        camera.source(login="ann:s3cret@", retry_s=0.0).open()
    assert "s3cret" not in str(caught.value)


def drip_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X: y\r\n")
        time.sleep(0.05)


def drip_body(handler: http.server.BaseHTTPRequestHandler) -> None:
    Camera.send(handler, jpeg(1)[:100])
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(30)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("get ")]


@pytest.mark.parametrize("hang", [drip_headers, drip_body, silent])
def test_a_server_that_hangs_is_given_up_and_leaves_nothing(camera, hang, monkeypatch):
    monkeypatch.setattr(snapshot, "_DEADLINE_S", 0.5)
    camera.answer = hang
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable, match="no picture within"):
        camera.source(retry_s=0.0).open()
    assert time.monotonic() - begun < 2
    end = time.monotonic() + 2
    while threads() and time.monotonic() < end:
        time.sleep(0.02)
    assert threads() == []


@pytest.mark.parametrize("hang", [drip_headers, drip_body, silent])
def test_a_source_that_hangs_is_removed_within_a_second(camera, hang):
    source = camera.source()
    source.open()
    frames = source.frames()
    next(frames)
    camera.answer = hang
    threading.Timer(0.3, source.close).start()
    begun = time.monotonic()
    assert list(frames) == []
    assert time.monotonic() - begun < 1


def test_a_stall_is_said(camera, monkeypatch):
    monkeypatch.setattr(snapshot, "_STALLED_S", 0.1)
    source = camera.source()
    source.open()
    frames = source.frames()
    next(frames)
    camera.answer = silent
    reader = threading.Thread(target=list, args=[frames])
    reader.start()
    time.sleep(0.5)
    assert source.status.state is State.STALLED
    source.close()
    reader.join(1)
    assert not reader.is_alive()


def test_more_bytes_than_a_picture_has_are_not_read(camera):
    def flood(handler: http.server.BaseHTTPRequestHandler) -> None:
        Camera.send(handler)
        sent.append(0)
        for _ in range(1000):
            handler.wfile.write(bytes(1 << 20))
            sent[0] += 1 << 20

    sent: list[int] = []
    camera.answer = flood
    with pytest.raises(SourceUnreachable, match="more than 16 MB"):
        camera.source(retry_s=0.0).open()
    assert sent[0] < 3 * MOST_BYTES


def test_a_closed_port_and_a_name_that_is_none_fail_at_once():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid"):
        with pytest.raises(SourceUnreachable) as caught:
            open_source(f"http://ann:s3cret@{host}/snapshot.jpg", SourceOptions(retry_s=0.0)).open()
        assert "check the address" in str(caught.value)
        assert "s3cret" not in str(caught.value)
