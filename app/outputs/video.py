"""The overlay as an mp4 that plays whatever ends the run."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import cv2  # before av: the other way round its windows can hang

# isort: split
import av
import av.container
import av.error
import numpy as np

from app.outputs.base import OutputError, RunInfo
from pipeline.frame import Frame
from pipeline.people import Bodies

_CLOCK = 90_000
_SMALLEST_PX = 16
_BUFFER = 8 << 20
_BT709 = 1
_LIMITED_RANGE = 1


def _bt709() -> np.ndarray:
    """RGB 0..255 and 1 -> luma 16..235 and chroma 16..240, (3, 4)."""
    luma = np.array([0.2126, 0.7152, 0.0722])
    red, _, blue = np.eye(3)
    rows = [219 * luma, 224 * (blue - luma) / 1.8556, 224 * (red - luma) / 1.5748]
    return np.column_stack([np.stack(rows) / 255, [16, 128, 128]])


_RGB_TO_YUV = _bt709()


class VideoOutput:
    """H.264 in mp4 through libx264, with the frames' own times (variable frame rate is kept).

    While it is written the file is in fragments of about a second, each put on disk whole, so
    what was written plays even if the process is killed; ``close`` turns it into a plain mp4.
    The video starts at 0; where the source's time runs backwards or leaps over a break, a frame
    follows the one before it after one nominal interval. Odd sizes get a border of one pixel; a
    picture of another size than the first is fitted into it, with bars.
    """

    needs_picture = True

    def __init__(self, path: Path, crf: int = 20, preset: str = "veryfast") -> None:
        self.path = path
        self.crf = crf
        self.preset = preset
        self.files: tuple[Path, ...] = ()
        self._size = (0, 0)
        self._file: _WholeWrites | None = None
        self._container: av.container.OutputContainer | None = None
        self._clock = Timeline(30.0)

    def open(self, info: RunInfo) -> None:
        self._size = (info.height, info.width)
        rate = Fraction(info.fps or 30.0).limit_denominator(1001)
        self._clock = Timeline(float(rate))
        try:
            # A buffer larger than a fragment makes each reach the file in one piece.
            self._file = _WholeWrites(self.path)
            self._container = av.open(
                self._file,
                "w",
                format="mp4",
                options={"movflags": "hybrid_fragmented"},
                buffer_size=_BUFFER,
            )
            self._stream = self._container.add_stream("libx264", rate=rate)
        except (OSError, av.error.FFmpegError) as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        self._set_up(rate)
        self.files = (self.path,)

    def _set_up(self, rate: Fraction) -> None:
        height, width = (max(_SMALLEST_PX, side + side % 2) for side in self._size)
        stream, codec = self._stream, self._stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # No B-frames: with them a fragmented file's times start late, by FFmpeg's own account.
        stream.options = {"crf": str(self.crf), "preset": self.preset, "bf": "0"}
        stream.time_base = codec.time_base = Fraction(1, _CLOCK)
        codec.gop_size = max(1, round(rate))
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED_RANGE

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert self._container is not None, "write() before open()"
        if picture is None:
            raise ValueError("the video output needs the picture")
        image = pad_even(fit_into(picture, self._size))
        yuv = to_yuv420(image)
        yuv.pts = self._clock.place(frame.pts_s, frame.discontinuity)
        yuv.time_base = Fraction(1, _CLOCK)
        self._encode(yuv)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        assert self._container is not None
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, av.error.FFmpegError) as error:
            raise OutputError(f"{self.path}: cannot write: {error.strerror}") from None

    def close(self) -> None:
        container, file = self._container, self._file
        try:
            if container is not None and self._clock.last >= 0:
                self._encode(None)
        finally:
            self._container = self._file = None
            try:
                if container is not None:
                    container.close()
                if file is not None:
                    file.close()
            except (OSError, av.error.FFmpegError) as error:
                raise OutputError(f"{self.path}: cannot write: {error.strerror}") from None
        if file is not None and self._clock.last < 0:
            self.path.unlink(missing_ok=True)
            self.files = ()


class _WholeWrites:
    """A file that takes a piece whole or not at all, and after one that it could not take (a full
    disk) none any more: what is in it stays playable."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (see `close`)
        self._failed: OSError | None = None
        self.seek = self._file.seek
        self.tell = self._file.tell
        self.close = self._file.close

    def write(self, data: bytes) -> int:
        if self._failed is not None:
            raise self._failed
        start, rest = self._file.tell(), memoryview(data)
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(start)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._failed = error
            self._file.truncate(end)
            raise
        return len(data)


class Timeline:
    """Source times in seconds to rising ticks of 1/90000 s that start at 0.

    ``rate`` is the nominal frames a second: the step taken where the source's time runs backwards,
    or leaps more than two seconds over a break.
    """

    longest_break_s = 2.0

    def __init__(self, rate: float) -> None:
        self._step = max(1, round(_CLOCK / rate))
        self._shift_s: float | None = None
        self.last = -1

    def place(self, pts_s: float, discontinuity: bool) -> int:
        """The tick of the next frame, above all before it."""
        if self._shift_s is None:
            self._shift_s = -pts_s
        tick = round((pts_s + self._shift_s) * _CLOCK)
        leap = discontinuity and tick - self.last > self.longest_break_s * _CLOCK
        if self.last >= 0 and (tick <= self.last or leap):
            tick = self.last + self._step
            self._shift_s = tick / _CLOCK - pts_s
        self.last = tick
        return tick


def to_yuv420(image: np.ndarray) -> av.VideoFrame:
    """RGB uint8 (H, W, 3), even sides, to a yuv420p frame: BT.709's matrix, limited range.

    ITU-R BT.709-6, items 3.2 to 3.4. OpenCV's 3 by 3 product and mean of four pixels take a
    fifth of the time that swscale takes for the same.
    """
    yuv = cv2.transform(image, _RGB_TO_YUV)
    height, width = image.shape[:2]
    half = cv2.resize(yuv, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    frame = av.VideoFrame(width, height, "yuv420p")
    for channel, (plane, source) in enumerate(zip(frame.planes, (yuv, half, half))):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = cv2.extractChannel(source, channel)
    return frame


def fit_into(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (h, w, 3) scaled into ``size`` (height, width), centred, black bars around it."""
    height, width = size
    if image.shape[:2] == size:
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = [max(1, min(side, round(scale * old))) for side, old in zip(size, image.shape)]
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    shrunk = cv2.resize(image, (inner[1], inner[0]), interpolation=cv2.INTER_AREA)
    out[top : top + inner[0], left : left + inner[1]] = shrunk
    return out


def pad_even(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column where a side is odd or below 16: 4:2:0 needs even sides."""
    height, width = image.shape[:2]
    down = max(_SMALLEST_PX, height + height % 2) - height
    right = max(_SMALLEST_PX, width + width % 2) - width
    if not (down or right):
        return image
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
