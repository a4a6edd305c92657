"""Live sources: paced clips, cameras and feeds that come, go and come back, by a fake clock."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.capture.base import SourceOptions, StopSignal
from pipeline.capture.devices import StreamInput, camera, camera_input, network
from pipeline.capture.errors import (
    SourceError,
    SourceLost,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
)
from pipeline.capture.feed import Feed
from pipeline.capture.live import LiveSource
from pipeline.capture.open import open_source
from pipeline.capture.status import State
from pipeline.core.frame import Frame
from tests.support.clips import number_of, numbered, write_clip


class FakeClock:
    """A clock that only waiting moves; it halts once ``halt_at_s`` is reached."""

    def __init__(self, halt_at_s: float = float("inf")) -> None:
        self.now_ns = 5_000_000_000
        self._end_ns = self.now_ns + halt_at_s * 1e9

    def __call__(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> bool:
        assert seconds >= 0
        self.now_ns += round(seconds * 1e9)
        return self.now_ns >= self._end_ns


def feed_of(
    stream_input: StreamInput,
    clock: FakeClock,
    retry_s: float | None = 10.0,
    wait: Callable[[float], bool] | None = None,
) -> Feed:
    return Feed(
        stream_input, retry_s, stop_signal=StopSignal(), clock_ns=clock, wait=wait or clock.wait,
        jitter=lambda: 0.0,
    )  # fmt: skip


def live(stream_input: StreamInput, **options: object) -> LiveSource:
    stop_signal = StopSignal()
    feed = Feed(
        stream_input,
        0.0,
        stop_signal=stop_signal,
        clock_ns=time.monotonic_ns,
        wait=stop_signal.wait,
    )
    return LiveSource(feed, SourceOptions(**options), stop_signal)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "clip.mp4"
    return write_clip(path, [numbered(number) for number in range(10)])


def input_of(
    openings: list[Callable[[], object]], download: bool = False, login: str = "ann:s3cret@"
) -> StreamInput:
    """A way in whose n-th opening is the n-th of ``openings``; the last one again and again."""
    tries = iter(openings)
    real = network(f"rtsp://{login}127.0.0.1/door", "tcp")
    return replace(real, open=lambda: next(tries, openings[-1])(), download=download)


def refused() -> object:
    raise av.error.ConnectionRefusedError(111, "Connection refused", "rtsp://ann:s3cret@x")


def test_a_paced_clip_plays_at_its_own_pace(clip: Path) -> None:
    clock = FakeClock()
    source = open_source(str(clip), SourceOptions(live=True), clock_ns=clock, wait=clock.wait)
    assert source.live
    source.open()
    assert source.info.live
    frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(10))
    due_ns = [frame.captured_ns - frames[0].captured_ns for frame in frames]
    assert due_ns == [round(i * 40e6) for i in range(10)]


def test_a_slow_consumer_does_not_shift_the_pace(clip: Path) -> None:
    clock = FakeClock()
    source = open_source(str(clip), SourceOptions(live=True), clock_ns=clock, wait=clock.wait)
    source.open()
    begun = None
    for frame in source.frames():
        begun = frame.captured_ns if begun is None else begun
        if frame.id == 2:
            clock.wait(0.1)  # busy for two and a half frames
    assert frame.captured_ns - begun == round(9 * 40e6)


def test_a_paced_clip_does_not_wait_for_a_jump_in_time(tmp_path: Path) -> None:
    times_ms = [0, 40, 80, 60_000, 60_040]
    path = write_clip(tmp_path / "j.mkv", [numbered(i) for i in range(5)], pts_ms=times_ms)
    clock = FakeClock()
    source = open_source(str(path), SourceOptions(live=True), clock_ns=clock, wait=clock.wait)
    source.open()
    frames = list(source.frames())
    assert len(frames) == 5
    assert frames[-1].captured_ns - frames[0].captured_ns < 1e9


def test_a_paced_clip_stops_while_it_waits(clip: Path) -> None:
    clock = FakeClock(halt_at_s=0.1)
    source = open_source(str(clip), SourceOptions(live=True), clock_ns=clock, wait=clock.wait)
    source.open()
    assert len(list(source.frames())) == 3


def test_test_pictures_stand_in_for_a_camera() -> None:
    clock = FakeClock()
    spec = "lavfi:testsrc2=size=64x48:rate=10:duration=1"
    source = open_source(spec, clock_ns=clock, wait=clock.wait)
    source.open()
    assert source.live
    assert (source.info.width, source.info.height, source.info.fps) == (64, 48, 10.0)
    frames = list(source.frames())
    assert [frame.id for frame in frames] == list(range(10))
    assert frames[-1].captured_ns - frames[0].captured_ns == 900_000_000
    part = open_source(spec, SourceOptions(live=False, start_s=0.3, seconds=0.4))
    part.open()
    assert not part.live
    assert [frame.id for frame in part.frames()] == [3, 4, 5, 6]


def test_a_feed_that_is_not_there_is_tried_until_the_time_is_up() -> None:
    clock = FakeClock()
    begun = clock()
    tries = []
    stream_input = input_of([lambda: (tries.append(clock()), refused())])
    with pytest.raises(SourceUnreachable, match="connection refused") as caught:
        feed_of(stream_input, clock, 7.0).open()
    assert clock() - begun == 7_000_000_000
    pauses_s = [(b - a) / 1e9 for a, b in zip(tries, tries[1:])]
    assert pauses_s[:4] == [0.25, 0.5, 1.0, 2.0]
    assert max(pauses_s) == 2.0
    assert "s3cret" not in str(caught.value)
    assert "ann" not in str(caught.value)


def test_without_retry_one_try_is_all() -> None:
    clock = FakeClock()
    tries = []
    stream_input = input_of([lambda: (tries.append(0), refused())])
    with pytest.raises(SourceUnreachable):
        feed_of(stream_input, clock, 0.0).open()
    assert len(tries) == 1
    assert clock() == FakeClock()()


def unauthorized() -> object:
    raise av.error.HTTPUnauthorizedError(1, "Server returned 401", "rtsp://x")


def forbidden() -> object:
    raise av.error.HTTPForbiddenError(1, "Server returned 403", "rtsp://x")


def not_found() -> object:
    raise av.error.HTTPNotFoundError(1, "Server returned 404", "rtsp://x")


@pytest.mark.parametrize(
    ("answers", "login", "pauses_s"),
    [
        ([unauthorized] * 6, "ann:s3cret@", [2, 30, 300, 300, 300]),
        ([unauthorized] * 4, "", [2, 2, 2]),
        ([not_found] * 4, "ann:s3cret@", [2, 2, 2]),
        ([forbidden] * 6, "ann:s3cret@", [5, 10, 20, 30, 30]),
        # A camera that was restarted in between is asked afresh.
        ([unauthorized] * 3 + [refused] * 2 + [unauthorized] * 3, "a:b@",
         [2, 30, 300, 0.25, 0.5, 2, 30]),
    ],
)  # fmt: skip
def test_a_source_that_refuses_is_tried_less_and_less_often_without_end(
    answers, login, pauses_s
) -> None:
    clock, tries = FakeClock(halt_at_s=2000.0), []

    def noted(answer: Callable[[], object]) -> Callable[[], object]:
        return lambda: (tries.append(clock()), answer())

    stream_input = input_of([noted(answer) for answer in answers], login=login)
    with pytest.raises((SourceRefused, SourceUnreachable)):
        feed_of(stream_input, clock, math.inf).open()
    apart_s = [(b - a) / 1e9 for a, b in zip(tries, tries[1:])]
    assert apart_s[: len(pauses_s)] == pauses_s


def test_a_refused_login_is_not_tried_again() -> None:
    clock = FakeClock()
    with pytest.raises(SourceRefused, match="login is refused"):
        feed_of(input_of([unauthorized]), clock, 60.0).open()
    assert clock() == FakeClock()()


def test_stopping_ends_the_tries() -> None:
    clock = FakeClock(halt_at_s=1.0)
    with pytest.raises(SourceUnreachable):
        feed_of(input_of([refused]), clock, 1000.0).open()
    assert clock() - FakeClock()() < 3e9


def ticking(source: Feed, clock: FakeClock) -> Iterator[Frame]:
    """The frames, each 40 ms after the last."""
    for frame in source.frames():
        clock.now_ns += 40_000_000
        yield frame


def test_a_feed_that_comes_back_goes_on(clip: Path) -> None:
    """Lost after ten frames, away for two tries, back: ids and times rise, one break."""
    clock = FakeClock(halt_at_s=3.0)

    def play() -> object:
        return av.open(str(clip))

    stream_input = input_of([play, refused, refused, play, refused])
    source = feed_of(stream_input, clock, 2.0)
    source.open()
    frames: list[Frame] = []
    with pytest.raises(SourceLost, match=r"\(the stream ended\) and did not come back in 2 s"):
        frames.extend(ticking(source, clock))
    assert [frame.id for frame in frames] == list(range(20))
    assert [number_of(frame.image) for frame in frames] == [*range(10), *range(10)]
    assert [frame.id for frame in frames if frame.discontinuity] == [10]
    assert all(a.pts_s < b.pts_s for a, b in zip(frames, frames[1:]))
    away_s = (frames[10].captured_ns - frames[9].captured_ns) / 1e9
    assert away_s > 0.7
    assert frames[10].pts_s - frames[9].pts_s == pytest.approx(away_s)
    assert len(source.warnings) == 1
    assert "lost (the stream ended), back after 0.8 s" in source.warnings[0]


def test_the_end_of_a_download_is_no_loss(clip: Path) -> None:
    source = live(input_of([lambda: av.open(str(clip))], download=True))
    assert not source.live
    source.open()
    time.sleep(0.1)  # nothing is skipped while nobody reads
    assert [frame.id for frame in source.frames()] == list(range(10))


def test_parts_of_a_live_feed(clip: Path) -> None:
    source = live(input_of([lambda: av.open(str(clip))]), start_s=0.1, seconds=0.2, live=False)
    source.open()
    frames = list(source.frames())
    assert [frame.id for frame in frames] == [3, 4, 5, 6, 7]
    assert frames[0].pts_s == pytest.approx(0.12)


class HangingFile(io.BytesIO):
    """A file whose reading hangs from its last third on, once ``hangs``, until ``go`` is set."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._hang_at = len(content) * 2 // 3
        self.hangs = False
        self.go = threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        if self.hangs and self.tell() >= self._hang_at:
            assert self.go.wait(20)
        return super().read(size)


