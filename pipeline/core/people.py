"""People (what perception sees) and bodies (what the fit makes of it). Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A person's soft mask over a region of the image.

    ``values`` (h, w) float32 in [0, 1]; ``to_image`` (2, 3) float32 takes mask pixel coordinates
    (x, y, 1) to image pixels (pixel centres at whole numbers in both).
    """

    values: np.ndarray
    to_image: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One person in one frame, as perceived.

    ``box_px`` (4,) float32 x0, y0, x1, y1 around the visible person; ``score`` in [0, 1];
    ``landmarks_px`` (33, 2) float32 image pixels; ``visibility`` (33,) float32 in [0, 1];
    ``world_m`` (33, 3) float32 metres, origin between the hips, axes as the camera's (x right,
    y down, z forward). ``roi`` is the id by which the perceiver follows this person from
    frame to frame, -1 where it does not. ``map_depth`` is what a depth map says at the hips, along
    z and in the map's own units, ``root_depth_m`` the pelvis's distance that follows from it
    (`pipeline.tracking.depth_scale`); None without one.
    """

    box_px: np.ndarray
    score: float
    landmarks_px: np.ndarray
    visibility: np.ndarray
    world_m: np.ndarray
    mask: Mask | None = None
    roi: int = -1
    map_depth: float | None = None
    root_depth_m: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Bodies:
    """The fitted bodies of one frame, P rows (P may be 0), in the camera frame (OpenCV axes).

    ``track`` (P,) int64; ``score`` (P,) float32 in [0, 1]; SMPL parameters as axis-angle radians
    ``global_orient`` (P, 3), ``body_pose`` (P, 69), ``betas`` (P, 10), ``transl_m`` (P, 3);
    ``joints_m`` (P, 24, 3), ``landmarks_m`` (P, 33, 3) and ``vertices_m`` (P, V, 3); all float32.
    """

    track: np.ndarray
    score: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    transl_m: np.ndarray
    joints_m: np.ndarray
    landmarks_m: np.ndarray
    vertices_m: np.ndarray

    def __len__(self) -> int:
        return len(self.track)
