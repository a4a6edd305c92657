"""From packets to upright RGB frames with a place in time; shared by clips and live sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from pipeline.capture.base import SourceInfo, SourceNotVideo
from pipeline.frame import Frame

_HD_LINES = 720
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_MAX_DAMAGED = 500


class Decoder:
    """Decodes one opened container's first video stream.

    Damaged packets are skipped and counted in ``damaged``. Raises SourceNotVideo when there is no
    video stream or it has no size.
    """

    def __init__(
        self, container: av.container.InputContainer, name: str, live: bool, low_delay: bool
    ) -> None:
        if not container.streams.video:
            container.close()
            raise SourceNotVideo(f"{name} has no video stream")
        self.container = container
        self.stream = container.streams.video[0]
        # Frame threads delay each frame by their number; a live feed cannot wait for them.
        self.stream.thread_type = "SLICE" if low_delay else "AUTO"
        self.name = name
        self.live = live
        self.damaged = 0
        self._start = self.stream.start_time or 0
        self._ranks: dict[int | None, int] = {}

    @property
    def fps(self) -> float | None:
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate else None

    def info(self) -> SourceInfo:
        """Width and height before rotation is known, corrected by the first frame."""
        context = self.stream.codec_context
        return SourceInfo(
            self.name, self.live, context.width, context.height, self.fps,
            self.stream.frames or None, context.name,
        )  # fmt: skip

    def pictures(self) -> Iterator[tuple[float, VideoFrame]]:
        """(seconds from the stream's start, decoded picture), in the order they are shown."""
        last = None
        for packet in self.container.demux(self.stream):
            try:
                decoded = packet.decode()
            except (av.error.InvalidDataError, av.error.UndefinedError, av.error.PatchWelcomeError):
                self.damaged += 1
                if self.damaged > _MAX_DAMAGED and last is None:
                    raise SourceNotVideo(
                        f"{self.name}: nothing could be decoded ({self.damaged} damaged packets)"
                    ) from None
                continue
            for picture in decoded:
                step = 1.0 / (self.fps or 30.0)
                if picture.pts is None:
                    seconds = 0.0 if last is None else last + step
                else:
                    seconds = float((picture.pts - self._start) * picture.time_base)
                last = seconds
                yield seconds, picture

    def seek(self, start_s: float) -> None:
        """Go to the key frame at or before ``start_s`` seconds. Every packet's time is read first
        (no decoding), so that ``index_of`` stays exact."""
        times = {packet.pts for packet in self.container.demux(self.stream)} - {None}
        self._ranks = {pts: rank for rank, pts in enumerate(sorted(times))}
        target = self._start + int(start_s / self.stream.time_base)
        self.container.seek(target, stream=self.stream, backward=True)

    def index_of(self, picture: VideoFrame, counted: int) -> int:
        """The 0-based index of a picture in its stream: by its time after ``seek``, else as
        ``counted``."""
        return self._ranks.get(picture.pts, counted)


def upright_rgb(picture: VideoFrame) -> np.ndarray:
    """RGB uint8 (H, W, 3), turned as the recording's display matrix says.

    Untagged pictures of 720 lines and more are BT.709, as players take them, smaller ones BT.601.
    """
    untagged = picture.colorspace == _UNSPECIFIED
    source = Colorspace.ITU709 if untagged and picture.height >= _HD_LINES else None
    if source is None:
        image = picture.to_ndarray(format="rgb24")
    else:
        image = picture.reformat(format="rgb24", src_colorspace=source).to_ndarray()
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class FrameMaker:
    """Numbers frames and tells where one does not continue the last.

    A discontinuity is a change of size, time running backwards, or a gap of more than a second
    and more than eight frame periods.
    """

    def __init__(self, name: str, clock_ns: Callable[[], int], fps: float | None) -> None:
        self._name = name
        self._clock_ns = clock_ns
        self._gap_s = max(1.0, 8.0 / (fps or 30.0))
        self._last: Frame | None = None
        self.broken = False
        """Set to mark the next frame as a discontinuity (after a reconnect)."""

    def make(self, index: int, pts_s: float, image: np.ndarray) -> Frame:
        last = self._last
        breaks = self.broken
        if last is not None:
            step = pts_s - last.pts_s
            breaks |= step < 0 or step > self._gap_s or image.shape != last.image.shape
        self.broken = False
        self._last = Frame(index, self._name, self._clock_ns(), pts_s, image, breaks)
        return self._last