def test_closing_does_not_wait_for_a_camera_that_hangs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (96, 160, 3), np.uint8) for _ in range(60)]
    path = write_clip(tmp_path / "long.ts", images)
    file = HangingFile(path.read_bytes())
    source = live(input_of([lambda: av.open(file)]), live=False)
    source.open()
    file.hangs = True
    seen: list[Frame] = []
    reader = threading.Thread(target=lambda: seen.extend(source.frames()))
    reader.start()
    time.sleep(0.3)
    assert reader.is_alive()
    count = len(seen)
    assert count > 10
    begun = time.monotonic()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    assert time.monotonic() - begun < 2.0
    file.go.set()
    source._feed.thread.join(5)
    assert not source._feed.thread.is_alive()
    assert len(seen) == count


def test_stopping_does_not_wait_for_a_camera_that_never_opens(clip: Path) -> None:
    go, stop = threading.Event(), threading.Event()
    stop_signal = StopSignal(stop)
    stream_input = input_of([lambda: go.wait(20) and av.open(str(clip))])
    feed = Feed(
        stream_input,
        9.0,
        stop_signal=stop_signal,
        clock_ns=time.monotonic_ns,
        wait=stop_signal.wait,
    )
    source = LiveSource(feed, SourceOptions(), stop_signal)
    threading.Timer(0.2, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable, match="stopped before its first frame"):
        source.open()
    assert time.monotonic() - begun < 1.0
    go.set()
    source.close()
    source._feed.thread.join(5)
    assert not source._feed.thread.is_alive()


