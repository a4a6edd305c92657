"""MHR bodies as arrays: `--mhr`, all rows of a run in one npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.outputs.base import RunInfo
from app.outputs.rows import RowsOutput, Shapes
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

_ROWS: Shapes = {
    "frame": (np.int64, ()),
    "pts_s": (np.float64, ()),
    "track": (np.int64, ()),
    "frame_intrinsics": (np.float64, (3, 3)),
    "smpl_error_m": (np.float32, ()),
}
_BODY: Shapes = {
    "parameters": (np.float32, (204,)),
    "shape": (np.float32, (45,)),
    "scale": (np.float32, (28,)),
    "translation_m": (np.float32, (3,)),
    "keypoints_m": (np.float32, (70, 3)),
    "keypoints_px": (np.float32, (70, 2)),
}
"""Fields of `MhrBody`."""
_MESH = (18439, 3)


class MhrOutput(RowsOutput):
    """One npz with a row for each MHR body in each frame, ordered by frame, then track.

    The columns are those of ``_ROWS`` and ``_BODY`` and, with ``mhr_vertices``, ``vertices_m``
    (N, 18439, 3). The file also has ``intrinsics`` (3, 3) of the first frame, ``image_size``
    (height, width), ``fps`` (NaN where the source has none) and, with ``mhr_vertices``, ``faces``
    (F, 3). A run without any frame leaves no file.
    """

    def __init__(self, path: Path, mhr_vertices: bool = False) -> None:
        super().__init__(path)
        self._has_mesh = mhr_vertices
        self._bodies = self._written = 0

    @property
    def warnings(self) -> tuple[str, ...]:  # type: ignore[override]
        if self._written or not self._bodies:
            return ()
        return (
            f"{self.path}: it has no rows: only --estimator sam3d and instanthmr report MHR bodies",
        )

    def layout(self, info: RunInfo, bodies: Bodies) -> tuple[Shapes, dict[str, np.ndarray]]:
        shapes = _ROWS | _BODY
        if not self._has_mesh:
            return shapes, {}
        mesh = [(body.vertices_m, body.faces) for body in bodies.mhr.values()]
        vertices, faces = mesh[0] if mesh else (np.zeros(_MESH), np.zeros((0, 3)))
        assert vertices is not None, "meshes are asked for where the estimator is made"
        shapes = {**shapes, "vertices_m": (np.float32, vertices.shape)}
        return shapes, {"faces": np.asarray(faces, np.int32)}

    def rows(self, info: RunInfo, frame: Frame, bodies: Bodies) -> dict[str, np.ndarray]:
        # By rising track, as the bodies are.
        found = sorted(bodies.mhr.items())
        self._bodies, self._written = self._bodies + len(bodies), self._written + len(found)
        errors = dict(zip(bodies.track.tolist(), _surface_errors_m(bodies)))
        columns = {
            "frame": [frame.id] * len(found),
            "pts_s": [frame.pts_s] * len(found),
            "track": [track for track, _ in found],
            "frame_intrinsics": [info.camera(frame)] * len(found),
            "smpl_error_m": [errors.get(track, np.nan) for track, _ in found],
            "scale": [_unknown(body.scale, _BODY["scale"][1]) for _, body in found],
        }
        names = [name for name in _BODY if name != "scale"] + ["vertices_m"] * self._has_mesh
        columns |= {name: [getattr(body, name) for _, body in found] for name in names}
        return {name: np.asarray(values) for name, values in columns.items()}


def _unknown(values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, np.nan, np.float32) if values is None else values


def _surface_errors_m(bodies: Bodies) -> np.ndarray:
    """How far each SMPL body's skin is from the MHR body's; NaN where that is not known."""
    if bodies.surface_error_m is None:
        return np.full(len(bodies), np.nan, np.float32)
    return bodies.surface_error_m
