"""The four MHR bodies that MHR's repository publishes as outputs of SAM 3D Body, as people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.body.mhr_surface import smpl_rotations
from pipeline.core.npz import read_npz
from pipeline.core.people import Person, as_blazepose
from pipeline.core.skeleton import MHR_70

PUBLISHED = Path(__file__).parents[1] / "pipeline" / "fitting" / "mhr_outputs.npz"


@dataclass(frozen=True, eq=False)
class Published:
    """What is kept of them (`tools.map_mhr_surface.make`).

    Attributes:
        people: The four people.
        intrinsics: (3, 3) their camera's K in pixels.
        check_m: (4, K, 3) metres in the camera's axes: points of the skin that are not in
            `Person.surface_m`, but between them.
        check_vertices: (K,) the free body's vertices that are the same points.
    """

    people: list[Person]
    intrinsics: np.ndarray
    check_m: np.ndarray
    check_vertices: np.ndarray


def published_bodies(surface: str = "surface_m") -> Published:
    """Return the bodies, with the points for the free body or (``smpl_surface_m``) for SMPL's."""
    arrays = read_npz(PUBLISHED)
    people = []
    for k, keypoints_m in enumerate(arrays["keypoints_m"]):
        hips_m = keypoints_m[list(MHR_70.hips)].mean(0)
        pixels = arrays["keypoints_px"][k]
        person = Person(
            box_px=np.concatenate((pixels.min(0), pixels.max(0))),
            score=1.0,
            landmarks_px=pixels,
            visibility=np.ones(len(pixels), np.float32),
            world_m=keypoints_m - hips_m,
            keypoints=MHR_70,
            world_sigma_m=0.02,
            surface_m=arrays[surface][k] - hips_m,
            start_rotations=smpl_rotations(arrays["joint_rotations"][k]),
        )
        people.append(as_blazepose(person))
    return Published(
        people, arrays["intrinsics"], arrays["check_m"], arrays["check_vertices"].astype(int)
    )
