"""The overlay as mp4: encoded in a thread of its own, in one file or several in turn."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from app.outputs.background_writer import BackgroundWriter
from app.outputs.base import OutputError, RunInfo
from app.outputs.mp4 import CLOCK, Mp4, Timeline
from app.outputs.reservation import Existing, Held, take
from app.outputs.rotation import Rotation
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.yuv import Pixels
from pipeline.runtime.window import inherit_break

_CLIP_FRAMES = 8
_LIVE_FRAMES = 64
_LIVE_BYTES = 128 << 20
"""Pictures that may wait for the encoder: two windows of a clip; for a live source enough to bridge
a pause of the disk of about a second."""


class VideoOutput:
    """H.264 in mp4, with the frames' own times (variable frame rate is kept).

    The video starts at 0; where the source's time runs backwards or leaps over a break, a frame
    follows the one before it after one nominal interval. If the process is killed or the disk is
    full, the file plays, but for about the last two seconds (`Mp4`).

    A thread of its own opens the files, encodes and writes. A clip waits for it, so that nothing is
    lost; a live source never does, and ``dropped`` counts its frames that are not in the video.
    With ``rotation`` the video goes on in OUT_0002.mp4 and so on; each file plays by itself from 0,
    and no frame is lost or written twice. ``files`` are those that exist.

    Args:
        path: OUT.mp4.
        crf: x264's quality, 0 to 51; lower is better.
        preset: x264's speed.
        rotation: The limits of one file.
        existing: "overwrite" to replace a file that has something in it, which else is an error.
    """

    needs_picture = True
    takes_planes = True

    def __init__(
        self,
        path: Path,
        crf: int = 20,
        preset: str = "veryfast",
        rotation: Rotation = Rotation(),  # noqa: B008 (frozen)
        existing: Existing = "keep",
    ) -> None:
        self.path = path
        self.crf = crf
        self.preset = preset
        self.rotation = rotation
        self.existing = existing
        self.files: tuple[Path, ...] = ()
        self._thread: BackgroundWriter[Frame] | None = None
        # The attributes below belong to the thread once it runs.
        self._info: RunInfo | None = None
        self._mp4: Mp4 | None = None
        self._held: Held | None = None
        self._clock = Timeline(30.0)
        self._begun: int | None = None
        self._begun_tick = 0

    @property
    def dropped(self) -> int:
        """The number of frames that are not in the video."""
        return 0 if self._thread is None else self._thread.dropped

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.dropped:
            return ()
        frames = "1 frame was" if self.dropped == 1 else f"{self.dropped} frames were"
        return (f"{self.path}: {frames} not recorded: the disk or the encoder is too slow",)

    def open(self, info: RunInfo) -> None:
        self._info = info
        self._clock = Timeline(float(self._rate))
        capacity = _CLIP_FRAMES
        if info.live:
            # Large pictures get fewer places, so that the memory stays bounded.
            capacity = min(_LIVE_FRAMES, max(4, _LIVE_BYTES // (info.width * info.height * 3)))
        self._thread = BackgroundWriter(
            str(self.path), self._encode, self._end, capacity, live=info.live, inherit=inherit_break
        )

    def write(self, frame: Frame, bodies: Bodies, picture: Pixels | None) -> None:
        assert self._thread is not None, "write() before open()"
        if picture is None:
            raise ValueError("the video output needs the picture")
        # Without the GPU's copy, which would stay allocated while the frame waits.
        self._thread.put(replace(frame, pixels=picture, on_device=None))

    @property
    def busy_s(self) -> float:
        """How long the thread has been busy with its current frame, in seconds."""
        return 0.0 if self._thread is None else self._thread.busy_s

    @property
    def ended(self) -> bool:
        """Whether everything is finished."""
        return self._thread is None or self._thread.ended

    def stop(self) -> None:
        """Take no more frames; the thread finishes the waiting ones by itself."""
        if self._thread is not None:
            self._thread.stop()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.close()

    def wait(self) -> None:
        """Wait for the thread, if ``close`` abandoned it, without a limit."""
        if self._thread is not None:
            self._thread.wait()

    @property
    def _rate(self) -> Fraction:
        assert self._info is not None
        return Fraction(self._info.fps or 30.0).limit_denominator(1001)

    def _encode(self, frame: Frame) -> None:
        tick = self._clock.place(frame.pts_s, frame.discontinuity)
        # A file gets one frame at least, however small its limits are.
        if self._mp4 is not None and self._mp4.frames:
            long_s = (tick - self._begun_tick) / CLOCK
            if self.rotation.due(long_s, self._mp4.size_bytes):
                self._end()
        if self._mp4 is None:
            self._begin(tick)
        assert self._mp4 is not None
        self._mp4.write(frame.pixels, tick - self._begun_tick)

    def _begin(self, tick: int) -> None:
        """Begin the next file, whose time 0 is ``tick`` of the video."""
        assert self._info is not None
        path = self._next_path()
        size = self._info.height, self._info.width
        live, replace_ = self._info.live, self.existing == "overwrite"
        self._mp4 = Mp4(path, size, self._rate, self.crf, self.preset, live, replace_)
        self._begun_tick = tick
        self.files = (*self.files, path)
        # Only this run's files: an earlier run's are not this one's to delete.
        if self.rotation.on and self.rotation.keep:
            for old in self.files[: -self.rotation.keep]:
                _delete(old)
            self.files = self.files[-self.rotation.keep :]

    def _next_path(self) -> Path:
        """Return the path of the next file. Of several it is held, because another run may write
        files of the same name; a single one is the caller's to reserve."""
        if self._begun is None:
            # A run that is started again continues the numbers: no file is written over.
            self._begun = self.rotation.last(self.path)
        self._begun += 1
        if not self.rotation.on:
            return self.path
        while (held := take(path := self.rotation.path(self.path, self._begun))) is None:
            self._begun += 1
        self._held = held
        return path

    def _end(self) -> None:
        """Finish the current file. Safe to call twice."""
        mp4, self._mp4 = self._mp4, None
        held, self._held = self._held, None
        try:
            if mp4 is not None:
                mp4.close()
        finally:
            if held is not None:
                held.close()
            if mp4 is not None and not mp4.kept:
                self.files = tuple(path for path in self.files if path != mp4.path)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be deleted: {error.strerror}") from error
