"""Days in minutes: thousands of frames of three sources that fail at random, and what is left of
it."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from app.cli.system import keep_memory_together
from app.serve.channel import Channel
from pipeline.capture.base import SourceOptions, StopSignal
from pipeline.capture.devices import StreamInput, network
from pipeline.capture.feed import Feed
from pipeline.capture.live import LiveSource
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.make import make_estimator
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream
from tests.support.clips import numbered, write_clip
from tests.support.fakes import StubBatchEstimator
from tests.support.paths import SAMPLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(280),
    pytest.mark.skipif(
        not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="asks glibc 2.33's malloc"
    ),
]


def faulty(clips: list[Path], seed: int) -> StreamInput:
    """A way in that is refused now and then, and behind which lies one clip or another, of another
    size or damaged, which ends early."""
    chance = random.Random(seed)

    def enter() -> object:
        if chance.random() < 0.2:
            raise av.error.ConnectionRefusedError(111, "Connection refused", "rtsp://x")
        return av.open(str(chance.choice(clips)))

    return replace(network("rtsp://127.0.0.1/x", "tcp"), open=enter)


def hurried(stream_input: StreamInput) -> LiveSource:
    """Tried for ever, with pauses of a fiftieth."""
    stop_signal = StopSignal()
    feed = Feed(
        stream_input, None, stop_signal=stop_signal, clock_ns=time.monotonic_ns,
        wait=lambda seconds: stop_signal.wait(seconds / 50),
    )  # fmt: skip
    return LiveSource(feed, SourceOptions(live=False), stop_signal)


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2 (malloc.h)."""

    _fields_ = [
        *((f"other{n}", ctypes.c_size_t) for n in range(4)),
        ("hblkhd", ctypes.c_size_t),
        *((f"more{n}", ctypes.c_size_t) for n in range(2)),
        ("uordblks", ctypes.c_size_t),
        *((f"last{n}", ctypes.c_size_t) for n in range(2)),
    ]


def memory_mb() -> float:
    """What is allocated and not freed. (The process's size also holds what the allocator keeps for
    later, which goes up and down by more than a leak would show.)"""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Mallinfo
    told = ask()
    return (told.uordblks + told.hblkhd) / 2**20


def size_mb() -> float:
    """The process's memory, without what the allocator keeps free: that depends on which threads
    freed what and when, and settles at another size each time."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def handles() -> set[str]:
    """What this process holds open, but for what comes and goes by itself."""
    found = set()
    for each in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{each} {os.readlink(f'/proc/self/fd/{each}')}")
        except OSError:
            continue  # the listing's own
    return found


class Soak:
    """Three faulty sources through a model until ``frames`` frames were drawn; memory is read
    every ``every`` frames."""

    def __init__(
        self, estimator: KeypointEstimator, clips: list[Path], frames: int, every: int
    ) -> None:
        self._frames, self._every = frames, every
        self._lock = threading.Lock()
        self.drawn = 0
        self.marks: list[tuple[int, float]] = []
        with StreamScheduler(estimator) as scheduler:
            self.streams = [
                scheduler.add(f"s{n}", hurried(faulty(clips, n))) for n in range(3)
            ]  # fmt: skip
            readers = [
                threading.Thread(target=self._drain, args=(stream,)) for stream in self.streams
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(260)
                assert not reader.is_alive()
        for stream in self.streams:
            stream.settle()

    def _drain(self, stream: VideoStream) -> None:
        for fitted in stream.windows():
            for frame, _ in fitted:
                stream.stats.drew(frame.captured_ns)
            with self._lock:
                self.drawn += len(fitted)
                if self.drawn >= self._every * (len(self.marks) + 1):
                    self.marks.append((self.drawn, memory_mb()))
                if self.drawn >= self._frames:
                    for other in self.streams:
                        other.stop()


def slope(marks: list[tuple[int, float]]) -> float:
    """Megabytes a thousand frames."""
    return float(np.polyfit(*np.array(marks).T, 1)[0]) * 1000


def assert_accounts(soak: Soak) -> None:
    for stream in soak.streams:
        seen = stream.stats.snapshot()
        assert seen.read == seen.drawn + sum(seen.dropped.values())
        assert stream.error is None


def assert_nothing_runs(threads: set, files: set[str]) -> None:
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - threads and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - threads
    assert not handles() - files


def damaged_copy(clip: Path) -> Path:
    whole = bytearray(clip.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 2000] = bytes(2000)
    path = clip.with_stem("damaged")
    path.write_bytes(whole)
    return path


def test_nothing_is_left_of_twenty_thousand_frames(tmp_path):
    noise = np.random.default_rng(0)
    clips = [
        write_clip(tmp_path / "a.ts", [numbered(number) for number in range(60)]),
        write_clip(tmp_path / "b.ts", [noise.integers(0, 255, (96, 128, 3), np.uint8)] * 40),
    ]
    clips.append(damaged_copy(clips[0]))
    estimator = StubBatchEstimator()
    estimator.windows = estimator.batches = _Forgetful()
    threads, files = set(threading.enumerate()), handles()
    soak = Soak(estimator, clips, 20_000, 1000)
    assert soak.drawn >= 20_000
    assert_accounts(soak)
    assert_nothing_runs(threads, files)
    assert slope(soak.marks[5:]) < 1.0, soak.marks
    for stream in soak.streams:
        assert stream.source.counts["reconnected"] > 20


@pytest.mark.weights
def test_nothing_is_left_of_two_thousand_frames_of_people(tmp_path):
    """The real model, bodies and all."""
    with av.open(str(SAMPLE)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    small = [cv2.resize(image, (480, 270)) for image in images]
    clips = [
        write_clip(tmp_path / "a.ts", [image[:268] for image in small[:60]]),
        write_clip(tmp_path / "b.ts", [image[10:250, 100:420] for image in small[40:100]]),
    ]
    clips.append(damaged_copy(clips[0]))
    estimator = make_estimator(device="cpu", people=1)
    keep_memory_together()
    marks, drawn = [], 0
    for number in range(12):
        if number == 2:  # by then all that is made once is made
            threads, files, size, drawn = set(threading.enumerate()), handles(), size_mb(), 0
        soak = Soak(estimator, clips, 200, 200)
        assert_accounts(soak)
        drawn += soak.drawn
        del soak
        # Looked at between rounds, with nothing on its way.
        marks.append((200 * number, memory_mb()))
    estimator.close()
    assert drawn >= 2000
    assert_nothing_runs(threads, files)
    assert slope(marks[2:]) < 1.0, marks
    assert size_mb() < size + 64


def test_a_channel_keeps_ten_minutes_and_no_more():
    channel = Channel(lambda: "", lambda: Path("a.mp4"))
    for number in range(40_000):
        channel.add_line(number, "{}")
    assert len(channel.bodies(-1)) == 18_000


class _Forgetful(list):
    """For a stub that writes down what it is asked: it is asked a lot."""

    def append(self, _: object) -> None: ...