def test_what_was_opened_long_ago_does_not_begin_in_the_past(clip: Path) -> None:
    pace = threading.Semaphore(0)

    def play() -> object:
        return av.open(str(clip))

    source = live(input_of([play, lambda: pace.acquire() and refused()]))
    assert source.live
    source.open()
    time.sleep(0.3)  # all ten frames came and went
    playing = source.frames()
    frame = next(playing)
    assert (frame.id, frame.pts_s, frame.discontinuity) == (0, 0.0, False)
    assert number_of(frame.image) == 9
    pace.release()
    with pytest.raises(SourceLost):
        next(playing)


def test_from_the_first_frame_on_every_one_is_handed_over(clip: Path) -> None:
    openings = [lambda: av.open(str(clip))] * 5
    source = live(input_of([*openings, refused]))
    source.open()
    numbers, ids = [], []
    with contextlib.suppress(SourceLost):
        for frame in source.frames():
            numbers.append(number_of(frame.image))
            ids.append(frame.id)
            time.sleep(0.002)
    assert ids == list(range(len(ids)))
    assert len(ids) >= 40
    assert numbers == [*range(10), *range(10), *range(10), *range(10), *range(10)][-len(numbers) :]


def test_it_may_be_closed_while_it_plays(clip: Path) -> None:
    source = live(input_of([lambda: av.open(str(clip))]), live=False)
    source.open()
    for frame in source.frames():
        if frame.id == 4:
            closer = threading.Thread(target=source.close)
            closer.start()
            closer.join(5)
            assert not closer.is_alive()
    assert frame.id == 4
    assert not source._feed.thread.is_alive()
    with pytest.raises(RuntimeError, match="was read already"):
        next(source.frames())


