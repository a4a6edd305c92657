"""The joint sets that the benchmarks' figures are computed on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.core.skeleton import SMPL_24

H36M_JOINTS = 17
LSP_OF_H36M = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""The rows of ``J_regressor_h36m.npy`` (17 joints of Human3.6M) that are the 14 joints of LSP:
right ankle, knee, hip, left hip, knee, ankle, right wrist, elbow, shoulder, left shoulder, elbow,
wrist, neck, top of the head."""


@dataclass(frozen=True)
class JointSet:
    """Joints that are compared together.

    Attributes:
        key: Its name in the keys of figures.
        label: Its name in tables.
        joints: How many there are.
        root: The joints whose mean is moved to the origin before the error is taken.
    """

    key: str
    label: str
    joints: int
    root: tuple[int, ...]

    def aligned(self, points: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """Return points (..., 3) relative to the root of the set's joints (J, 3)."""
        return points - joints[list(self.root)].mean(0)


LSP_14 = JointSet("lsp14", "14 LSP joints, mid-hip", 14, (2, 3))
"""HMR's and SPIN's joints, regressed from SMPL's vertices; aligned as VIBE, WHAM and GVHMR do."""

SMPL_24_PELVIS = JointSet("smpl24", "24 SMPL joints, pelvis", 24, (0,))
"""SMPL's joints, aligned as in the 3DPW challenge's evaluation."""

SMPL_24_HIPS = JointSet("smpl24", "24 SMPL joints, mid-hip", 24, tuple(SMPL_24.hips))
"""SMPL's joints, aligned as in EMDB's evaluation."""
