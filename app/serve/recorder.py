"""A recording of a served source: its video, and beside it its bodies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.config import OutputConfig
from app.outputs.atomic_file import AtomicFile
from app.outputs.background_writer import BackgroundWriter
from app.outputs.base import OutputError, RunInfo
from app.outputs.video import VideoOutput
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

SUFFIXES = (".mp4", ".jsonl")
_LINES = 1024


class Recorder:
    """Writes NAME.mp4 (its quality and rotation as configured) and NAME.jsonl, a line a frame as
    `JsonlOutput` has them, put on disk at once. The lines stay one file where the video rotates.

    ``write`` and ``tell`` never wait for the disk or the encoder: what they are too slow for is
    left out and counted in ``dropped``. Raises OutputError where either cannot be written.
    """

    def __init__(self, path: Path, output: OutputConfig, info: RunInfo) -> None:
        self._video = VideoOutput(path, output.crf, output.preset, output.rotation)
        self._video.open(info)
        self._lines_path = path.with_suffix(".jsonl")
        try:
            self._file = AtomicFile(self._lines_path)
        except OSError as error:
            self._video.close()
            reason = f"{self._lines_path}: cannot be written: {error.strerror}"
            raise OutputError(reason) from None
        self._lines: BackgroundWriter[str] = BackgroundWriter(
            str(self._lines_path), self._write_line, self._file.close, _LINES, live=True
        )

    @property
    def dropped(self) -> int:
        """Frames and lines that are not in it."""
        return self._video.dropped + self._lines.dropped

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray) -> None:
        self._video.write(frame, bodies, picture)

    def tell(self, line: str) -> None:
        """A frame's bodies, which with low latency come later than its picture."""
        self._lines.put(line)

    def stop(self) -> None:
        """No more; what is under way is finished without anybody waiting."""
        self._video.stop()
        self._lines.stop()

    def close(self) -> None:
        """Finish both. Safe to call twice."""
        try:
            self._video.close()
        finally:
            self._lines.close()

    def _write_line(self, line: str) -> None:
        try:
            self._file.write(f"{line}\n".encode())
        except OSError as error:
            raise OutputError(f"{self._lines_path}: cannot write: {error.strerror}") from None


class Recordings:
    """A source's recordings, one at a time: begun and ended by any thread, written to by one, told
    lines by another or the same.

    ``path`` is of the one that goes on. One that fails stops, and ``trouble`` says why in a line;
    nothing else does.
    """

    def __init__(self, output: OutputConfig) -> None:
        self.path: Path | None = None
        self.trouble = ""
        self._output = output
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None
        self._ending: list[Recorder] = []
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """What all of them together left out, as `Recorder.dropped`."""
        with self._lock:
            going_on = [self._recorder] if self._recorder is not None else []
            return self._dropped + sum(each.dropped for each in [*going_on, *self._ending])

    def record(self, path: Path | None) -> None:
        """Begin one with the next frame, or end it, which waits until it is complete."""
        with self._lock:
            recorder, self._recorder, self.path = self._recorder, None, path
            failed = bool(self.trouble)
            if path is not None:
                self.trouble = ""
            if recorder is None:
                return
            self._ending.append(recorder)
        # Outside the lock: a slow disk must not hold up the picture.
        try:
            recorder.close()
        except Exception as error:
            # Of one that failed before, the first reason is the one to know, and was told.
            if not failed:
                self.trouble = _told(error)
        with self._lock:
            self._ending.remove(recorder)
            self._dropped += recorder.dropped

    def write(self, info: RunInfo, frame: Frame, bodies: Bodies, picture: np.ndarray) -> None:
        """A frame for the recording, if one goes on. Never waits."""
        with self._lock, self._telling():
            if self.path is None:
                return
            if self._recorder is None:
                height, width = frame.size
                sized = replace(info, height=height, width=width)
                self._recorder = Recorder(self.path, self._output, sized)
            self._recorder.write(frame, bodies, picture)

    def tell(self, line: str) -> None:
        """A frame's bodies, for the recording if one has begun. Never waits."""
        with self._lock, self._telling():
            if self.path is not None and self._recorder is not None:
                self._recorder.tell(line)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Under the lock: what goes wrong ends the recording and is told; the picture goes on."""
        try:
            yield
        except Exception as error:
            self.trouble, self.path = _told(error), None
            if self._recorder is not None:
                self._recorder.stop()


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
