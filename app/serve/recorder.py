"""A recording of a served source: a video, and its bodies in a file beside it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from app.config import OutputConfig
from app.outputs.atomic_file import AtomicFile
from app.outputs.background_writer import BackgroundWriter
from app.outputs.base import OutputError, RunInfo
from app.outputs.video import VideoOutput
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.yuv import Pixels

SUFFIXES = (".mp4", ".jsonl")
FACTS = ".json"
"""The suffix of the file that says what a recording's bodies were fitted with."""
SCHEMA = "bodystream.recording/1"
_LINES = 1024
"""The lines that may wait for the disk; further ones are dropped and counted."""


def facts_of(info: RunInfo) -> dict[str, Any]:
    """Return what `--poses` has of a whole run and lines of JSON have not, ready for JSON."""
    return {
        "schema": SCHEMA,
        "model": info.model,
        "fps": info.fps,
        "image_size": [info.height, info.width],
        "intrinsics": info.intrinsics.tolist(),
    }


class Recorder:
    """Writes NAME.mp4, NAME.jsonl with a line for each frame in the format of `JsonlOutput`, and
    NAME.json with what `facts_of` returns, which the lines lack.

    Lines are written to disk at once. They stay in one file where the video rotates. Files that are
    there already are left as they are, which is an error.

    Only threads of its own touch the disk. ``write`` and ``add_line`` never wait: frames and lines
    that come too fast for the disk or the encoder are dropped and counted in ``dropped``. They
    raise OutputError once a file cannot be written.

    Args:
        path: The path of the video; the lines go beside it with the suffix .jsonl.
        output: The video's quality and rotation.
        info: The size and the rate of the frames.
    """

    def __init__(self, path: Path, output: OutputConfig, info: RunInfo) -> None:
        self.path = path
        self._video = VideoOutput(path, output.crf, output.preset, output.rotation)
        self._video.open(info)
        self._info, self._lines_path = info, path.with_suffix(".jsonl")
        # Belongs to the thread that writes the lines.
        self._file: AtomicFile | None = None
        self._lines: BackgroundWriter[str] = BackgroundWriter(
            str(self._lines_path), self._write_line, self._end_lines, _LINES, live=True
        )

    @property
    def dropped(self) -> int:
        """The number of frames and lines that were dropped."""
        return self._video.dropped + self._lines.dropped

    @property
    def ended(self) -> bool:
        """Whether both files are finished."""
        return self._video.ended and self._lines.ended

    @property
    def busy_s(self) -> float:
        """How long the disk or the encoder has been busy with one picture or line, in seconds."""
        return max(self._video.busy_s, self._lines.busy_s)

    def write(self, frame: Frame, bodies: Bodies, picture: Pixels) -> None:
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
        self.stop()
        try:
            self._video.close()
        finally:
            self._lines.close()

    def wait(self) -> None:
        """Wait until both files are finished, without a limit. Call it after ``close``."""
        self._video.wait()
        self._lines.wait()

    def tidy(self) -> None:
        """Delete the lines where there is no video. Call it once both files are finished."""
        if not self._video.files:
            self._lines_path.unlink(missing_ok=True)
            self.path.with_suffix(FACTS).unlink(missing_ok=True)

    def _write_line(self, line: str) -> None:
        try:
            if self._file is None:
                self._file = AtomicFile(self._lines_path)
                facts = AtomicFile(self.path.with_suffix(FACTS))
                with closing(facts):
                    facts.write(f"{json.dumps(facts_of(self._info))}\n".encode())
            self._file.write(f"{line}\n".encode())
        except OSError as error:
            raise OutputError(f"{self._lines_path}: cannot write: {error.strerror}") from error

    def _end_lines(self) -> None:
        if self._file is not None:
            self._file.close()
