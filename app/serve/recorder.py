"""Recordings of a served source: a video, and its bodies in a file beside it."""

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
"""The lines that may wait for the disk; further ones are dropped and counted."""


class Recorder:
    """Writes NAME.mp4, and NAME.jsonl with a line for each frame in the format of `JsonlOutput`.

    Lines are written to disk at once. They stay in one file where the video rotates.

    ``write`` and ``add_line`` never wait for the disk or the encoder: frames and lines that come
    too fast are dropped and counted in ``dropped``.

    Args:
        path: The path of the video; the lines go beside it with the suffix .jsonl.
        output: The video's quality and rotation.
        info: The size and the rate of the frames.

    Raises:
        OutputError: One of the files cannot be written; ``write`` and ``add_line`` raise it too.
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
        """The number of frames and lines that were dropped."""
        return self._video.dropped + self._lines.dropped

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray) -> None:
        self._video.write(frame, bodies, picture)

    def add_line(self, line: str) -> None:
        """Write a frame's bodies, which with low latency come later than its picture."""
        self._lines.put(line)

    def stop(self) -> None:
        """Take no more; what is queued is written in the background. Does not wait."""
        self._video.stop()
        self._lines.stop()

    def close(self) -> None:
        """Finish both files, waiting for the disk. Safe to call twice."""
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
    """The recordings of a source, one at a time.

    Any thread may begin and end a recording. One thread writes frames; the same or another one
    adds lines. A recording that fails stops; the source goes on.

    Args:
        output: How recordings are written.

    Attributes:
        path: The path of the current recording's video, or None.
        trouble: Why the last recording failed, in a line; empty if it did not.
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
        """The number of frames and lines that all recordings together dropped."""
        with self._lock:
            current = [self._recorder] if self._recorder is not None else []
            return self._dropped + sum(each.dropped for each in [*current, *self._ending])

    def record(self, path: Path | None) -> None:
        """Begin a recording with the next frame; or with None, end it and wait until its files are
        complete."""
        with self._lock:
            # Taken out under the lock, so that no frame is written to a recorder that is closing.
            recorder, self._recorder, self.path = self._recorder, None, path
            failed = bool(self.trouble)
            if path is not None:
                self.trouble = ""
            if recorder is None:
                return
            # Still counted in `dropped` while it closes.
            self._ending.append(recorder)
        # Outside the lock: a slow disk must not hold up the picture.
        try:
            recorder.close()
        except Exception as error:
            # A recording that failed before keeps its first reason: the later one follows from it.
            if not failed:
                self.trouble = _reason_of(error)
        with self._lock:
            self._ending.remove(recorder)
            self._dropped += recorder.dropped

    def write(self, info: RunInfo, frame: Frame, bodies: Bodies, picture: np.ndarray) -> None:
        """Write a frame to the recording, if there is one. Never waits for the disk."""
        with self._lock, self._errors_end_it():
            if self.path is None:
                return
            if self._recorder is None:
                # The source's size may have changed since it was opened.
                height, width = frame.size
                sized = replace(info, height=height, width=width)
                self._recorder = Recorder(self.path, self._output, sized)
            self._recorder.write(frame, bodies, picture)

    def add_line(self, line: str) -> None:
        """Write a frame's bodies to the recording, if it has begun. Never waits for the disk."""
        with self._lock, self._errors_end_it():
            if self.path is not None and self._recorder is not None:
                self._recorder.add_line(line)

    @contextmanager
    def _errors_end_it(self) -> Iterator[None]:
        """Turn an error into ``trouble`` and end the recording. The caller holds the lock."""
        try:
            yield
        except Exception as error:
            self.trouble, self.path = _reason_of(error), None
            if self._recorder is not None:
                # Not `close`: the caller draws, and must not wait for the disk.
                self._recorder.stop()


def _reason_of(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
