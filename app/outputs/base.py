"""The protocol of an output: opened once, given every frame in order, closed in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.world.camera_pose import CameraPose


@dataclass(frozen=True, eq=False)
class RunInfo:
    """The facts of a whole run, known with its first frame.

    Attributes:
        source: The source's name.
        fps: The source's nominal rate in frames a second, None where it has none.
        width: Of the first frame, in pixels.
        height: Of the first frame, in pixels.
        intrinsics: The camera K (3, 3) of the first frame, in pixels.
        model: The name of the body model that the betas belong to.
        faces: The model's triangles (F, 3).
        gender: neutral, female or male.
        intrinsics_of: Returns the camera of a frame: it may be of another size, or zoomed.
        live: Whether frames come at their own pace: an output that cannot keep up leaves some out
            instead of waiting.
        mark: Distinguishes clips of the same name.
        camera_pose: What was given of the camera's pose.
        turn_of: Returns the rotation (3,), axis-angle, from a frame's camera axes to those of the
            first frame after the last cut; None for a camera that stood still, or was not watched.
    """

    source: str
    fps: float | None
    width: int
    height: int
    intrinsics: np.ndarray
    model: str
    faces: np.ndarray
    gender: str
    intrinsics_of: Callable[[Frame], np.ndarray] | None = None
    live: bool = False
    mark: str = ""
    camera_pose: CameraPose = CameraPose()
    turn_of: Callable[[Frame], np.ndarray] | None = None

    def camera(self, frame: Frame) -> np.ndarray:
        """Return the camera K (3, 3) of a frame, which may be of another size than the first."""
        return self.intrinsics if self.intrinsics_of is None else self.intrinsics_of(frame)


class OutputClosed(Exception):
    """The reader of an output has left: the run ends, and that is no error."""


class OutputError(OSError):
    """An output cannot be written; the message is one line that names it."""


class Output(Protocol):
    """A destination of frames and bodies. All calls come from one thread.

    An entry in `app.outputs.catalog` gives a class of this protocol its flag and its key in a
    profile. It raises OutputError where writing fails, OutputClosed where its reader has left.

    Attributes:
        needs_picture: Whether ``write`` needs the overlay.
        takes_planes: May be left out. Whether the overlay may be a `YuvImage`, which it is where a
            GPU draws and no output needs RGB; else it is RGB uint8 (H, W, 3).
    """

    needs_picture: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files written so far."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The errors that did not end the output, a line each."""

    def open(self, info: RunInfo) -> None:
        """Begin. Called once, when the first frame is known."""

    def write(self, frame: Frame, bodies: Bodies, picture: Any) -> None:
        """Write one frame. Called for every frame in order.

        Args:
            frame: The frame.
            bodies: Its bodies, which may be none.
            picture: The overlay where the output needs it, else None. It may be kept: it is never
                changed afterwards.
        """

    def close(self) -> None:
        """Finish what was written so far.

        Called after an error or an interrupt too, possibly twice, and possibly without ``open``.
        """
