"""Sources decoded in processes of their own: the same pictures, limits, and nothing left."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.base import SourceOptions
from pipeline.capture.decoder_pool import DECODERS, SUPPORTED, DecoderPool, DecoderProcess
from pipeline.capture.devices import network
from pipeline.capture.errors import (
    SourceCrashed,
    SourceError,
    SourceNotThere,
    SourceNotVideo,
    SourceTooLarge,
)
from pipeline.capture.open import open_source
from pipeline.capture.picture import Converter, RgbConverter
from pipeline.capture.reader import Reader, ThreadReader
from pipeline.core.ring import Closed, Policy
from tests.support.clips import number_of, numbered, write_clip
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="needs Linux's memfd")
if SUPPORTED:
    from pipeline.capture.process_reader import ProcessReader
    from pipeline.capture.shared_reader import SlotReader
    from pipeline.capture.shared_writer import SLOTS, SlotWriter, plain

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def serving(answers: dict[str, Answer]) -> Iterator[str]:
    """An HTTP server that answers each path by its function; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            if answer is None:
                self.send_error(404)
                return
            with suppress(BrokenPipeError, ConnectionResetError):
                answer(self)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def sending(content: bytes, kind: str = "video/mp2t") -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def jpegs(pictures: list[bytes], pause_s: float = 0.0) -> Answer:
    """A camera that sends JPEG after JPEG, as MJPEG cameras do."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        request.end_headers()
        for jpeg in pictures:
            head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
            request.wfile.write(head + jpeg + b"\r\n")
            time.sleep(pause_s)

    return answer


def drip(request: http.server.BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, so that no timeout of a read ever passes."""
    request.send_response(200)
    request.send_header("Content-Type", "video/mp2t")
    request.end_headers()
    while True:
        request.wfile.write(b"\x47")
        time.sleep(0.5)


def read(address: str, **limits: int) -> tuple[Reader, list[np.ndarray]]:
    """All pictures of an address through a process; the reader and the RGB images."""
    reader = ProcessReader(network(address, "tcp"), time.monotonic_ns, Policy.WAIT, **limits)
    images = list(rgb_of(reader))
    reader.thread.join(5)
    assert not reader.thread.is_alive()
    return reader, images


def rgb_of(reader: Reader) -> Iterator[np.ndarray]:
    convert = RgbConverter()
    while True:
        try:
            picture = reader.pictures.get(20)
        except Closed:
            return
        yield convert(picture.image, picture.aspect, picture.matrix)


def jpeg_of(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


FORMATS = st.sampled_from(
    ["yuv420p", "yuvj420p", "nv12", "yuv422p", "yuvj422p", "yuv444p", "yuv420p10le", "p010le",
     "gray", "gray10le", "rgb24", "bgr0", "gbrp", "yuyv422", "monow"]
)  # fmt: skip


@given(form=FORMATS, width=st.integers(2, 99), height=st.integers(2, 70), seed=st.integers(0, 99))
def test_a_picture_comes_through_shared_memory_as_it_was(form, width, height, seed) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = plain(av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=form))
    image.pts, image.colorspace, image.color_range = 77, 1, 2
    writer, freed = SlotWriter(), []
    assert writer.fit(image)
    reader = SlotReader(os.dup(writer.memory), writer.size, 10**6, freed.append)
    got = reader.image(writer.write(image, 1))
    writer.close()
    assert (got.format.name, got.width, got.height) == (image.format.name, width, height)
    assert (got.pts, got.colorspace, got.color_range) == (77, 1, 2)
    for convert in (RgbConverter(), Converter(planes=True)):
        one, other = convert(got), convert(image)
        assert type(one) is type(other)
        assert np.array_equal(one.data, other.data)
    del got
    assert freed == [1]


def test_a_palette_is_passed_on_as_rgb() -> None:
    numbers = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    colours = np.random.default_rng(1).integers(0, 256, (256, 4), np.uint8)
    image = av.VideoFrame.from_ndarray((numbers, colours), "pal8")
    assert plain(image).format.name == "rgb24"
    assert np.array_equal(plain(image).to_ndarray(), colours[numbers][..., 1:])


@pytest.mark.parametrize("size", [(136, 1024), (64, 64), (854, 480), (1366, 768)])
def test_behind_a_picture_is_room_to_read(size: tuple[int, int]) -> None:
    """swscale reads behind the last line; 136x1024 fills whole pages."""
    image, writer = av.VideoFrame(*size, "yuv420p"), SlotWriter()
    writer.fit(image)
    assert writer.size >= sum(plane.buffer_size for plane in image.planes) + 64
    writer.close()


