"""What every output is: opened once, given every frame in order, closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Bodies


@dataclass(frozen=True, eq=False)
class RunInfo:
    """What holds for a whole run, known with its first frame.

    ``fps`` is the source's nominal rate, None where it has none; ``width`` and ``height`` pixels
    of the first frame, ``intrinsics`` (3, 3) its camera; ``model`` names the body model the betas
    belong to, ``faces`` (F, 3) are its triangles, ``gender`` neutral, female or male.
    ``intrinsics_of`` gives the camera of a frame of another size. A ``live`` source's frames come
    at their own pace: whoever cannot keep up leaves some out instead of waiting. ``mark`` tells
    clips of one name apart.
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

    def camera(self, frame: Frame) -> np.ndarray:
        """K (3, 3) of a frame, which may be of another size than the first."""
        if self.intrinsics_of is None or frame.size == (self.height, self.width):
            return self.intrinsics
        return self.intrinsics_of(frame)


class OutputClosed(Exception):
    """Nobody reads an output any more: the run ends, and that is no error."""


class OutputError(OSError):
    """An output cannot be written; the message is one line that names it."""


class Output(Protocol):
    """Where frames and bodies go. All calls come from one thread.

    ``open`` is called once, when the first frame is known; ``write`` for every frame in order,
    also with no bodies, ``picture`` being the overlay, RGB uint8 (H, W, 3), where
    ``needs_picture``: it may be kept, nobody changes it any more. ``close`` finishes what was
    written so far: after an error or an interrupt too, twice if need be, also when ``open`` never
    was. ``files`` is what it has written, ``warnings`` what went wrong without ending it, in lines.
    Raises OutputError where writing fails, OutputClosed where nobody reads any more.
    """

    needs_picture: bool

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def open(self, info: RunInfo) -> None: ...

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None: ...

    def close(self) -> None: ...
