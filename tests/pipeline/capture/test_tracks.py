"""Clips with several video tracks: one is chosen, said, and another can be chosen."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from pipeline.capture.base import SourceOptions
from pipeline.capture.decode import video_stream, video_tracks
from pipeline.capture.errors import SourceNotVideo
from pipeline.capture.open import open_source
from tests.support.clips import number_of, numbered, write_clip

SIZES = [(160, 96), (320, 192), (240, 128)]
COUNT = 20


@pytest.fixture(scope="module", params=["mp4", "mkv", "ts"])
def clip(request, tmp_path_factory) -> Path:
    """A clip of three tracks; track n shows the numbers from 100 n, in its own size."""
    path = tmp_path_factory.mktemp("tracks") / f"three.{request.param}"
    with av.open(str(path), "w") as container:
        streams = []
        for size in SIZES:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.width, stream.height = size
            stream.codec_context.gop_size = 5
            streams.append(stream)
        for number in range(COUNT):
            for track, (stream, size) in enumerate(zip(streams, SIZES), 1):
                frame = av.VideoFrame.from_ndarray(numbered(100 * track + number, *size))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def read(path: Path | str, **options: object) -> tuple[list[int], list[str]]:
    source = open_source(str(path), SourceOptions(**options))
    source.open()
    return [number_of(frame.image) for frame in source.frames()], source.warnings


@pytest.mark.parametrize("track", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 7])
def test_the_chosen_track_is_read_and_no_remark_made(clip, track, first):
    numbers, remarks = read(clip, track=track, start_s=first / 25)
    assert numbers == [100 * track + number for number in range(first, COUNT)]
    assert remarks == []


def test_without_a_choice_one_line_says_which_is_read(clip):
    numbers, (remark,) = read(clip)
    track = numbers[0] // 100
    assert numbers == [100 * track + number for number in range(COUNT)]
    assert f"track {track} is read" in remark
    assert "--track" in remark
    assert all(f"{n} (h264, {w}x{h})" in remark for n, (w, h) in enumerate(SIZES, 1))
    assert "\n" not in remark


def test_a_number_too_high_lists_the_tracks(clip):
    with pytest.raises(SourceNotVideo, match=r"no video track 4; it has 1 \(h264, 160x96\), 2"):
        read(clip, track=4)


@pytest.mark.parametrize("track", [0, -1])
def test_tracks_are_numbered_from_one(track):
    with pytest.raises(ValueError, match="from 1"):
        SourceOptions(track=track)


def test_one_track_needs_no_remark(tmp_path):
    path = write_clip(tmp_path / "one.mp4", [numbered(i) for i in range(3)], audio=True)
    assert read(path) == ([0, 1, 2], [])
    assert read(path, track=1) == ([0, 1, 2], [])


def test_a_cover_picture_is_no_track(tmp_path):
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 640, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 160, 96
        frame = av.VideoFrame.from_ndarray(np.full((640, 640, 3), 200, np.uint8))
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        container.mux(cover.encode(frame))
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(numbered(number))
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
        assert [track.width for track in video_tracks(container)] == [160]
        assert video_stream(container, "cover").width == 160
    assert read(path) == ([0, 1, 2, 3, 4], [])


@pytest.fixture(scope="module")
def address(clip) -> Iterator[str]:
    """The clip's address on a server of this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(clip.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{clip.name}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("track", [1, 2, 3])
def test_a_track_of_a_clip_behind_a_server_is_chosen_too(address, track):
    numbers, _ = read(address, track=track)
    assert numbers == [100 * track + number for number in range(COUNT)]
