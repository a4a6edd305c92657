"""Sources of the benchmark that are decoded while they play."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest

from app.bench.decoded import DecodedPlayer, write_loop
from pipeline.capture.decoder_pool import DECODERS, SUPPORTED
from pipeline.capture.picture import empty_image
from tests.support.clips import numbered, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [numbered(k) for k in range(24)])


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


def test_a_loop_is_the_clip_again_and_again_at_its_own_rate(clip, tmp_path):
    once = pictures(clip)
    write_loop(clip, tmp_path / "loop.ts", 3.0)
    looped = pictures(tmp_path / "loop.ts")
    assert len(looped) % len(once) == 0
    for k, picture in enumerate(looped):
        np.testing.assert_array_equal(picture, once[k % len(once)])
    with av.open(str(tmp_path / "loop.ts")) as container:
        times = [frame.time for frame in container.decode(video=0)]
        steps = np.diff(times)
    assert times[-1] - times[0] >= 3.0 - steps[0]
    assert np.ptp(steps) < 0.002, "also from the end to the beginning"


@pytest.mark.skipif(not SUPPORTED, reason="decoder processes need Linux")
def test_each_source_has_a_decoder_and_gives_its_windows_in_order(clip):
    player = DecodedPlayer(clip, empty_image, seconds=2.0)
    for index in range(3):
        for source in (0, 1):
            window = player.window(source, index)
            assert [frame.id for frame in window.frames] == [4 * index + k for k in range(4)]
    assert len(DECODERS.in_use) >= 2
    with pytest.raises(RuntimeError, match="clip is over"):
        [player.window(0, index) for index in range(3, 100)]
    player.close()
    assert not DECODERS.in_use


def test_a_decoder_that_ends_leaves_no_words(clip, capfd):
    """It closes its connection in the middle of the clip."""
    player = DecodedPlayer(clip, empty_image, seconds=1.0)
    # More than a socket holds, so that the server is still writing.
    os.truncate(Path(player._folder.name) / "loop.ts", 1 << 27)
    address = urlsplit(player._address)
    with socket.create_connection((address.hostname, address.port)) as reader:
        reader.sendall(f"GET {address.path} HTTP/1.0\r\n\r\n".encode())
        assert reader.recv(8) == b"HTTP/1.0"
    server = player._server
    player.close()
    # Its threads write to no one any more.
    deadline = time.monotonic() + 20
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.socket.fileno() == -1
    assert capfd.readouterr().err == ""