def test_pictures_that_fill_whole_pages_are_read(tmp_path: Path) -> None:
    frame = b"FRAME\n" + b"\x60" * (136 * 1024 * 3 // 2)
    raw = b"YUV4MPEG2 W136 H1024 F25:1 Ip A1:1 C420\n" + frame * 12
    with serving({"/raw": sending(raw, "application/octet-stream")}) as address:
        reader, images = read(f"{address}/raw")
    assert reader.error is None
    assert [image.shape for image in images] == [(1024, 136, 3)] * 12


def test_slots_take_no_more_than_the_process_may() -> None:
    writer = SlotWriter(1 << 20)
    assert writer.fit(av.VideoFrame(320, 240, "yuv420p"))
    with pytest.raises(MemoryError):
        writer.fit(av.VideoFrame(640, 480, "yuv420p"))
    writer.close()


def test_what_a_process_sends_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes instead of messages ends the connection by an error of the source."""
    for nonsense in (b"{", b"[]", b'{"end": ["SystemExit", "x"], "damaged": 0}', b'{"slots": 1}',
                     b'{"facts": {}}', b'{"slot": 0}', b'{"end": null, "damaged": 0}'):  # fmt: skip

        class Lying(DecoderPool):
            def take(self) -> DecoderProcess:
                decoder = super().take()
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                theirs.send(nonsense)  # noqa: B023
                decoder.socket.close()
                decoder.socket = ours
                self.theirs = theirs
                return decoder

        reader = ProcessReader(network("tcp://127.0.0.1:1", "tcp"), time.monotonic_ns, pool=Lying())
        assert reader.ready.wait(5)
        reader.thread.join(5)
        assert isinstance(reader.error, SourceError), nonsense


def test_a_default_timeout_of_the_program_does_not_count(tmp_path: Path) -> None:
    camera = jpegs([jpeg_of(numbered(3))] * 6, pause_s=0.3)
    before = socket.getdefaulttimeout()
    with serving({"/camera": camera}) as address:
        socket.setdefaulttimeout(0.1)
        try:
            reader = ProcessReader(network(f"{address}/camera", "tcp"), time.monotonic_ns)
        finally:
            socket.setdefaulttimeout(before)
        assert len(list(rgb_of(reader))) >= 5
        reader.thread.join(5)


def test_slots_are_new_only_for_larger_pictures() -> None:
    writer = SlotWriter()
    sizes = [(64, 48), (32, 48), (64, 48), (640, 480), (64, 48)]
    assert [writer.fit(av.VideoFrame(*size, "yuv420p")) for size in sizes] == [
        True, False, False, True, False,
    ]  # fmt: skip
    writer.close()


def test_memory_that_could_be_cut_under_the_reader_is_refused() -> None:
    for size, cut in ((4096, 0), (4096, 100)):
        memory = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, SLOTS * size - cut)
        with pytest.raises(ValueError, match="no slots"):
            SlotReader(memory, size, 10**6, lambda _: None)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(memory)


@pytest.mark.parametrize(
    "wrong",
    [{"slot": SLOTS}, {"slot": -1}, {"planes": [10**9, 1, 1]}, {"lines": [0, 32, 32]},
     {"size": (16_000, 62)}, {"size": (0, 48)}, {"size": (-64, 48)}, {"size": (64, 10**6)},
     {"lines": [64]}, {"planes": [3072, 768]}, {"lines": [64, 32, 32], "size": (64, 96)}],
)  # fmt: skip
def test_headers_that_point_elsewhere_are_refused(wrong: dict[str, object]) -> None:
    image, writer = av.VideoFrame(64, 48, "yuv420p"), SlotWriter()
    writer.fit(image)
    reader = SlotReader(os.dup(writer.memory), writer.size, 10**6, lambda _: None)
    with pytest.raises(ValueError, match="no such slot|too few lines|not the planes"):
        reader.image(writer.write(image, 0) | wrong)
    writer.close()


def test_a_process_gives_the_same_pictures_as_a_thread(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", [numbered(number) for number in range(40)])
    with serving({"/clip.ts": sending(clip.read_bytes())}) as address:
        stream_input = network(f"{address}/clip.ts", "tcp")
        thread = ThreadReader(stream_input, time.monotonic_ns)
        expected = list(rgb_of(thread))
        reader, images = read(f"{address}/clip.ts")
    assert [number_of(image) for image in images] == list(range(40))
    assert all(np.array_equal(one, other) for one, other in zip(images, expected))
    assert reader.facts == thread.facts
    assert reader.error is None


def test_the_size_may_change_while_it_plays() -> None:
    sizes = [(48, 64), (480, 640), (48, 64), (1080, 1920), (96, 128)] * 3
    pictures = [jpeg_of(np.full((*size, 3), 90, np.uint8)) for size in sizes]
    with serving({"/camera": jpegs(pictures)}) as address:
        reader, images = read(f"{address}/camera")
    # A JPEG decoder of FFmpeg holds none back, but the multipart's last part has no end mark.
    assert [image.shape[:2] for image in images] == sizes[: len(images)]
    assert len(images) >= len(sizes) - 1


def test_pictures_are_stamped_when_they_were_decoded() -> None:
    picture = jpeg_of(numbered(3))
    with serving({"/camera": jpegs([picture] * 40, pause_s=0.02)}) as address:
        reader = ProcessReader(network(f"{address}/camera", "tcp"), time.monotonic_ns)
        reader.ready.wait(10)
        reader.pictures.get(5)
        got = reader.pictures.get(5)
        late_ns = time.monotonic_ns() - got.captured_ns
        reader.close()
        reader.thread.join(5)
    assert 0 <= late_ns < 0.2e9
    assert got.aspect in (None, Fraction(1), Fraction(0))


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/none.ts", SourceNotThere, "no such stream there"),
        ("/audio.ts", SourceNotVideo, "has no video in it, only audio"),
        ("/empty.ts", SourceError, ""),
        ("/page", SourceError, "no video stream"),
    ],
)
def test_errors_come_through_with_their_words(tmp_path, path, kind, words) -> None:
    audio = tmp_path / "audio.ts"
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("mp2", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), "s16", "mono")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    answers = {
        "/audio.ts": sending(audio.read_bytes()),
        "/empty.ts": sending(b""),
        "/page": sending(b"<html>a login</html>" * 50, "text/html"),
    }
    with serving(answers) as address:
        reader, images = read(f"{address}{path}")
    assert images == []
    assert isinstance(reader.error, kind)
    assert words in str(reader.error)


def test_a_picture_above_the_limit_is_one_clear_reason() -> None:
    picture = jpeg_of(np.zeros((300, 500, 3), np.uint8))
    with serving({"/camera": jpegs([picture] * 3)}) as address:
        reader, images = read(f"{address}/camera", max_pixels=149_999)
        _, whole = read(f"{address}/camera", max_pixels=150_000)
    assert images == []
    assert isinstance(reader.error, SourceTooLarge)
    assert "its pictures of 500x300 have more pixels than max_pixels (149999)" in str(reader.error)
    assert len(whole) >= 2


def test_a_picture_that_takes_too_much_memory_does_not_take_it() -> None:
    """A JPEG of a few hundred kB that decodes to 300 MB, and a process that may have 150 MB."""
    picture = jpeg_of(np.zeros((10_000, 10_000, 3), np.uint8))
    with serving({"/camera": jpegs([picture] * 2)}) as address:
        reader = ProcessReader(
            network(f"{address}/camera", "tcp"), time.monotonic_ns, max_pixels=1 << 30,
            memory_mb=150,
        )  # fmt: skip
        most = 0
        while not reader.ready.wait(0.01):
            most = max(most, reader.memory_bytes())
        reader.thread.join(5)
    assert isinstance(reader.error, SourceError)
    assert most < 250 << 20


def test_a_server_that_drips_is_left_at_once_and_nothing_stays() -> None:
    with serving({"/drip.ts": drip}) as address:
        pool = DecoderPool()
        reader = ProcessReader(network(f"{address}/drip.ts", "tcp"), time.monotonic_ns, pool=pool)
        until(lambda: reader.memory_bytes() > 0)
        time.sleep(1.0)  # FFmpeg is inside its opening now
        assert not reader.ready.is_set()
        begun = time.monotonic()
        reader.close()
        reader.thread.join(5)
        assert time.monotonic() - begun < 2.0
        assert len(pool) == 0
        assert reader.memory_bytes() == 0


def test_a_killed_decoder_is_a_loss_that_is_repaired() -> None:
    picture = jpeg_of(numbered(3))
    with serving({"/camera": jpegs([picture] * 2000, pause_s=0.02)}) as address:
        source = open_source(f"{address}/camera")
        source.open()
        frames = source.frames()
        ids = [next(frames).id for _ in range(5)]
        for decoder in list(DECODERS.in_use):
            os.kill(decoder.pid, signal.SIGKILL)
        after = [next(frames) for _ in range(10)]
        ids += [frame.id for frame in after]
        assert ids == list(range(15))
        assert sum(frame.discontinuity for frame in after) == 1
        assert source.counts["crashed"] == source.counts["reconnected"] == 1
        assert "its decoder process ended unexpectedly (SIGKILL)), back after" in source.warnings[0]
        frames.close()
        source.close()
    until(lambda: not DECODERS.in_use)


def test_a_decoder_that_cannot_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    what = network("tcp://127.0.0.1:1", "tcp"), time.monotonic_ns
    monkeypatch.setattr(sys, "executable", "/bin/false")
    reader = ProcessReader(*what, pool=DecoderPool())
    assert reader.ready.wait(5)
    assert isinstance(reader.error, SourceCrashed)
    assert "(exit status 1)" in str(reader.error)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    reader = ProcessReader(*what, pool=DecoderPool())
    assert reader.ready.wait(5)
    assert "no process can be started for it: no such file" in str(reader.error)


def test_the_spare_process_serves_the_next_source_and_goes_with_the_last(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", [numbered(number) for number in range(5)])
    pool = DecoderPool()
    with serving({"/clip.ts": sending(clip.read_bytes())}) as address:
        stream_input = network(f"{address}/clip.ts", "tcp")
        first = ProcessReader(stream_input, time.monotonic_ns, pool=pool)
        assert first.ready.wait(10)
        until(lambda: pool.spare is not None)
        spare = pool.spare
        second = ProcessReader(stream_input, time.monotonic_ns, pool=pool)
        assert second.ready.wait(10)
        assert spare in pool.in_use
        for reader in (first, second):
            reader.close()
            reader.thread.join(5)
    until(lambda: pool.spare is None, 5)
    assert not pool.in_use


@pytest.mark.parametrize("path", ["/drip.ts", "/camera"])
def test_decoders_end_with_a_parent_that_is_killed(tmp_path: Path, path: str) -> None:
    """Also while FFmpeg hangs in the opening."""
    picture = jpeg_of(numbered(3))
    program = textwrap.dedent(
        """
        import sys, threading, time
        from pipeline.capture.decoder_pool import DECODERS
        from pipeline.capture.open import open_source
        source = open_source(sys.argv[1])
        threading.Thread(target=source.open, daemon=True).start()
        while not DECODERS.in_use: time.sleep(0.01)
        time.sleep(1.0)
        print(*[each.pid for each in DECODERS.in_use], flush=True)
        time.sleep(60)
        """
    )
    answers = {"/drip.ts": drip, "/camera": jpegs([picture] * 2000, pause_s=0.02)}
    with serving(answers) as address:
        parent = subprocess.Popen(
            [sys.executable, "-c", program, f"{address}{path}"], stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids
        parent.kill()
        parent.wait(5)
        parent.stdout.close()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5)


def test_a_source_without_video_is_tried_until_it_has_some(tmp_path: Path) -> None:
    """As `serve` promises: an empty playlist, audio alone or a page may be a camera that starts."""
    begun = time.monotonic()
    camera = jpegs([jpeg_of(numbered(3))] * 500, pause_s=0.02)
    page = sending(b"<html>starting</html>" * 50, "text/html")
    empty = sending(
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:1\n",
        "application/vnd.apple.mpegurl",
    )

    def at_first(bad: Answer) -> Answer:
        return lambda request: (bad if time.monotonic() - begun < 1.5 else camera)(request)

    answers = {"/page": at_first(page), "/list": at_first(empty), "/none": at_first(sending(b""))}
    with serving(answers) as address:
        for path in answers:
            begun = time.monotonic()
            source = open_source(f"{address}{path}", SourceOptions(retry_s=float("inf")))
            source.open()
            assert next(source.frames()).image.shape[2] == 3
            assert sum(source.counts.values()) >= 1
            source.close()


def test_what_is_lost_for_any_reason_is_tried_again_in_a_run() -> None:
    """Live once, then only a page: it is tried again, without a limit, until it is stopped."""
    picture, hits = jpeg_of(numbered(3)), []
    answers = [jpegs([picture] * 5), sending(b"<html>" * 99), jpegs([picture] * 5)]

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        hits.append(request.path)
        answers[min(len(hits), 3) - 1](request)

    with serving({"/camera": answer}) as address:
        source = open_source(f"{address}/camera")
        source.open()
        frames = source.frames()
        images = [next(frames) for _ in range(7)]
        frames.close()
    assert [frame.id for frame in images] == list(range(7))
    # Once more, if the third answer had ended before the source was closed.
    assert len(hits) in (3, 4)