def test_leaving_the_loop_ends_the_thread(clip: Path) -> None:
    source = live(input_of([lambda: av.open(str(clip))]), live=False)
    source.open()
    for _ in source.frames():
        break
    source._feed.thread.join(5)
    assert not source._feed.thread.is_alive()


def test_cameras_of_each_system() -> None:
    assert camera_input("0", "linux") == ("v4l2", "/dev/video0", {})
    assert camera_input("/dev/video3", "linux")[1] == "/dev/video3"
    assert camera_input("camera:/dev/v4l/by-id/usb-1", "linux")[1] == "/dev/v4l/by-id/usb-1"
    assert camera_input("1", "darwin")[:2] == ("avfoundation", "1:none")
    assert camera_input("camera:FaceTime HD", "darwin")[1] == "FaceTime HD:none"
    assert camera_input("camera:HD Webcam", "win32")[:2] == ("dshow", "video=HD Webcam")


def test_a_camera_plays_and_opens_its_device(clip: Path) -> None:
    asked = []

    def opener(device: str, **how: object) -> object:
        asked.append((device, how["format"]))
        return av.open(str(clip))

    stream_input = camera("camera:HD Webcam", opener=opener, platform="win32")  # type: ignore[arg-type]
    source = live(stream_input, seconds=0.2, live=False)
    source.open()
    assert [number_of(frame.image) for frame in source.frames()] == [0, 1, 2, 3, 4]
    assert asked == [("video=HD Webcam", "dshow")]


def test_a_camera_is_unplugged_and_back(clip: Path, tmp_path: Path) -> None:
    """Its device goes away while it plays, stays away for some tries, and returns."""
    device, clock = tmp_path / "video0", FakeClock(halt_at_s=30.0)
    device.touch()

    def opener(*_: object, **__: object) -> object:
        opened = av.open(str(clip))
        device.unlink()
        return opened

    stream_input = camera(f"camera:{device}", opener=opener, platform="linux")  # type: ignore[arg-type]
    told: list[str] = []
    tries = 0

    def wait(seconds: float) -> bool:
        nonlocal tries
        tries += 1
        if tries == 3:
            device.touch()
        return clock.wait(seconds)

    source = feed_of(stream_input, clock, None, wait=wait)
    source.on_status = lambda status: told.append(f"{status.state}: {status.reason}")
    source.open()
    frames = list(itertools.islice(ticking(source, clock), 15))
    source.close()
    assert [number_of(frame.image) for frame in frames] == [*range(10), *range(5)]
    assert [frame.id for frame in frames if frame.discontinuity] == [10]
    assert source.counts["reconnected"] == 1
    assert any(f"reconnecting: camera:{device}: there is no {device}" in each for each in told)
    assert told[-2] == "live: "


def test_a_missing_camera_is_an_error_at_once_unless_tries_have_no_limit(
    tmp_path: Path,
) -> None:
    stream_input = camera(f"camera:{tmp_path / 'video0'}", platform="linux")
    clock = FakeClock(halt_at_s=60.0)
    with pytest.raises(SourceNotFound):
        feed_of(stream_input, clock, None).open()
    assert clock.now_ns == 5_000_000_000
    with pytest.raises(SourceUnreachable, match="stopped"):
        feed_of(stream_input, clock, math.inf).open()
    assert clock.now_ns >= 65e9


def test_what_a_camera_says_when_it_cannot() -> None:
    if Path("/dev/video77").exists():
        pytest.skip("there is a camera 77")
    with pytest.raises(SourceNotFound, match=r"camera 77: there is no /dev/video77; cameras here"):
        open_source("77", SourceOptions(retry_s=0)).open()

    def raising(error: Exception) -> Callable[..., object]:
        def opener(*_: object, **__: object) -> object:
            raise error

        return opener

    cases = [
        (av.error.PermissionError(13, "Permission denied"), SourceRefused, "group video"),
        (av.error.OSError(16, "Device or resource busy"), SourceUnreachable, "in use by another"),
        (av.error.OSError(25, "Inappropriate ioctl"), SourceUnreachable, "inappropriate ioctl"),
    ]
    for error, kind, words in cases:
        stream_input = camera("camera:/dev/null", opener=raising(error), platform="linux")  # type: ignore[arg-type]
        with pytest.raises(kind, match=words):
            feed_of(stream_input, FakeClock(), 0.0).open()


