"""InstantHMR: 70 joints in 2D and 3D, and the rig's parameters, from a crop of one person.

Everything here is read from the authors' repository (github.com/mohamdev/InstantHMR: README,
``models/README.md``, the pages on architecture and annotation, ``instanthmr/inference.py``
at 6f841fc; ``instanthmr_distill_train/README.md`` at 4f626fd; ``tools/pth_to_onnx.py`` and
``benchmark/README.md`` at 0edf74d):

- ``image`` (N, 3, S, S): RGB, normalised as ImageNet; S is 224. A square of 1.2 times the longer
  side of the detector's box, bilinear, black beyond the picture.
- ``cliff_cond`` (N, 3), one of two forms. Files whose metadata has ``cliff_focal`` "true" take
  angles: atan of the box's middle over the focal length, across and down, and the box's longer
  side over the focal length. All others take the middle in [-1, 1] of the whole picture and the
  longer side over the picture's longer side, without a camera.
- ``mhr_params`` (N, 204) and ``shape_params`` (N, 45): Momentum Human Rig's pose, scales, identity.
- ``cam_trans`` (N, 3): metres from the camera to the origin of the joints, for a focal length of
  the picture's diagonal (in the first form; in the second for the one that was given).
- ``joints_2d`` (N, 70, 2): in [-1, 1] of the crop, from edge to edge.
- ``joints_3d`` (N, 70, 3): metres, x right, y down, z away, about the body's middle, in the
  camera's axes. Their order is `MHR_70`.

The rig (`pipeline.sam3d.rig`) makes the mesh of ``mhr_params`` and ``shape_params``: centimetres, y
up; with y and z negated it has the axes and the origin of ``joints_3d``
(``instanthmr/mhr_renderer.py``). Where the user has the rig's file, people have points of the skin
and a start for the fit.

Newer exports leave ``joints_3d`` out and derive it from the rig; they are refused. The repository
does not say how sure the network is of a joint or a person, and the network does not either: its
people are checked by the landmark model (`pipeline.perception.top_down`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.body.mhr_surface import smpl_rotations, surface_table
from pipeline.core.people import MhrBody, Person
from pipeline.core.skeleton import MHR_70
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.blazepose.landmarks import box_around
from pipeline.perception.crops import Crop, CropNetwork, CropQuery, in_frame, normalised
from pipeline.perception.onnx_models.session import OnnxError, OnnxModel
from pipeline.perception.top_down import TopDown, make_top_down
from pipeline.sam3d.checkpoint import read_rig
from pipeline.sam3d.posed import PosedPeople, PosedRig
from pipeline.sam3d.release import find_rig
from pipeline.weights import store as weights

GROWTH = 1.2
"""The crop's side over the box's."""
SIGMA_M = 0.043
"""Standard deviation of a joint's coordinate. The authors report 69.0 mm a joint on 3DPW's test
set, with the hips aligned (``benchmark/README.md`` at 0edf74d, checkpoint b3_s1); a mean distance
of d belongs to a deviation of d / 1.6 in each of three coordinates."""
SURFACE_SIGMA_M = 0.013
"""Standard deviation of a coordinate of a point of the skin: that of SAM 3D Body's points
(`Person.surface_sigma_m`), in proportion of the joints' published errors, 69.0 and 54.8 mm."""
INPUTS = {"image": 4, "cliff_cond": 2}
"""The dimensions of each input."""
OUTPUTS = {
    "mhr_params": (204,),
    "shape_params": (45,),
    "cam_trans": (3,),
    "joints_2d": (70, 2),
    "joints_3d": (70, 3),
}
VARIANTS = ("instanthmr", "instanthmr-apache")
"""Names in the catalog of weights."""


_UNKNOWN_LENS = PerceiverOptions().intrinsics_of


