"""People measured by SAM 3D Body: MHR's 70 keypoints, points of the skin, and the MHR body itself.

The network is `pipeline.sam3d`, which says how it computes. It reports no confidence: its people
are checked by the landmark model (`pipeline.perception.top_down`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.body.mhr_surface import smpl_rotations, surface_table
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.core.people import MhrBody, Person
from pipeline.core.skeleton import MHR_70
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.blazepose.landmarks import box_around
from pipeline.perception.crops import CropNetwork, CropQuery, in_frame
from pipeline.perception.top_down import TopDown, make_top_down
from pipeline.sam3d.checkpoint import load_sam3d
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.people import MhrPeople
from pipeline.sam3d.release import find_release

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
        self._engine, self._intrinsics_of = engine, intrinsics_of
        self._faces = engine.network.body.head_pose.faces.cpu().numpy() if mesh else None
        self.reports, self.has_skin = engine.reports, engine.has_skin

    def measure(self, queries: Sequence[CropQuery]) -> list[Person]:
        # Several people are in one frame, which is read once.
        frames = list(dict.fromkeys(query.frame for query in queries))
        found = self._engine(
            # Where a GPU computes, `prepare` has brought the frames there.
            [frame.image if frame.on_device is None else frame.on_device for frame in frames],
            [frames.index(query.frame) for query in queries],
            np.stack([query.box for query in queries]),
            np.stack([self._intrinsics_of(query.frame.size) for query in queries]),
        )
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


def make(options: PerceiverOptions) -> TopDown:
    """Return the perceiver that measures people with SAM 3D Body.

    Raises:
        WeightsError: Its files are not there, or BlazePose's, which find the people.
        CheckpointError: A file is not what it should be.
        RuntimeError: A package is not installed.
    """
    files = find_release(options.model, options.model_folder)
    progress = options.on_progress or (lambda name, done, of: None)
    progress(Sam3dPeople.name, 0, 2)
    network = load_sam3d(files, options.device)
    progress(Sam3dPeople.name, 1, 2)
    table = None if options.body is None else surface_table(options.body)
    engine = Sam3dEngine(
        network,
        skin=None if table is None else (table.vertices, table.weights),
        hands=options.sam3d_hands,
        options=options.engine,
    )
    engine.warm_up(WINDOW_FRAMES * options.people)
    progress(Sam3dPeople.name, 2, 2)
    people = Sam3dPeople(engine, options.intrinsics_of, options.mhr_mesh)
    return make_top_down(people, options)
