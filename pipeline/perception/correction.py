"""Carries a network's corrections of BlazePose from measured frames to others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.core.camera import view_rotation
from pipeline.core.people import Person, as_blazepose
from pipeline.core.skeleton import BLAZEPOSE_33, blazepose_order

DRIFT_M = 0.03
"""The standard deviation of what changes in BlazePose's errors between frames, as assumed."""


@dataclass(frozen=True, eq=False)
class Correction:
    """The difference between a measured person and BlazePose's of the same frame.

    BlazePose's errors last longer than a frame, so most of the difference is that of the frames
    around it, too (docs/results/reuse.md).

    Attributes:
        world_m: Of the world landmarks (33, 3), in the camera's axes.
        moved: Of the landmarks in the image (33, 2), in parts of the person's height in the image.
        known: (33,) bool, the landmarks that the network reports.
        sigma_m: The standard deviation that the network states.
    """

    world_m: np.ndarray
    moved: np.ndarray
    known: np.ndarray
    sigma_m: float

    @classmethod
    def of(cls, seen: Person, measured: Person, intrinsics: np.ndarray) -> Correction:
        """Return the correction of one frame.

        Args:
            seen: BlazePose's person, with world landmarks.
            measured: The network's, with metric joints.
            intrinsics: K (3, 3), pixels.
        """
        points = as_blazepose(measured)
        assert points.world_m is not None
        assert points.world_sigma_m is not None
        # The network says where all its points are, also those outside of the picture.
        _, known = blazepose_order(measured.keypoints)
        return cls(
            points.world_m - _turned_m(seen, intrinsics),
            (points.landmarks_px - seen.landmarks_px) / _height_px(seen),
            known,
            points.world_sigma_m,
        )

    def applied(self, seen: Person, intrinsics: np.ndarray) -> Person:
        """Return BlazePose's person of another frame as a metric one.

        A landmark that the network does not report counts as not seen: BlazePose's is of another
        size than the corrected ones.

        Args:
            seen: The person, with world landmarks.
            intrinsics: K (3, 3), pixels.
        """
        world_m = _turned_m(seen, intrinsics) + self.world_m
        world_m = world_m - world_m[list(BLAZEPOSE_33.hips)].mean(0)
        moved_px = self.moved * _height_px(seen)
        return replace(
            seen,
            landmarks_px=(seen.landmarks_px + moved_px).astype(np.float32),
            visibility=np.where(self.known, seen.visibility, 0).astype(np.float32),
            world_m=world_m.astype(np.float32),
            world_sigma_m=float(np.hypot(self.sigma_m, DRIFT_M)),
        )


def _turned_m(seen: Person, intrinsics: np.ndarray) -> np.ndarray:
    """BlazePose's world landmarks (33, 3) in the camera's axes."""
    assert seen.world_m is not None
    return np.asarray(seen.world_m @ view_rotation(seen.landmarks_px, intrinsics).T)


def _height_px(seen: Person) -> float:
    return max(float(np.ptp(seen.landmarks_px[:, 1])), 1.0)
