"""An output of another package: a CSV file with the path of every person's pelvis."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import IO

import numpy as np

from app.outputs.base import OutputError, RunInfo
from app.outputs.catalog import OutputEntry
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies


class CsvOutput:
    """One row for each body in each frame: frame, seconds, person, pelvis x, y, z in metres."""

    needs_picture = False
    warnings: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: tuple[Path, ...] = ()
        self._file: IO[str] | None = None

    def open(self, info: RunInfo) -> None:
        """Create the file. Raises OutputError where that fails."""
        try:
            self._file = self.path.open("w", newline="")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.files = (self.path,)
        csv.writer(self._file).writerow(["frame", "pts_s", "track", "x_m", "y_m", "z_m"])

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        """Add a frame's rows; ``picture`` is None because `needs_picture` is False."""
        assert self._file is not None, "write() before open()"
        writer = csv.writer(self._file)
        for track, pelvis_m in zip(bodies.track, bodies.joints_m[:, 0]):
            writer.writerow(
                [frame.id, f"{frame.pts_s:.6f}", track, *(f"{v:.4f}" for v in pelvis_m)]
            )

    def close(self) -> None:
        """Finish the file. It may be called twice, and without `open`."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


ENTRY = OutputEntry(
    name="csv",
    metavar="OUT.csv",
    help="Write the path of every person's pelvis.",
    format="CSV",
    target="samples.extend.csv_output:CsvOutput",
    suffixes=(".csv",),
)
"""The flag ``--csv OUT.csv``, its help and its checks."""
