"""What a decoded picture carries beside its pixels. Imports FFmpeg only."""

from __future__ import annotations

from enum import Enum
from typing import cast

from av.buffer import Buffer
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame

Matrix = tuple[int, int, int, int]
"""The rotation part (a, b, c, d) of a display matrix."""


def _unknown_side_data(kind: type[Enum], value: int) -> Enum:
    """Return a stand-in for a kind of side data that PyAV's list lacks."""
    stand_in = object.__new__(kind)
    stand_in._name_, stand_in._value_ = f"UNKNOWN_{value}", value
    return stand_in


# FFmpeg knows more kinds of side data than PyAV (EXIF's is 31), and PyAV raises for every frame
# that carries one of them. An enumeration asks `_missing_` for values that it does not know.
SideDataType._missing_ = classmethod(_unknown_side_data)  # type: ignore[method-assign, assignment]


def display_matrix(frame: VideoFrame) -> Matrix | None:
    """Return the rotation part (a, b, c, d) of a frame's display matrix; None without one.

    The values are 16.16 fixed-point numbers, in the host's byte order (FFmpeg,
    libavutil/display.h).
    """
    # Not `frame.side_data`: the frame would hold its container, which holds the frame, and such a
    # circle keeps megabytes until the garbage collector comes.
    container = SideDataContainer(frame)  # type: ignore[call-arg]
    data = cast(Buffer | None, container.get("DISPLAYMATRIX"))
    if data is None:
        return None
    values = memoryview(bytes(data)).cast("i")
    return values[0], values[1], values[3], values[4]
