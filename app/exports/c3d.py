"""C3D (c3d.org): markers over time in the binary format of motion laboratories, through ezc3d."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from app.exports.markers import MARKERS, markers_mm
from app.exports.recording import ExportError, Recording, Track
from app.outputs.atomic_file import written_whole
from pipeline.core.problem import printable

_MOST_FRAMES = 65535
"""C3D counts frames by 16 bits."""
_BYTES = 4
"""Of a number in it."""


def load_ezc3d() -> Any:
    """Return the package that writes C3D. Raises ExportError where it is not installed."""
    try:
        import ezc3d
    except ImportError as error:
        raise ExportError(f"C3D needs ezc3d ({error}): pip install 'bodystream[export]'") from None
    return ezc3d


def check_name(folder: Path) -> None:
    """Raise ExportError where ezc3d cannot write into a folder: it takes names in UTF-8 alone."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise ExportError(
            f"{printable(str(folder))}: C3D needs a folder with a name in UTF-8; give another one"
        ) from None


def length_problem(track: Track) -> str:
    """Return why C3D cannot hold a track of this length, nothing where it can."""
    if len(track.steps) <= _MOST_FRAMES:
        return ""
    return (
        f"C3D counts at most {_MOST_FRAMES} frames, and track {track.id} has {len(track.steps)}; "
        "TRC has no such limit"
    )


def write(recording: Recording, track: Track, path: Path) -> None:
    """Write one person's markers as a C3D file: millimetres, z up, a frame a step of even time.

    The points of a step without a row are invalid: their residual is -1.

    Raises:
        ExportError: ezc3d is not installed, or the track is longer than C3D allows.
        OSError: The file cannot be written.
    """
    if problem := length_problem(track):
        raise ExportError(f"{path}: {problem}")
    markers = markers_mm(track, recording.world, "z")
    c3d = load_ezc3d().c3d()
    seen = ~np.isnan(markers[..., 0]).T
    points = np.ones((4, len(MARKERS), len(markers)))
    points[:3] = np.nan_to_num(markers).transpose(2, 1, 0)
    c3d["data"]["points"] = points
    c3d["data"]["meta_points"]["residuals"] = np.where(seen, 0.0, -1.0)[None]
    c3d.add_parameter("POINT", "UNITS", ["mm"])
    c3d.add_parameter("POINT", "RATE", [recording.fps])
    c3d.add_parameter("POINT", "LABELS", list(MARKERS))
    c3d.add_parameter("POINT", "X_SCREEN", ["+X"])
    c3d.add_parameter("POINT", "Y_SCREEN", ["+Z"])
    # Numbers of 32 bits: C3D's whole ones have 16.
    c3d.add_parameter("BODYSTREAM", "FIRST_FRAME", [float(track.frame[0])])
    c3d.add_parameter("BODYSTREAM", "FIRST_TIME_S", [float(recording.time_s(track.step[0]))])
    # In a folder of its own, because ezc3d ends every name in .c3d.
    with written_whole(path) as part, TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        made = Path(folder, "markers.c3d")
        c3d.write(str(made))
        # ezc3d does not say that a disk is full.
        if made.stat().st_size < points.size * _BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        made.replace(part)
