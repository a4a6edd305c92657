"""Bodies as lines of JSON, one object a frame, to a file or standard output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO

import numpy as np

from app.outputs.base import OutputClosed, OutputError, RunInfo
from app.outputs.poses import body_rows
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

STDOUT = Path("-")
_DECIMALS = 6


class JsonlOutput:
    """One JSON object a frame, a line each, flushed at once.

    Each object has ``frame``, ``pts_s``, ``captured_ns`` and ``bodies``, each body with the columns
    of `--poses` as lists (metres, radians, pixels). With ``path`` "-" the lines go to standard
    output, and everything else that this process prints goes to standard error from then on.
    """

    needs_picture = False
    warnings: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: tuple[Path, ...] = ()
        self._info: RunInfo | None = None
        # Before the models load, because libraries print while they do.
        self._file: IO[str] | None = claim_stdout() if path == STDOUT else None

    def open(self, info: RunInfo) -> None:
        self._info = info
        if self._file is not None:
            return
        try:
            self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115 (see `close`)
        except BrokenPipeError:
            raise OutputClosed(f"{self.path} was closed") from None
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.files = (self.path,)

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert self._info is not None, "write() before open()"
        assert self._file is not None, "write() after close()"
        try:
            self._file.write(line_of(self._info, frame, bodies) + "\n")
            # Each line at once: a reader in a pipe is live, and a killed run keeps what it wrote.
            self._file.flush()
        except BrokenPipeError:
            raise OutputClosed(f"{self._name} was closed") from None
        except OSError as error:
            raise OutputError(f"{self._name}: cannot write: {error.strerror}") from None

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
