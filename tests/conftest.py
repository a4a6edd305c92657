"""What several tests share: the local clips, small clips made here, an RTSP server."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2  # noqa: F401  before av
import numpy as np
import pytest
import torch

# Triton's kernels run in its interpreter where there is no GPU; it is asked when they are defined.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

BITS = 10
"""A numbered picture shows its number in so many vertical bars."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a GPU or of TensorRT are skipped without, and fail where the environment promises
    them: ``BODYSTREAM_GPU=1``, ``BODYSTREAM_TENSORRT=1``."""
    here = {
        "gpu": torch.cuda.is_available(),
        "tensorrt": importlib.util.find_spec("torch_tensorrt") is not None,
    }
    for item in items:
        for marker, there in here.items():
            promised = os.environ.get(f"BODYSTREAM_{marker.upper()}") == "1"
            if item.get_closest_marker(marker) and not there and not promised:
                item.add_marker(pytest.mark.skip(reason=f"no {marker} here"))


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "clips"
    if not folder.is_dir():
        pytest.skip("the real clips (../shared/data/clips) are not on this machine")
    return folder


def numbered(number: int, width: int = 160, height: int = 96) -> np.ndarray:
    """An RGB picture whose bars say ``number`` in binary, the highest bit on the left."""
    bars = [(number >> bit) & 1 for bit in reversed(range(BITS))]
    row = np.repeat(np.array(bars, np.uint8) * 200 + 28, -(-width // BITS))[:width]
    return np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2)


def number_of(image: np.ndarray) -> int:
    """The number that a decoded ``numbered`` picture shows."""
    width = image.shape[1]
    centres = [int((bar + 0.5) * -(-width // BITS)) for bar in range(BITS)]
    bits = image[image.shape[0] // 2, centres].mean(axis=1) > 128
    return int("".join(str(int(bit)) for bit in bits), 2)


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    pts_ms: Sequence[int] | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    hflip: bool = False,
    aspect: Fraction | None = None,
    matrix: int | None = None,
    full_range: bool | None = None,
    audio: bool = False,
    prepare: Callable[[av.VideoFrame], av.VideoFrame] | None = None,
) -> Path:
    """Encode RGB ``images``; ``pts_ms`` gives each its time, ``prepare`` may replace a frame.

    ``matrix`` (AVColorSpace) and ``full_range`` are how the colours are stored and what is
    written about them.
    """
    height, width = images[0].shape[:2]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.gop_size = gop
        if pts_ms is not None:
            context.time_base = Fraction(1, 1000)
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if matrix is not None:
            context.colorspace = matrix
        if full_range is not None:
            context.color_range = 2 if full_range else 1
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(
                format=pix_fmt,
                dst_colorspace=matrix,
                dst_color_range=None if full_range is None else 1 + full_range,
            )
            if prepare is not None:
                frame = prepare(frame)
            frame.pts = number if pts_ms is None else pts_ms[number]
            frame.time_base = context.time_base if pts_ms is not None else Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 16000 * len(images) // fps), np.float32), "fltp", "mono"
            )
            silence.rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


def clock_ms(image: np.ndarray) -> int:
    """The monotonic clock that the RTSP server drew into the top of an RGB picture."""
    return _number_in(image[:32])


def picture_number(image: np.ndarray) -> int:
    """Which of its grey pictures this one is, as the RTSP server drew it below the clock."""
    return _number_in(image[32:64])


def _number_in(rows: np.ndarray) -> int:
    width = rows.shape[1]
    centres = [int((bit + 0.5) * (width // 32)) for bit in range(32)]
    bits = rows[8:24, centres].mean(axis=(0, 2)) > 128
    return int("".join(str(int(bit)) for bit in bits), 2)


class RtspServer:
    """A local RTSP server in a process of its own, playing test pictures at /test."""

    def __init__(self, port: int = 0, *arguments: str) -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        self._process = subprocess.Popen(
            ["/usr/bin/python3", str(script), "--port", str(port), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().split()
        if not line:
            raise RuntimeError("the RTSP server did not start")
        self.port = int(line[0])

    def url(self, path: str = "test", login: str = "") -> str:
        return f"rtsp://{login}127.0.0.1:{self.port}/{path}"

    def freeze(self) -> None:
        """Nothing more comes from it, and its connections stay."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture(scope="session")
def rtsp_probe() -> None:
    """Skips where GStreamer's RTSP server is not installed."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    python = Path("/usr/bin/python3")
    if not python.exists() or subprocess.run([python, "-c", probe], capture_output=True).returncode:
        pytest.skip("needs gir1.2-gst-rtsp-server-1.0 and python3-gi")


@pytest.fixture
def rtsp_server(rtsp_probe: None) -> Iterator[Callable[..., RtspServer]]:
    """Starts RTSP servers and ends them."""
    started: list[RtspServer] = []

    def start(port: int = 0, *arguments: str) -> RtspServer:
        started.append(RtspServer(port, *arguments))
        return started[-1]

    yield start
    for server in started:
        server.kill()
