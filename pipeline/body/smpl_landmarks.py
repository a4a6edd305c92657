"""BlazePose's landmarks on the official SMPL mesh (6890 vertices), whose files hold none."""

from __future__ import annotations

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES

SMPL_VERTICES = 6890

# Published vertex numbers of SMPL's mesh (left, right). Those of fingers and toes are the tips.
_NOSE = 332
_VERTICES = {
    "eye": (2800, 6260),
    "ear": (583, 4071),
    "big_toe": (3216, 6617),
    "small_toe": (3226, 6624),
    "heel": (3387, 6787),
    "thumb": (2746, 6191),
    "index": (2319, 5782),
    "pinky": (2673, 6133),
}
# Each landmark as a weighted sum of named points; "o." marks a point of the other side. The weights
# sum to one. They follow the proportions of the free body, whose landmarks were measured against
# BlazePose's.
_BLENDS: dict[str, dict[str, float]] = {
    "eye_inner": {"eye": 0.77, "o.eye": 0.23},
    "eye_outer": {"eye": 1.12, "o.eye": -0.2, "ear": 0.08},
    "ear": {"ear": 0.78, "eye": 0.22},
    "mouth": {"nose": 1.0, "eye": 0.27, "o.eye": -0.51, "neck": 0.24},
    "index": {"index": 0.38, "pinky": 0.1, "wrist": 0.52},
    "pinky": {"pinky": 0.35, "index": 0.14, "wrist": 0.51},
    "thumb": {"thumb": 0.45, "index": 0.2, "wrist": 0.35},
    # SMPL's hip joints lie closer together and lower than BlazePose's hips.
    "hip": {"hip": 1.02, "o.hip": -0.52, "pelvis": 0.5},
    "ankle": {"ankle": 0.95, "knee": 0.05},
    "heel": {"heel": 0.7, "ankle": 0.3},
    "foot_index": {"big_toe": 0.62, "small_toe": 0.08, "foot": 0.3},
}


def smpl_landmark_regressor(joint_regressor: np.ndarray) -> np.ndarray:
    """Return the regressor (33, 6890) of BlazePose's landmarks from SMPL's vertices.

    Its rows sum to one. Points on the surface are published vertices; the other landmarks are
    blends of these and of joints, so that they lie where BlazePose marks them.

    Args:
        joint_regressor: The model's own (24, 6890).
    """

    def point(name: str, side: int) -> np.ndarray:
        if name == "nose":
            return _row_of(_NOSE)
        if name in _VERTICES:
            return _row_of(_VERTICES[name][side])
        joint = name if name in JOINT_NAMES else f"{('left', 'right')[side]}_{name}"
        return joint_regressor[JOINT_NAMES.index(joint)]

    regressor = np.zeros((len(LANDMARK_NAMES), SMPL_VERTICES))
    for row, landmark in enumerate(LANDMARK_NAMES):
        side = int("right" in landmark)
        part = landmark.replace("left", "").replace("right", "").strip("_").replace("__", "_")
        for name, share in _BLENDS.get(part, {part: 1.0}).items():
            other = name.startswith("o.")
            regressor[row] += share * point(name.removeprefix("o."), side ^ other)
    return regressor


def _row_of(vertex: int) -> np.ndarray:
    """The regressor's row of a single vertex."""
    row = np.zeros(SMPL_VERTICES)
    row[vertex] = 1.0
    return row
