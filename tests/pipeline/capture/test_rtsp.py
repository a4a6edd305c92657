"""A real RTSP server on the loopback: it plays, asks for logins, dies and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import SourceLost, SourceRefused, SourceUnreachable
from pipeline.capture.open import open_source
from tests.support.rtsp import RtspServer, clock_ms

pytestmark = pytest.mark.slow


def test_it_plays_without_building_up_delay(rtsp_server: Callable[..., RtspServer]) -> None:
    server = rtsp_server(0, "--fps", "25")
    source = open_source(server.url(), SourceOptions(retry_s=5.0, seconds=3.0))
    source.open()
    assert (source.info.width, source.info.height, source.info.codec) == (320, 240, "h264")
    assert source.live
    frames = list(source.frames())
    source.close()
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert 70 <= len(frames) <= 76
    assert not any(frame.discontinuity for frame in frames)
    drawn_s = np.array([clock_ms(frame.image) / 1e3 for frame in frames])
    pts_s = np.array([frame.pts_s for frame in frames])
    assert np.abs((drawn_s - drawn_s[0]) - pts_s).max() < 0.05
    delays_s = np.array([frame.captured_ns / 1e9 for frame in frames]) - drawn_s
    # FFmpeg's parser hands a picture on when the next one begins: one period, 40 ms, at least.
    assert np.median(delays_s[25:]) < 0.12


def test_a_server_that_dies_and_returns_is_found_again(
    rtsp_server: Callable[..., RtspServer],
) -> None:
    server = rtsp_server()
    source = open_source(server.url(), SourceOptions(retry_s=20.0))
    source.open()
    frames = []
    again = None
    for frame in source.frames():
        frames.append(frame)
        if len(frames) == 20:
            server.kill()
            again = rtsp_server(server.port)
        breaks = [frame.id for frame in frames if frame.discontinuity]
        if breaks and len(frames) >= breaks[0] + 10:
            break
    source.close()
    assert again is not None
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert len(breaks) == 1
    assert breaks[0] >= 20
    assert all(a.pts_s < b.pts_s for a, b in zip(frames, frames[1:]))
    gap_s = frames[breaks[0]].pts_s - frames[breaks[0] - 1].pts_s
    taken_s = (frames[breaks[0]].captured_ns - frames[breaks[0] - 1].captured_ns) / 1e9
    assert gap_s == pytest.approx(taken_s, abs=0.1)
    assert "back after" in source.warnings[0]


@pytest.mark.parametrize("retry_s", [0.0, 1.0])
def test_a_server_that_dies_for_good_is_an_error(
    rtsp_server: Callable[..., RtspServer], retry_s: float
) -> None:
    server = rtsp_server()
    source = open_source(server.url(), SourceOptions(retry_s=retry_s))
    source.open()
    playing = source.frames()
    assert [next(playing).id for _ in range(10)] == list(range(10))
    server.kill()
    killed = time.monotonic()
    with pytest.raises(SourceLost, match="lost"):
        list(playing)
    assert retry_s - 0.1 <= time.monotonic() - killed < retry_s + 3


def test_a_server_may_come_late(rtsp_server: Callable[..., RtspServer]) -> None:
    taken = rtsp_server()
    taken.kill()
    source = open_source(taken.url(), SourceOptions(retry_s=15.0))
    waiting = time.monotonic()
    with pytest.raises(SourceUnreachable):
        open_source(taken.url(), SourceOptions(retry_s=0.5)).open()
    assert 0.4 < time.monotonic() - waiting < 2
    rtsp_server(taken.port)
    source.open()
    assert next(source.frames()).size == (240, 320)


def test_logins(rtsp_server: Callable[..., RtspServer]) -> None:
    server = rtsp_server(0, "--login", "ann:s3cret")
    for login, words in (("", "wants a login"), ("ann:wrong@", "login is refused")):
        with pytest.raises(SourceRefused, match=words) as caught:
            open_source(server.url(login=login)).open()
        assert "wrong" not in str(caught.value)
    source = open_source(server.url(login="ann:s3cret@"))
    source.open()
    assert "s3cret" not in source.name + repr(source.info) + next(source.frames()).source
    source.close()


def test_a_path_that_is_not_there(rtsp_server: Callable[..., RtspServer]) -> None:
    with pytest.raises(SourceUnreachable, match="no such stream there: check the path"):
        open_source(rtsp_server().url("nope"), SourceOptions(retry_s=0)).open()


def test_media_over_udp(rtsp_server: Callable[..., RtspServer]) -> None:
    options = SourceOptions(rtsp_transport="udp", seconds=0.5)
    source = open_source(rtsp_server().url(), options)
    source.open()
    assert len(list(source.frames())) >= 10
