"""Where a camera looked in every frame of a clip, kept small."""

from __future__ import annotations

from array import array

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.core.yuv import Pixels
from pipeline.world.camera_motion import CameraMotion
from pipeline.world.camera_view import SMALLEST_PX, CameraView

_TRANSLATED = 0.1
"""The share of the frames from which on a camera that changes its place is reported."""


class CameraPath:
    """The rotation and zoom of a camera by frame, 28 bytes each.

    Before the first frame that was added it looks where it looked then, and so on after the last.
    """

    def __init__(self) -> None:
        self._frames, self._references = array("q"), array("i")
        self._values = array("f")
        self._copied: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._motion: CameraMotion | None = None
        self._size: tuple[int, int] = (0, 0)
        self._shift = 0
        self._translated = 0
        self.moves = False

    def add(
        self,
        frame: int,
        image: Pixels,
        size: tuple[int, int],
        boxes_px: np.ndarray,
        intrinsics: np.ndarray,
        cut: bool,
    ) -> float:
        """Measure where the camera looks in the next frame.

        Args:
            frame: The frame's number; they rise.
            image: As for `CameraMotion.add`.
            size: Its (height, width), pixels.
            boxes_px: (P, 4) boxes of people, pixels.
            intrinsics: K (3, 3) without zoom, pixels.
            cut: This frame does not continue the one before it.

        Returns:
            The zoom of the frame.
        """
        if min(size) < SMALLEST_PX:
            return self._keep(frame, None)
        if self._motion is None or size != self._size:
            # Another size is another camera, or another crop of its picture.
            self._motion, self._size, cut = CameraMotion(intrinsics, size), size, False
            self._shift = len(self._frames)
        return self._keep(frame, self._motion.add(image, boxes_px, cut))

    def _keep(self, frame: int, view: CameraView | None) -> float:
        self._frames.append(frame)
        if view is None:
            self._values.extend((0.0, 0.0, 0.0, 1.0))
            self._references.append(len(self._references))
            return 1.0
        turn = Rotation.from_matrix(view.rotation).as_rotvec()
        self._values.extend((*turn.tolist(), view.zoom))
        self._references.append(self._shift + view.reference)
        self._translated += view.translated
        self.moves = self.moves or bool(turn.any()) or view.zoom != 1.0
        return view.zoom

    @property
    def warning(self) -> str:
        """One line where the camera changes its place, which is not followed; else nothing."""
        if self._translated <= _TRANSLATED * len(self._frames):
            return ""
        return (
            f"the camera itself moves in {self._translated} of {len(self._frames)} frames; only "
            "its rotation is followed, so places in the world drift there"
        )

    def rotvec(self, frames: np.ndarray) -> np.ndarray:
        """Return the rotations (N, 3) float32, axis-angle, from the camera's axes in frames (N,) to
        those of each one's reference."""
        return self._rows(frames)[:, :3]

    def rotations(self, frames: np.ndarray) -> np.ndarray:
        """Return the rotations (N, 3, 3) float32 of frames (N,), as `rotvec`."""
        turns = self.rotvec(frames)
        if not turns.any():
            return np.broadcast_to(np.eye(3, dtype=np.float32), (len(frames), 3, 3)).copy()
        return Rotation.from_rotvec(turns).as_matrix().astype(np.float32)

    def zoom(self, frames: np.ndarray) -> np.ndarray:
        """Return the focal lengths (N,) float32 of frames (N,), relative to their references'."""
        return self._rows(frames)[:, 3]

    def references(self, frames: np.ndarray) -> np.ndarray:
        """Return the references (N,) of frames (N,): rotations of different ones tell nothing of
        each other."""
        if not len(self._frames):
            return np.zeros(len(frames), np.int32)
        return self._arrays()[2][self._places(frames)]

    def _rows(self, frames: np.ndarray) -> np.ndarray:
        if not len(self._frames):
            return np.tile(np.array([0, 0, 0, 1], np.float32), (len(frames), 1))
        return self._arrays()[1][self._places(frames)]

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames (F,), values (F, 4) and references (F,), copied once for each length."""
        if self._copied is None or len(self._copied[0]) != len(self._frames):
            self._copied = (
                np.array(self._frames, np.int64),
                np.array(self._values, np.float32).reshape(-1, 4),
                np.array(self._references, np.int32),
            )
        return self._copied

    def _places(self, frames: np.ndarray) -> np.ndarray:
        known = self._arrays()[0]
        after = np.searchsorted(known, frames, "right") - 1
        return np.clip(after, 0, len(known) - 1)