class InstantHmr(CropNetwork):
    """InstantHMR from its ONNX file.

    Args:
        model: The file.
        intrinsics_of: Returns K (3, 3) of a picture of a height and width.
        rig: The MHR rig, where the user has it.

    Raises:
        OnnxError: The file has another interface.
    """

    name = "InstantHMR"
    has_confidence = False

    def __init__(
        self,
        model: OnnxModel,
        intrinsics_of: Callable[[tuple[int, int]], np.ndarray] = _UNKNOWN_LENS,
        rig: PosedRig | None = None,
    ) -> None:
        names = [port.name for port in model.outputs]
        if names == list(OUTPUTS)[:-1]:
            raise OnnxError(
                f"{model.path}: it has no joints_3d (newer exports derive them from the rig, which "
                "is not here); take a file with five outputs"
            )
        inputs = {port.name: len(port.shape) for port in model.inputs}
        if inputs != INPUTS or sorted(names) != sorted(OUTPUTS):
            raise OnnxError(
                f"{model.path} is another network than InstantHMR; see --estimator onnx"
            )
        side = model.inputs[0].shape[-1]
        if side is None or model.inputs[0].shape[-2:] != (side, side):
            raise OnnxError(f"{model.path}: its input is no square of a fixed size")
        self.side, self._model, self._intrinsics_of = side, model, intrinsics_of
        self._rig, self.has_mhr = rig, rig is not None and rig.faces is not None
        self.has_skin = rig is not None and rig.has_skin
        self._names, self._angles = names, model.metadata.get("cliff_focal", "").lower() == "true"
        self.reports = (model.report,) if rig is None else (model.report, rig.report)
        # Also the first run, which takes longer than others.
        shapes = {name: each.shape[1:] for name, each in self._run(*self._blank()).items()}
        if shapes != OUTPUTS:
            raise OnnxError(f"{model.path}: InstantHMR's outputs are {OUTPUTS}, not {shapes}")

    def measure(self, queries: Sequence[CropQuery]) -> list[Person]:
        crops = [Crop.around(query.box, GROWTH, self.side, self.side) for query in queries]
        images = normalised([crop.cut(q.frame.image) for q, crop in zip(queries, crops)])
        conditions = np.stack([self.condition(query.box, query.frame.size) for query in queries])
        found = self._run(images, conditions)
        people = [
            person_of(
                query, crop, {name: each[k] for name, each in found.items()},
                self._intrinsics_of(query.frame.size),
            )
            for k, (query, crop) in enumerate(zip(queries, crops))
        ]  # fmt: skip
        if self._rig is None:
            return people
        posed = self._rig(found["mhr_params"], found["shape_params"])
        return [with_rig(person, posed, k, self._rig.faces) for k, person in enumerate(people)]

    def condition(self, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return the network's second input for a box, (3,) float32.

        Args:
            box: (4,) x0, y0, x1, y1 in pixels with centres at whole numbers.
            size: (H, W) of the picture.
        """
        height, width = size
        # The authors count from the picture's corner.
        x, y = float(box[0] + box[2] + 1) / 2, float(box[1] + box[3] + 1) / 2
        side = float(max(box[2] - box[0], box[3] - box[1]))
        if not self._angles:
            return np.array([2 * x / width - 1, 2 * y / height - 1, side / max(size)], np.float32)
        focal = float(self._intrinsics_of(size)[0, 0])
        across, down = math.atan((x - width / 2) / focal), math.atan((y - height / 2) / focal)
        return np.array([across, down, side / focal], np.float32)

    def _run(self, images: np.ndarray, conditions: np.ndarray) -> dict[str, np.ndarray]:
        given = {"image": images, "cliff_cond": conditions}
        outputs = self._model(*(given[port.name] for port in self._model.inputs))
        return dict(zip(self._names, outputs, strict=True))

    def _blank(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((1, 3, self.side, self.side), np.float32), np.zeros((1, 3), np.float32)


def person_of(
    query: CropQuery, crop: Crop, found: dict[str, np.ndarray], intrinsics: np.ndarray
) -> Person:
    """Return the person of one crop.

    A joint counts as seen where it is in the picture: the network says nothing of it.

    Args:
        query: What was asked.
        crop: The crop that the network read.
        found: The network's outputs of this crop, by name.
        intrinsics: K (3, 3) of the picture, pixels.
    """
    # From [-1, 1], edge to edge, to pixels whose centres are at whole numbers.
    points = crop.in_image((found["joints_2d"] + 1) * crop.width / 2 - 0.5).astype(np.float32)
    seen = in_frame(points, query.frame.size)
    joints_m = found["joints_3d"]
    # Not ``cam_trans``, which is for the camera that the network takes for granted.
    translation_m = placed(joints_m, points, intrinsics)
    return Person(
        box_px=box_around(points, seen.astype(float)),
        score=1.0,
        landmarks_px=points,
        visibility=seen.astype(np.float32),
        world_m=joints_m - joints_m[list(MHR_70.hips)].mean(0),
        keypoints=MHR_70,
        world_sigma_m=SIGMA_M,
        mhr=MhrBody(
            found["mhr_params"], found["shape_params"], translation_m, joints_m + translation_m,
            points,
        ),
        extra={"cam_trans": found["cam_trans"]},
    )  # fmt: skip


def placed(joints_m: np.ndarray, points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return the translation (3,) float32 that puts joints on their points in a picture.

    Args:
        joints_m: (K, 3) metres in the camera's axes.
        points: (K, 2) pixels.
        intrinsics: K (3, 3) pixels.

    Returns:
        The least squares' solution of x - ray z = 0, which is linear.
    """
    rays = (points - intrinsics[:2, 2]) / intrinsics.diagonal()[:2]
    count = len(points)
    system = np.zeros((count, 2, 3))
    system[:, (0, 1), (0, 1)] = 1.0
    system[..., 2] = -rays
    offsets = rays * joints_m[:, 2:] - joints_m[:, :2]
    solution = np.linalg.lstsq(system.reshape(-1, 3), offsets.ravel(), rcond=None)[0]
    return solution.astype(np.float32)


def with_rig(person: Person, posed: PosedPeople, row: int, faces: np.ndarray | None) -> Person:
    """Return a person with what the rig says of its parameters.

    Args:
        person: The person, with an MHR body.
        posed: The rig's answers.
        row: This person's.
        faces: The mesh's triangles.
    """
    body, hips_m = person.mhr, posed.hips_m[row]
    assert body is not None, "`person_of` makes it"
    if posed.vertices_m is not None:
        vertices_m = posed.vertices_m[row] + body.translation_m
        body = replace(body, vertices_m=vertices_m, faces=faces)
    return replace(
        person,
        mhr=body,
        surface_m=None if posed.surface_m is None else posed.surface_m[row] - hips_m,
        surface_sigma_m=SURFACE_SIGMA_M,
        start_rotations=smpl_rotations(posed.joint_rotations[row]),
    )


def make(options: PerceiverOptions) -> TopDown:
    """Return the perceiver that measures people with InstantHMR.

    Raises:
        OnnxError: The file is not there or is not InstantHMR's.
        CheckpointError: The rig's file is there and is not the rig's.
        WeightsError: BlazePose's files, which find the people, are missing.
        RuntimeError: ONNX Runtime or LiteRT is not installed.
    """
    model = OnnxModel(_file(options), options.device, options.engine)
    return make_top_down(InstantHmr(model, options.intrinsics_of, _rig(options)), options)


def _rig(options: PerceiverOptions) -> PosedRig | None:
    """The rig with what is wanted of it; None where nothing is, or there is no file."""
    table = None if options.body is None else surface_table(options.body)
    try:
        path = find_rig(None, options.model_folder)
    except weights.WeightsError:
        return None
    if table is None and not options.mhr_mesh:
        return None
    skin = None if table is None else (table.vertices, table.weights)
    return PosedRig(read_rig(path).to(options.device), skin, options.mhr_mesh)


def _file(options: PerceiverOptions) -> Path:
    """The file that the user names, or one that lies where models are searched."""
    if options.model is not None:
        return options.model
    for name in VARIANTS:
        found = weights.find_optional(name, options.model_folder)
        if found is not None:
            return next(iter(found.values()))
    raise OnnxError(f"InstantHMR's file is not here; {weights.known(VARIANTS[0]).how}")
