"""People measured by SAM 3D Body: MHR's 70 keypoints, points of the skin, and the MHR body itself.

The network is `pipeline.sam3d`, which says how it computes. It reports no confidence: its people
are checked by the landmark model (`pipeline.perception.top_down`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.body.mhr_surface import smpl_rotations
from pipeline.core.people import MhrBody, Person
from pipeline.core.skeleton import MHR_70
from pipeline.perception.blazepose.landmarks import box_around
from pipeline.perception.crops import CropNetwork, CropQuery, in_frame
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.people import MhrPeople

SIGMA_M = 0.034
"""Standard deviation of a keypoint's coordinate. The authors report 54.8 mm a joint on 3DPW's test
set, with the hips aligned, for both backbones (Yang et al., SAM 3D Body, 2025); a mean distance of
d belongs to a deviation of d / 1.6 in each of three coordinates."""


class Sam3dPeople(CropNetwork):
    """SAM 3D Body as a network for crops.

    Args:
        engine: Runs the network.
        intrinsics_of: Returns K (3, 3) of a picture of a height and width.
        mesh: Whether people's MHR bodies have their meshes.
    """

    name = "SAM 3D Body"
    has_confidence = False
    has_mhr = True

    def __init__(
        self,
        engine: Sam3dEngine,
        intrinsics_of: Callable[[tuple[int, int]], np.ndarray],
        mesh: bool = False,
    ) -> None:
        self._engine, self.intrinsics_of = engine, intrinsics_of
        self._faces = engine.network.body.head_pose.faces.cpu().numpy() if mesh else None
        self.reports, self.has_skin = engine.reports, engine.has_skin

    def measure(self, queries: Sequence[CropQuery]) -> list[Person]:
        return self.begin(queries)()

    def begin(self, queries: Sequence[CropQuery]) -> Callable[[], list[Person]]:
        answers = self._engine.begin(*self._inputs(queries))
        # The closure also keeps the frames, which a GPU still reads.
        return lambda: self._persons(queries, answers())

    def measure_with_neighbours(
        self, queries: Sequence[CropQuery], points_px: np.ndarray, labels: np.ndarray
    ) -> list[list[Person]]:
        """Return each query's person, followed by the same in M neighbouring frames.

        Args:
            queries: B of them.
            points_px: (B, M, P, 2) places of prompts in the neighbours, image pixels.
            labels: (B, M, P) which of MHR's 70 keypoints each is, or `NO_PROMPT`.
        """
        found = self._engine.with_neighbours(*self._inputs(queries), points_px, labels)
        times = 1 + labels.shape[1]
        people = self._persons([query for query in queries for _ in range(times)], found)
        return [people[k : k + times] for k in range(0, len(people), times)]

    def _inputs(
        self, queries: Sequence[CropQuery]
    ) -> tuple[list[Any], list[int], np.ndarray, np.ndarray]:
        # Several people are in one frame, which is read once.
        frames = list(dict.fromkeys(query.frame for query in queries))
        return (
            # Where a GPU computes, `prepare` has brought the frames there.
            [frame.image if frame.on_device is None else frame.on_device for frame in frames],
            [frames.index(query.frame) for query in queries],
            np.stack([query.box for query in queries]),
            np.stack([self.intrinsics_of(query.frame.size) for query in queries]),
        )

    def _persons(self, queries: Sequence[CropQuery], found: MhrPeople) -> list[Person]:
        meshes = None if self._faces is None else self._engine.vertices(found)
        return [
            person_of(query, found, k, None if meshes is None else meshes[k], self._faces)
            for k, query in enumerate(queries)
        ]


def person_of(
    query: CropQuery,
    found: MhrPeople,
    row: int,
    vertices_m: np.ndarray | None = None,
    faces: np.ndarray | None = None,
) -> Person:
    """Return the person of one crop.

    Args:
        query: What was asked.
        found: The answers to all queries.
        row: This query's.
        vertices_m: (V, 3) its mesh without the translation; None without one.
        faces: (F, 3) the mesh's triangles.
    """
    points, keypoints_m = found.keypoints_px[row], found.keypoints_m[row]
    translation_m, surface_m = found.translation_m[row], found.surface_m[row]
    seen = in_frame(points, query.frame.size).astype(np.float32)
    hips_m = keypoints_m[list(MHR_70.hips)].mean(0)
    return Person(
        box_px=box_around(points, seen),
        score=1.0,
        landmarks_px=points,
        visibility=seen,
        world_m=keypoints_m - hips_m,
        keypoints=MHR_70,
        world_sigma_m=SIGMA_M,
        mhr=MhrBody(
            found.parameters[row], found.shape[row], translation_m, keypoints_m + translation_m,
            points, found.scale[row],
            None if vertices_m is None else vertices_m + translation_m, faces,
        ),
        surface_m=surface_m - hips_m if len(surface_m) else None,
        start_rotations=smpl_rotations(found.joint_rotations[row]),
    )  # fmt: skip
