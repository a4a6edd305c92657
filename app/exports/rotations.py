"""Rotations of SMPL's joints, and their angles about axes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.skeleton import PARENTS

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation


def joint_rotations(pose: np.ndarray) -> np.ndarray:
    """Return the rotations (N, 24, 3, 3) of SMPL's joints from its rest pose to the world.

    Args:
        pose: Rotation of each joint against its parent, and of the pelvis against the world
            (N, 24, 3), axis-angle, radians.
    """
    from scipy.spatial.transform import Rotation

    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    world = local.copy()
    for joint in range(1, 24):
        world[:, joint] = world[:, PARENTS[joint]] @ local[:, joint]
    return world


def euler_deg(rotations: Rotation, order: str) -> np.ndarray:
    """Return the angles (N, 3) in degrees about an order of turned axes, such as "ZXY".

    Where the first axis and the third coincide, only their sum is known, and the third is 0.
    """
    with warnings.catch_warnings():
        # scipy says that this is so.
        warnings.filterwarnings("ignore", "Gimbal lock", UserWarning)
        return np.asarray(rotations.as_euler(order, degrees=True))


def rest_offsets_m(pose: np.ndarray, joints_m: np.ndarray) -> np.ndarray:
    """Return `Track.rest_offsets_m`, the mean over rows (N, 24, 3) of one shape.

    Each bone is turned back by its parent's rotation, so no body model is needed: a recording of a
    licensed body can be exported where its file is not.
    """
    parents = list(PARENTS[1:])
    bones = joints_m[:, 1:].astype(np.float64) - joints_m[:, parents]
    turn = joint_rotations(pose)[:, parents]
    offsets = np.einsum("njba,njb->nja", turn, bones).mean(0)
    return np.concatenate((np.zeros((1, 3)), offsets))
