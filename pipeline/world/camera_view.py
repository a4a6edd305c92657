"""What a camera's motion is measured from, checked, and what is returned of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.core.yuv import Pixels, YuvImage, size_of

SMALLEST_PX = 64
"""The least height and width of a picture."""


@dataclass(frozen=True, eq=False)
class CameraView:
    """Where a camera looks in a frame, relative to its reference frame.

    Attributes:
        rotation: (3, 3) float64, from the camera's axes at this frame to those of the reference.
        zoom: The focal length relative to the reference's.
        still: The camera did not move; the rotation and zoom are exactly those of the frame before.
        translated: Parallax says that the camera changes its place, which rotation and zoom do not
            explain; they are then those that explain most of the picture.
        known: Enough of the background was recognised. Otherwise the rotation and zoom are the
            last that were known.
        error_px: The root mean square of what the motion leaves of the points that it explains, in
            pixels of the picture; infinite where it is not known. Along their gradients, where
            pixels decide.
        explained: The share of the background's points or pixels that it explains, from 0 to 1.
        reference: The index of the reference among the frames that were added: the first with
            enough background after the last cut. It is this frame after a cut, and where the
            background was lost and another one could be followed for ten frames.
    """

    rotation: np.ndarray
    zoom: float
    still: bool
    translated: bool
    known: bool
    error_px: float
    explained: float
    reference: int


def checked_lens(intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return K (3, 3) float64.

    Args:
        intrinsics: K (3, 3), pixels.
        size: (height, width) of the pictures, pixels.

    Raises:
        ValueError: The intrinsics are none of a pinhole camera, or the size is too small.
    """
    lens = np.asarray(intrinsics, float)
    if lens.shape != (3, 3) or not np.isfinite(lens).all():
        raise ValueError(f"intrinsics are finite and (3, 3), not {lens.shape}: {lens.tolist()}")
    if lens[0, 0] <= 0 or lens[1, 1] <= 0 or not np.array_equal(lens[2], (0, 0, 1)):
        raise ValueError(f"intrinsics have focal lengths above 0 and end in 0 0 1: {lens.tolist()}")
    if min(size) < SMALLEST_PX:
        raise ValueError(f"pictures have {SMALLEST_PX} pixels or more a side, not {size}")
    return lens


def checked_boxes(image: Pixels, boxes_px: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """Return people's boxes (P, 4), pixels of the picture.

    Args:
        image: RGB uint8 (H, W, 3), grey uint8 (H, W), or planes.
        boxes_px: (P, 4) boxes x0, y0, x1, y1, or None.
        size: (height, width) that the picture should have, pixels.

    Raises:
        ValueError: The picture is of another size or kind, or a box is none.
    """
    if not isinstance(image, YuvImage) and (
        image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,))
    ):
        raise ValueError(
            f"a picture is RGB uint8 (H, W, 3) or grey (H, W), not {image.dtype} {image.shape}"
        )
    now = size_of(image) if isinstance(image, YuvImage) else image.shape[:2]
    if tuple(now) != tuple(size):
        raise ValueError(f"the pictures were {size} pixels, and this one is {tuple(now)}")
    boxes = np.zeros((0, 4)) if boxes_px is None else np.asarray(boxes_px, float)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"people's boxes are (P, 4), not {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise ValueError("people's boxes are finite numbers of pixels")
    return boxes
