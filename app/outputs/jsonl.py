"""Bodies as lines of JSON, one object a frame, to a file or standard output."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from app.outputs.base import OutputClosed, OutputError, RunInfo
from app.outputs.poses import body_rows
from app.outputs.reservation import Existing
from app.outputs.streams import is_stream, open_text
from app.outputs.unfinished import Unfinished, cut_broken_end
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

STDOUT = Path("-")
_DECIMALS = 6


class JsonlOutput:
    """One JSON object a frame, a line each, flushed at once.

    Each object has ``frame``, ``pts_s``, ``captured_ns`` and ``bodies``, each body with the columns
    of `--poses` as lists (metres, radians, pixels). With ``path`` "-" the lines go to standard
    output, and everything else that this process prints goes to standard error from then on.

    A file with an `Unfinished` mark is continued (see `_Continuation`), unless ``existing`` is
    "overwrite".
    """

    needs_picture = False
    warnings: tuple[str, ...] = ()

    def __init__(self, path: Path, existing: Existing = "keep") -> None:
        self.path, self.existing = path, existing
        self.files: tuple[Path, ...] = ()
        self._info: RunInfo | None = None
        self._mark: Unfinished | None = None
        self._continued: _Continuation | None = None
        # Before the models load, because libraries print while they do.
        self._file: IO[str] | None = claim_stdout() if path == STDOUT else None

    def open(self, info: RunInfo) -> None:
        self._info = info
        if self._file is not None:
            return
        self._mark = None if is_stream(self.path) else Unfinished.read(self.path)
        try:
            if self._mark is not None and self.existing != "overwrite":
                self._continued = _continuation_of(self.path, self._mark, info)
            self._file = open_text(self.path, append=self._continued is not None)
        except BrokenPipeError:
            raise OutputClosed(f"{self.path} was closed") from None
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.files = (self.path,)

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert self._info is not None, "write() before open()"
        assert self._file is not None, "write() after close()"
        if self._continued is not None:
            if self._continued.has(frame):
                return
            frame, bodies = self._continued.place(frame, bodies)
        try:
            self._note_tracks(bodies)
            self._file.write(line_of(self._info, frame, bodies) + "\n")
            # Each line at once: a reader in a pipe is live, and a killed run keeps what it wrote.
            self._file.flush()
        except BrokenPipeError:
            raise OutputClosed(f"{self._name} was closed") from None
        except OSError as error:
            raise OutputError(f"{self._name}: cannot write: {error.strerror}") from None

    def _note_tracks(self, bodies: Bodies) -> None:
        """Keep the highest track in the mark, before the line that has it is written."""
        highest = int(bodies.track.max(initial=0))
        if self._mark is not None and highest > self._mark.track:
            self._mark = replace(self._mark, track=highest)
            self._mark.save(self.path)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except BrokenPipeError:
            pass  # The reader has left.
        except OSError as error:
            raise OutputError(f"{self._name}: cannot write: {error.strerror}") from None

    @property
    def _name(self) -> str:
        return "standard output" if self.path == STDOUT else str(self.path)


class _Continuation:
    """How a run goes on in a file of lines that another run of the same command left.

    A clip is read from its start again, so the frames that the file has are left out. A live source
    begins anew: its frames and people get numbers above those in the file, and its seconds go on
    from the file's last by the time that has passed since then.

    Args:
        last: The object of the file's last line.
        track: The highest track number in the file.
        live: Whether the source is live.
        gap_s: The seconds from the last line to this run's first frame.
    """

    def __init__(self, last: dict, track: int, live: bool, gap_s: float) -> None:
        self._frame, self._pts_s = int(last["frame"]), float(last["pts_s"])
        self._track, self._live, self._gap_s = track, live, gap_s
        self._first: Frame | None = None

    def has(self, frame: Frame) -> bool:
        """Return whether the file has a frame already."""
        return not self._live and frame.id <= self._frame

    def place(self, frame: Frame, bodies: Bodies) -> tuple[Frame, Bodies]:
        """Return a frame and its bodies with the numbers and time that they get in the file."""
        if not self._live:
            return frame, bodies
        if self._first is None:
            self._first = frame
        number = self._frame + 1 + frame.id - self._first.id
        pts_s = self._pts_s + self._gap_s + frame.pts_s - self._first.pts_s
        return (
            replace(frame, id=number, pts_s=pts_s),
            bodies.with_values(track=bodies.track + self._track),
        )


def _continuation_of(path: Path, mark: Unfinished, info: RunInfo) -> _Continuation | None:
    """Return how a file goes on, None where there is no whole line in it. Raises OSError."""
    if not path.exists():
        return None
    written_s = path.stat().st_mtime
    last = cut_broken_end(path)
    if last is None:
        return None
    if not {"frame", "pts_s"} <= set(last):
        raise OutputError(f"{path}: its last line is no frame; move it away")
    # At least a frame, in case the clock was set back.
    gap_s = max(time.time() - written_s, 1 / (info.fps or 30.0))
    return _Continuation(last, mark.track, info.live, gap_s)


def line_of(info: RunInfo, frame: Frame, bodies: Bodies) -> str:
    """Return one frame's object as JSON, without the end of the line."""
    return json.dumps(
        {
            "frame": frame.id,
            "pts_s": round(frame.pts_s, _DECIMALS),
            "captured_ns": frame.captured_ns,
            "bodies": bodies_of(info, frame, bodies),
        },
        allow_nan=False,
        separators=(",", ":"),
    )


def claim_stdout() -> IO[str]:
    """Return standard output for the caller alone.

    Everything else that is printed from then on, also by C libraries, goes to standard error.
    """
    sys.stdout.flush()
    # By file descriptor, not `sys.stdout`: C libraries write to descriptor 1 themselves.
    claimed = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(claimed, "w", encoding="utf-8")


def bodies_of(info: RunInfo, frame: Frame, bodies: Bodies) -> list[dict]:
    """Return one dictionary a body: the columns of `--poses` as lists.

    Numbers are rounded to a micrometre, which is far below their accuracy.
    """
    rows = body_rows(info, frame, bodies)
    names = [name for name in rows if name not in ("frame", "pts_s")]
    lists = [
        np.round(rows[name].astype(np.float64), _DECIMALS).tolist()
        if rows[name].dtype.kind == "f"
        else rows[name].tolist()
        for name in names
    ]
    return [dict(zip(names, values)) for values in zip(*lists)]
