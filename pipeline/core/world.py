"""World axes for files and views: the rotation and the origin that make up be up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Up = Literal["y", "z"]

# From a world with z up to one with y up: x stays, z becomes y, forward becomes -z.
_FROM_Z_UP = {"z": np.eye(3), "y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
_LOOKS_DOWN = 1e-3


def camera_to_world(up: Up = "z") -> np.ndarray:
    """Return the rotation (3, 3) float64 from OpenCV's camera axes to those of a right-handed
    world, for a level camera.

    Camera x (right) stays x. With z up, y is the camera's forward; with y up, z points from the
    scene to the camera. `World` is the same for a camera of any pose.

    Args:
        up: The world's axis that points up: y as in Blender's BVH, glTF and OpenSim, z as in AMASS.
    """
    return World().axes(up)


@dataclass(frozen=True, eq=False)
class World:
    """Right-handed axes with an origin: a camera point p is ``rotation @ (p - origin_m)`` there.

    By default those of a level camera whose centre is the origin. Of a moving camera each row may
    have a rotation and an origin of its own.

    Attributes:
        rotation: (3, 3) or (N, 3, 3) float64, from OpenCV's camera axes to a world with z up.
        origin_m: (3,) or (N, 3) float64, the world's origin in the camera's axes, metres.
    """

    rotation: np.ndarray = field(
        default_factory=lambda: np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    )
    origin_m: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def turned(self, rotvec: np.ndarray) -> World:
        """Return the world for rows of a camera that turned about its centre.

        Args:
            rotvec: Axis-angle (N, 3), radians, from the camera's axes in each row to those of this
                world's rotation and origin.
        """
        from scipy.spatial.transform import Rotation

        turn = Rotation.from_rotvec(np.asarray(rotvec, np.float64)).as_matrix()
        return World(self.rotation @ turn, np.einsum("nij,i->nj", turn, self.origin_m))

    @property
    def camera_m(self) -> np.ndarray:
        """The camera's centre in the world with z up, (3,) or (N, 3) metres."""
        return np.asarray(-np.einsum("...ij,...j->...i", self.rotation, self.origin_m))

    def axes(self, up: Up = "z") -> np.ndarray:
        """Return the rotation (3, 3) or (N, 3, 3) float64 to the world with that axis up."""
        return np.asarray(_FROM_Z_UP[up] @ self.rotation)

    def points(self, points_m: np.ndarray, up: Up = "z") -> np.ndarray:
        """Return camera points in the world.

        Args:
            points_m: (..., 3) metres; (N, K, 3) where each row has a rotation of its own.
            up: The world's axis that points up.

        Returns:
            The same shape, float64 metres.
        """
        apart_m = np.asarray(points_m, np.float64) - self.origin_m[..., None, :]
        # Of a single point too: the axis that was added for rows of points goes again.
        turned = apart_m @ self.axes(up).swapaxes(-1, -2)
        return turned.reshape(np.shape(points_m))

    def rotations(self, rotvec: np.ndarray, up: Up = "z") -> np.ndarray:
        """Return rotations against the camera's axes as rotations against the world's.

        Args:
            rotvec: Axis-angle (N, 3), radians.
            up: The world's axis that points up.

        Returns:
            Axis-angle (N, 3) float64, radians.
        """
        from scipy.spatial.transform import Rotation

        turn = Rotation.from_matrix(self.axes(up))
        return np.asarray((turn * Rotation.from_rotvec(rotvec)).as_rotvec())

    def body(
        self, global_orient: np.ndarray, transl_m: np.ndarray, pelvis_m: np.ndarray, up: Up = "z"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return SMPL's ``global_orient`` (N, 3) and ``transl`` (N, 3) of bodies in the world.

        SMPL turns a body about its resting pelvis before it adds ``transl``. So the pelvis is what
        the world moves, and ``transl`` is the way to it from the resting pelvis.

        Args:
            global_orient: Axis-angle (N, 3) in the camera's axes, radians.
            transl_m: (N, 3) in the camera's axes, metres.
            pelvis_m: The posed pelvis joint (N, 3) in the camera's axes, metres.
            up: The world's axis that points up.
        """
        rest_m = np.asarray(pelvis_m, np.float64) - transl_m
        pelvis_m = self.points(np.asarray(pelvis_m)[:, None], up)[:, 0]
        return self.rotations(global_orient, up), pelvis_m - rest_m


def world_from_up(up: np.ndarray, camera_height_m: float = 0.0) -> World:
    """Return the world of a camera by the direction that is up in its axes.

    Its origin is straight below the camera, and y is the camera's forward direction along the
    floor. Of a camera that looks straight down it is the direction of the picture's upper edge.

    Args:
        up: Unit vector (3,) in OpenCV's camera axes.
        camera_height_m: The camera's height above the world's origin, metres.
    """
    up = np.asarray(up, np.float64)
    forward = np.array([0.0, 0.0, 1.0])
    along = forward - (forward @ up) * up
    if np.linalg.norm(along) < _LOOKS_DOWN:
        # Straight up it is that of the lower edge: what both are near to.
        down = np.array([0.0, np.sign(forward @ up), 0.0])
        along = down - (down @ up) * up
    along = along / np.linalg.norm(along)
    return World(np.stack((np.cross(along, up), along, up)), -camera_height_m * up)
