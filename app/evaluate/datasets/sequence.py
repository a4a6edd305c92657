"""A sequence of a dataset: its pictures, its camera, and the true bodies of its people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.evaluate.truth import TruthError
from pipeline.body.model import BodyModel, place_joints
from pipeline.body.rotations import exp_so3


@dataclass(frozen=True, eq=False)
class Actor:
    """A person of a sequence over its N frames.

    Attributes:
        gender: "female", "male" or "neutral": the SMPL model of the truth.
        valid: In which frames the dataset's truth counts (N,), bool.
        pose: Axis-angle rotations of SMPL's joints (N, 72), radians.
        betas: Shape coefficients (10,).
        transl_m: Translation in the world (N, 3), metres.
        to_camera: From the world to the camera's axes (N, 4, 4).
        joints_m: SMPL's joints in the camera's axes (N, 24, 3), metres.
    """

    gender: str
    valid: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    transl_m: np.ndarray
    to_camera: np.ndarray
    joints_m: np.ndarray

    def vertices_m(self, body: BodyModel, frame: int) -> np.ndarray:
        """Return the true mesh of one frame (V, 3) in the camera's axes, metres."""
        pose, transl = (_tensor(array[frame : frame + 1]) for array in (self.pose, self.transl_m))
        betas = _tensor(self.betas[None])
        with torch.inference_mode():
            posed = body(betas, pose[:, :3], pose[:, 3:], transl)
        return in_camera(posed.vertices_m.numpy().astype(np.float64), self.to_camera[[frame]])[0]


@dataclass(frozen=True, eq=False)
class DatasetSequence:
    """A sequence of a dataset.

    Attributes:
        name: Its name in the dataset.
        truth: The file of its truth.
        pictures: The pattern of its pictures, which are numbered from 0, such as
            ``image_%05d.jpg``.
        frames: The number of frames that the truth has.
        intrinsics: K (3, 3), pixels.
        actors: Its people.
        size: The (height, width) of the pictures, where the truth says it.
    """

    name: str
    truth: Path
    pictures: Path
    frames: int
    intrinsics: np.ndarray
    actors: tuple[Actor, ...]
    size: tuple[int, int] | None = None

    def picture(self, number: int) -> Path:
        """Return the file of one picture."""
        return self.pictures.with_name(self.pictures.name % number)

    def check_pictures(self) -> None:
        """Check that every frame of the truth has its picture.

        Raises:
            FileNotFoundError: A picture is missing; a gap would shift all frames after it.
        """
        for number in range(self.frames):
            if not self.picture(number).is_file():
                reason = f"this picture of {self.name} ({self.frames} frames) is missing"
                raise FileNotFoundError(2, reason, str(self.picture(number)))


def in_camera(points_m: np.ndarray, to_camera: np.ndarray) -> np.ndarray:
    """Return points (N, K, 3) of the world in the axes of cameras (N, 4, 4)."""
    rotation, shift = to_camera[:, :3, :3], to_camera[:, None, :3, 3]
    return points_m @ rotation.transpose(0, 2, 1) + shift


def smpl_joints(
    body: BodyModel, pose: np.ndarray, betas: np.ndarray, transl_m: np.ndarray
) -> np.ndarray:
    """Return SMPL's joints (N, 24, 3) in the world, metres.

    Args:
        body: The SMPL model.
        pose: Axis-angle rotations (N, 72), radians.
        betas: Shape coefficients (10,).
        transl_m: Translation (N, 3), metres.
    """
    rest = body.joint_template + torch.einsum("jci,i->jc", body.joint_shapedirs, _tensor(betas))
    with torch.inference_mode():
        rotations = exp_so3(_tensor(pose).view(-1, 24, 3))
        _, joints = place_joints(rotations, rest.expand(len(pose), 24, 3))
    return joints.numpy().astype(np.float64) + transl_m[:, None]


def check_camera(intrinsics: np.ndarray) -> None:
    """Raise TruthError for a matrix that is no pinhole camera's K (3, 3)."""
    focal, centre = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    expected = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
    if not ((focal > 0).all() and np.allclose(intrinsics, expected)):
        raise TruthError("its intrinsics are no pinhole camera's without skew")


def check_valid(valid: np.ndarray, *arrays: np.ndarray) -> None:
    """Raise TruthError where an array has unknown numbers in a valid frame."""
    if not all(np.isfinite(array[valid]).all() for array in arrays):
        raise TruthError("it holds unknown numbers in frames that it calls valid")


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