def test_a_closed_port_fails_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable) as caught:
        open_source("rtsp://ann:s3cret@127.0.0.1:1/x?token=abc", SourceOptions(retry_s=0)).open()
    assert time.monotonic() - begun < 2
    assert str(caught.value) == (
        "rtsp://***@127.0.0.1:1/x?***: connection refused: check the address and that it is on"
    )


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.slow
def test_a_silent_server_is_given_up(silent_port: int) -> None:
    def waited_s(scheme: str) -> float:
        begun = time.monotonic()
        with pytest.raises(SourceUnreachable):
            open_source(f"{scheme}://127.0.0.1:{silent_port}/x", SourceOptions(retry_s=0)).open()
        return time.monotonic() - begun

    schemes = ("rtsp", "http", "tcp", "rtmp", "udp")
    with ThreadPoolExecutor(len(schemes)) as pool:
        waits_s = dict(zip(schemes, pool.map(waited_s, schemes)))
    assert all(4 < wait_s < 10 for wait_s in waits_s.values()), waits_s


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_download_plays_and_ends(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.ts", [numbered(number) for number in range(30)])
    (tmp_path / "page.html").write_text("<html>no film</html>")
    handler = functools.partial(QuietFiles, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            source = open_source(f"{base}/clip.ts?login=no")
            source.open()
            assert not source.live
            assert source.info.fps == 25.0
            assert [number_of(frame.image) for frame in source.frames()] == list(range(30))
            for path, words in (("nope.ts", "no such stream there"), ("page.html", "no video")):
                with pytest.raises(SourceUnreachable, match=words):
                    open_source(f"{base}/{path}", SourceOptions(retry_s=0)).open()
        finally:
            server.shutdown()
            serving.join(5)


class CutOff(http.server.BaseHTTPRequestHandler):
    """Sends half of ``data`` and hangs up, or, where ``whole``, all of it."""

    protocol_version = "HTTP/1.1"
    data, whole = b"", False

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        self.wfile.write(self.data if self.whole else self.data[: len(self.data) // 2])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("live", [None, True])
def test_a_download_that_is_cut_off_says_so_and_does_not_begin_anew(tmp_path, live) -> None:
    count = 200
    clip = write_clip(tmp_path / "clip.ts", [numbered(number % 256) for number in range(count)])
    answers = type("Answers", (CutOff,), {"data": clip.read_bytes()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/clip.ts"
        clock = FakeClock()
        paced = {"clock_ns": clock, "wait": clock.wait} if live else {}
        try:
            source = open_source(address, SourceOptions(live=live), **paced)
            source.open()
            # A reader that is not ready for the first frame misses nothing of it.
            time.sleep(0.3)
            seen: list[int] = []
            with pytest.raises(SourceLost, match="cut off after"):
                seen.extend(number_of(frame.image) for frame in source.frames())
            assert count / 3 < len(seen) < count * 2 / 3
            assert seen == list(range(len(seen)))
            answers.whole = True
            source = open_source(address, SourceOptions(live=live), **paced)
            source.open()
            time.sleep(0.3)
            seen = [number_of(frame.image) for frame in source.frames()]
            assert seen == list(range(count))
            assert source.status.state is State.ENDED
        finally:
            server.shutdown()
            serving.join(5)


def test_negative_times_are_refused() -> None:
    for wrong in ({"start_s": -1.0}, {"seconds": 0.0}, {"seconds": -2.0}, {"retry_s": -1.0}):
        with pytest.raises(ValueError, match="0 or more"):
            SourceOptions(**wrong)  # type: ignore[arg-type]


def test_every_error_is_a_source_error() -> None:
    for kind in (SourceLost, SourceNotFound, SourceRefused, SourceUnreachable):
        assert issubclass(kind, SourceError)


def test_a_playlist_and_a_camera_over_http_are_played(tmp_path: Path) -> None:
    """What is refused of hostile servers (tests/app/serve/test_attacks.py) stands in no
    honest one's way: segments beside their playlist, MJPEG in parts."""
    segment = write_clip(tmp_path / "part.ts", [numbered(number) for number in range(30)])
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\npart.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "live.m3u8").write_text(playlist)
    jpeg = cv2.imencode(".jpg", numbered(5))[1].tobytes()
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if self.path == "/camera":
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            files = {"/live.m3u8": playlist.encode(), "/part.ts": segment.read_bytes()}
            self.wfile.write(files.get(self.path, (part + jpeg + b"\r\n") * 20))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for path in ("live.m3u8", "camera"):
            address = f"http://127.0.0.1:{server.server_port}/{path}"
            source = open_source(address, SourceOptions(retry_s=0.0, seconds=0.2))
            source.open()
            assert source.info.width == 160
            source.close()
    finally:
        server.shutdown()
        server.server_close()
