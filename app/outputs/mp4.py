"""One mp4 file, which plays however its process ends: its encoder, fragments and times."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

# cv2 must be imported before av: in the other order OpenCV's windows can hang.
import cv2  # noqa: F401

# isort: split
import av
import av.container
import av.error
import av.packet
import av.video.frame

from app.outputs.atomic_file import AtomicFile
from app.outputs.base import OutputError
from app.outputs.yuv import encoded_size, encoder_frame
from pipeline.core.yuv import Pixels

CLOCK = 90_000
"""Ticks a second."""
_BUFFER = 8 << 20
_BT709 = 1
_LIMITED_RANGE = 1
"""The tags of what `encoder_frame` makes, by FFmpeg's numbers."""
_LIVE_LOOKAHEAD = 4
"""Frames that x264 holds back; its own choice is ten or more: two seconds at five a second."""


class Mp4:
    """A file of H.264 through libx264, written by one thread.

    A fragment begins with a key frame, is put on disk whole and ends after a second of the video
    at the latest. Nothing is written before the first one, so a file that a killed process leaves
    is empty or plays. ``close`` makes a plain mp4 of the fragments, or deletes a file that shows
    nothing: ``kept`` says which. ``frames`` counts the frames written. Every method raises
    OutputError, in one line.

    Args:
        path: The file.
        size: The (height, width) of its pictures. An odd side gets a border of one pixel; a picture
            of another size is fitted in, with bars.
        rate: The nominal frames a second.
        crf: x264's quality.
        preset: x264's speed.
        live: Whether the encoder holds back fewer frames, which costs a little quality.
        replace: Whether a file that exists is replaced.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: Fraction,
        crf: int,
        preset: str,
        live: bool,
        replace: bool = False,
    ) -> None:
        self.path = path
        self.frames = 0
        self.kept = True
        self._failed = False
        self._size = size
        self._group = max(1, round(rate))
        self._in_group, self._group_began = 0, 0
        self._waiting_bytes = 0
        self._first: list[av.packet.Packet] | None = []
        self._file: AtomicFile | None = None
        try:
            self._file = AtomicFile(path, replace)
            # A buffer larger than a fragment makes each reach the file in one piece.
            self._container = av.open(
                self._file,
                "w",
                format="mp4",
                # Fragments while it runs, an ordinary mp4 once it is closed.
                options={"movflags": "hybrid_fragmented"},
                buffer_size=_BUFFER,
            )
            self._stream = self._container.add_stream("libx264", rate=rate)
        except (OSError, av.error.FFmpegError) as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        # No B-frames: with them a fragmented file's times start late, by FFmpeg's own account.
        options: dict[str, object] = {"crf": str(crf), "preset": preset, "bf": "0"}
        if live:
            options["rc-lookahead"] = str(_LIVE_LOOKAHEAD)
        self._set_up(options)

    def _set_up(self, options: dict[str, object]) -> None:
        stream, codec = self._stream, self._stream.codec_context
        stream.height, stream.width = encoded_size(self._size)
        stream.pix_fmt = "yuv420p"
        stream.options = options
        stream.time_base = codec.time_base = Fraction(1, CLOCK)
        codec.gop_size = self._group
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED_RANGE

    @property
    def size_bytes(self) -> int:
        """The bytes on disk and those of the fragment that is not complete yet."""
        return (0 if self._file is None else self._file.end) + self._waiting_bytes

    def write(self, picture: Pixels, tick: int) -> None:
        """Add a picture ``tick`` 1/90000 s after the file's start.

        Each tick is greater than the one before.
        """
        yuv = encoder_frame(picture, self._size)
        yuv.pts, yuv.time_base = tick, Fraction(1, CLOCK)
        # Frames may come far slower than their nominal rate, so the video's own time counts too.
        if self._in_group == self._group or tick - self._group_began >= CLOCK:
            # A key frame ends the fragment, so this bounds what a killed process loses.
            yuv.pict_type = av.video.frame.PictureType.I
            self._in_group, self._group_began = 0, tick
        self._in_group += 1
        self._encode(yuv)
        self.frames += 1

    def _encode(self, frame: av.VideoFrame | None) -> None:
        assert self._file is not None, "write() after close()"
        try:
            for packet in self._ready(self._stream.encode(frame), last=frame is None):
                # A fragment reaches the file when it is complete; until then its packets only wait.
                before = self._file.end
                self._container.mux(packet)
                waits = 0 if self._file.end > before else self._waiting_bytes
                self._waiting_bytes = waits + packet.size
        except (OSError, av.error.FFmpegError) as error:
            self._failed = True
            raise OutputError(f"{self.path}: cannot write: {error.strerror}") from error

    def _ready(self, packets: list[av.packet.Packet], last: bool) -> list[av.packet.Packet]:
        """Return the packets to write now: FFmpeg writes the header with the first one, so the
        first fragment's are kept until it is complete."""
        if self._first is None:
            return packets
        self._first += packets
        if not last and sum(packet.is_keyframe for packet in self._first) < 2:
            self._waiting_bytes = sum(packet.size for packet in self._first)
            return []
        packets, self._first = self._first, None
        return packets

    def close(self) -> None:
        """Finish the file. Safe to call twice."""
        if self._file is None:
            return
        try:
            try:
                # After a failure FFmpeg gets no more packets: without a header it would crash.
                if self.frames and not self._failed:
                    self._encode(None)
            finally:
                self._close_file(self._file)
        except OutputError:
            # The fragments that are on disk play; there may be none.
            self._keep_if(_plays(self.path))
            raise
        self._keep_if(_plays(self.path) if self._failed else self.frames > 0)

    def _close_file(self, file: AtomicFile) -> None:
        # First, so that a second call does nothing, whatever the lines below raise.
        self._file = None
        try:
            with closing(file):
                self._container.close()
        except (OSError, av.error.FFmpegError) as error:
            raise OutputError(f"{self.path}: cannot write: {error.strerror}") from error

    def _keep_if(self, shows: bool) -> None:
        self.kept = shows
        if not shows:
            self.path.unlink(missing_ok=True)


def _plays(path: Path) -> bool:
    """Return whether a picture can be read of a video file."""
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (OSError, IndexError, av.error.FFmpegError):
        return False


class Timeline:
    """Converts source times in seconds to rising ticks of 1/90000 s that start at 0.

    ``rate`` is the nominal frames a second. Its interval is the step where the source's time runs
    backwards, or leaps more than two seconds over a break.
    """

    longest_break_s = 2.0

    def __init__(self, rate: float) -> None:
        self._step = max(1, round(CLOCK / rate))
        self._shift_s: float | None = None
        self.last = -1

    def place(self, pts_s: float, discontinuity: bool) -> int:
        """Return the tick of the next frame, above all before it."""
        if self._shift_s is None:
            self._shift_s = -pts_s
        tick = round((pts_s + self._shift_s) * CLOCK)
        # Only over a break: a slow source may have long intervals without one.
        leap = discontinuity and tick - self.last > self.longest_break_s * CLOCK
        if self.last >= 0 and (tick <= self.last or leap):
            tick = self.last + self._step
            # Later frames keep their own distances from this one.
            self._shift_s = tick / CLOCK - pts_s
        self.last = tick
        return tick
