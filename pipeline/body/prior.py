"""The pose prior: a Gaussian around a relaxed pose, and soft limits of SMPL's joints.

Both act on the rotation vector phi = log(R) of each joint relative to its parent, in radians, along
SMPL's axes at rest (x to the person's left, y up, z to the front). The ranges follow clinical
goniometry (American Academy of Orthopaedic Surgeons, Joint Motion, 1965), wider where SMPL shares a
motion between joints. The signs of the hinges are as in SMPLify (Bogo et al., ECCV 2016).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.core.skeleton import JOINT_NAMES

_D = math.pi / 180.0

# joint: (mean x, y, z), (sigma x, y, z), (lowest x, y, z), (highest x, y, z), in degrees.
# Left side only; on the right side y and z change their signs.
_TABLE = {
    "spine1": ((0, 0, 0), (20, 12, 10), (-25, -25, -20), (45, 25, 20)),
    "spine2": ((0, 0, 0), (15, 12, 10), (-20, -25, -20), (35, 25, 20)),
    "spine3": ((0, 0, 0), (12, 12, 10), (-15, -20, -15), (25, 20, 15)),
    "neck": ((0, 0, 0), (20, 25, 15), (-35, -45, -30), (35, 45, 30)),
    "head": ((0, 0, 0), (20, 25, 15), (-30, -40, -25), (30, 40, 25)),
    "left_hip": ((0, 0, 0), (45, 25, 22), (-130, -60, -45), (40, 60, 65)),
    "left_knee": ((15, 0, 0), (60, 6, 6), (-3, -12, -12), (150, 12, 12)),
    "left_ankle": ((0, 0, 0), (22, 12, 12), (-45, -30, -30), (50, 30, 30)),
    "left_foot": ((0, 0, 0), (8, 4, 4), (-30, -10, -10), (30, 10, 10)),
    "left_collar": ((0, 0, 0), (8, 12, 10), (-25, -30, -15), (25, 30, 35)),
    "left_shoulder": ((0, -10, -50), (45, 55, 60), (-130, -150, -115), (130, 80, 110)),
    "left_elbow": ((0, -30, 0), (35, 60, 8), (-90, -155, -15), (90, 4, 15)),
    "left_wrist": ((0, 0, 0), (18, 14, 20), (-50, -35, -75), (50, 35, 75)),
}


def prior_table() -> Tensor:
    """Return mean, deviation, lowest and highest (4, 22, 3) of the rotation vectors, in radians."""
    rows = torch.zeros(22, 4, 3)
    # The pelvis may turn in any way: a deviation without effect, and limits out of reach.
    rows[0, 1] = 1e6
    rows[0, 2], rows[0, 3] = -1e6, 1e6
    for joint in range(1, 22):
        name = JOINT_NAMES[joint]
        mirrored = name.startswith("right_")
        mean, sigma, low, high = torch.tensor(_TABLE[name.replace("right_", "left_")]) * _D
        if mirrored:
            flip = torch.tensor([1.0, -1.0, -1.0])
            mean, low, high = mean * flip, low * flip, high * flip
            # A change of sign exchanges the lowest and the highest.
            low, high = torch.minimum(low, high), torch.maximum(low, high)
        rows[joint] = torch.stack((mean, sigma, low, high))
    return rows.transpose(0, 1).contiguous()


LIMIT_SIGMA = 5 * _D
"""The distance past a limit, in radians, that costs as much as one standard deviation."""


def pose_prior(phi: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Return the prior's residuals and their diagonal Jacobian.

    Args:
        phi: Rotation vectors (B, 22, 3), radians.
        table: `prior_table` on the device of ``phi``.

    Returns:
        Two tensors (B, 2, 22, 3): the residuals of the Gaussian and of the limits, in standard
        deviations, and d(residual)/d(phi). The pelvis may turn freely: its own are negligible.
    """
    mean, sigma, low, high = table.unbind(0)
    gauss = (phi - mean) / sigma
    over = torch.relu(phi - high) - torch.relu(low - phi)
    outside = (over != 0).to(phi.dtype) / LIMIT_SIGMA
    rows = torch.stack((gauss, over / LIMIT_SIGMA), 1)
    return rows, torch.stack(((1.0 / sigma).expand_as(phi), outside), 1)
