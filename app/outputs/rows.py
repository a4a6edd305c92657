"""An npz of rows that a run adds frame by frame: what `--poses` and `--mhr` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from app.outputs.base import RunInfo
from app.outputs.spool import ColumnSpool
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

Shapes = dict[str, tuple[type, tuple[int, ...]]]
"""The dtype of each column, and the shape of its rows."""


class RowsOutput:
    """An `Output` of one npz; subclass it and write `layout` and `rows`.

    Rows are kept on disk until the end. A run without any frame leaves no file.

    Args:
        path: The file.
    """

    needs_picture = False
    warnings: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: tuple[Path, ...] = ()
        self._info: RunInfo | None = None
        self._last: Bodies | None = None
        self._columns: ColumnSpool | None = None

    def layout(self, info: RunInfo, bodies: Bodies) -> tuple[Shapes, dict[str, np.ndarray]]:
        """Return the columns, and the arrays of the whole file beside `file_facts`.

        Args:
            info: The run.
            bodies: Those of the first frame with rows, or of the last one if none had any.
        """
        raise NotImplementedError

    def rows(self, info: RunInfo, frame: Frame, bodies: Bodies) -> Mapping[str, np.ndarray]:
        """Return the columns' values (rows, ...) of a frame, "frame" among them."""
        raise NotImplementedError

    def save(self, columns: ColumnSpool) -> None:
        """Write the file of all rows. Raises OutputError."""
        columns.save(self.path)

    def open(self, info: RunInfo) -> None:
        self._info = info

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert self._info is not None, "write() before open()"
        self._last = bodies
        rows = self.rows(self._info, frame, bodies)
        if len(rows["frame"]):
            # Here and not in `open`, so that a run that is killed before leaves nothing.
            if self._columns is None:
                self._columns = self._begin(self._info, bodies)
            self._columns.append(rows)

    def close(self) -> None:
        columns, self._columns = self._columns, None
        last, self._last = self._last, None
        # Frames without any row make a file without rows.
        if columns is None and last is not None and self._info is not None:
            columns = self._begin(self._info, last)
        if columns is None:
            return
        with columns.kept_after_errors(self.path):
            self.save(columns)
        self.files = (self.path,)

    def _begin(self, info: RunInfo, bodies: Bodies) -> ColumnSpool:
        shapes, arrays = self.layout(info, bodies)
        return ColumnSpool(self.path, shapes, {**file_facts(info), **arrays})


def file_facts(info: RunInfo) -> dict[str, np.ndarray | np.generic]:
    """Return what such a file says of the run."""
    return {
        "intrinsics": np.asarray(info.intrinsics, np.float64),
        "image_size": np.array([info.height, info.width], np.int64),
        "fps": np.float64(np.nan if info.fps is None else info.fps),
    }
