"""TRC (Track Row Column): markers over time, for OpenSim and Pose2Sim."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.exports.markers import MARKERS, markers_mm
from app.exports.recording import Recording, Track
from app.outputs.atomic_file import written_whole

_HEADER = (
    "DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units", "OrigDataRate",
    "OrigDataStartFrame", "OrigNumFrames",
)  # fmt: skip


def write(recording: Recording, track: Track, path: Path) -> None:
    """Write one person's markers as a TRC file: millimetres, y up, a row a step of even time.

    The cells of a step without a row are "nan": OpenSim refuses a row that ends in empty cells.
    Raises OSError.
    """
    markers = markers_mm(track, recording.world, "y")
    steps = np.array(track.steps)
    rate = f"{recording.fps:.6f}"
    values = (rate, rate, len(steps), len(MARKERS), "mm", rate, int(track.frame[0]), len(steps))
    axes = [f"{axis}{number}" for number in range(1, len(MARKERS) + 1) for axis in "XYZ"]
    head = [
        ["PathFileType", "4", "(X/Y/Z)", path.name],
        _HEADER,
        map(str, values),
        ["Frame#", "Time", *(cell for name in MARKERS for cell in (name, "", ""))],
        ["", "", *axes],
        [],
    ]
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for line in head:
            print(*line, sep="\t", file=file)
        numbers = recording.frames.start + steps
        cells = np.column_stack((numbers, recording.time_s(steps), markers.reshape(len(steps), -1)))
        np.savetxt(file, cells, ["%d", "%.6f", *["%.3f"] * (cells.shape[1] - 2)], "\t")
