"""How a track's joints accelerate, and how far its accelerations vary."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from pipeline.body.kinematics import POSED, Skeleton
from pipeline.body.rotations import log_so3
from pipeline.fitting.track_poses import TrackPoses

AROUND = 3.0
"""Frames at 30 a second over which accelerations are averaged, as a standard deviation."""
LEAST, MOST = 0.05, 1.5
"""Bounds of an acceleration's spread, as parts of the fit's own (`FitConfig.turn_accel_rad`)."""


def resting_pelvis_m(skeleton: Skeleton, betas: Tensor) -> Tensor:
    """Return the pelvis (3,) of a shape (10,) at rest, about which a body turns, in metres."""
    return skeleton.bones[0, :, 0] + skeleton.bones[0, :, 1:] @ betas


def accelerations(poses: TrackPoses, pelvis_m: Tensor, turn: Tensor | None = None) -> Tensor:
    """Return second differences (T - 2, 23, 3): of the pelvis's path in metres, then of rotations.

    With e_t = log(R_{t-1}^T R_t), a rotation's is e_t - e_{t-1}, as in `solver`. That of the path
    is in the camera's axes of its middle frame.

    Args:
        poses: The poses.
        pelvis_m: (3,) the pelvis of the shape at rest, about which a body turns.
        turn: As for `solve_track`.
    """
    path, chain = poses.transl_m, poses.rotations[:, :POSED]
    if turn is not None:
        path = (turn @ (path + pelvis_m)[..., None])[..., 0]
        chain = torch.cat(((turn @ chain[:, 0])[:, None], chain[:, 1:]), 1)
    turned = log_so3(chain[:-1].transpose(-1, -2) @ chain[1:])
    bent = path[2:] - 2 * path[1:-1] + path[:-2]
    if turn is not None:
        bent = (turn[1:-1].transpose(-1, -2) @ bent[..., None])[..., 0]
    return torch.cat((bent[:, None], turned[1:] - turned[:-1]), 1)


def follow_motion(accelerations: Tensor, usual: Tensor, around: float) -> Tensor:
    """Return the standard deviations of accelerations as a motion shows them.

    Each is the root of the mean square about its time, over the axes of its joint, within `LEAST`
    and `MOST` parts of the usual one.

    Args:
        accelerations: (T, 23, 3) second differences: the root's path, then joints' rotations.
        usual: (T, 23, 3) standard deviations for any motion.
        around: The standard deviation of the average over time, in frames.
    """
    squared = accelerations.square()
    # Along the view the root's path is known far worse than across it.
    across = squared[:, :1, :2].mean(-1, keepdim=True).expand(-1, -1, 2)
    turns = squared[:, 1:].mean(-1, keepdim=True).expand(-1, -1, 3)
    root = torch.cat((across, squared[:, :1, 2:]), -1)
    joined = torch.cat((root, turns), 1).cpu().numpy()
    mean = gaussian_filter1d(joined, around, axis=0, mode="nearest")
    spread = torch.from_numpy(np.sqrt(np.maximum(mean, 0.0))).to(usual)
    return torch.minimum(torch.maximum(spread, LEAST * usual), MOST * usual)
