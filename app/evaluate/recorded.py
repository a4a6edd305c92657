"""Read the bodies of a recording, a `--poses` file, so that they are measured as those of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.evaluate.replay import Played
from app.evaluate.truth import Truth, TruthError
from app.evaluate.world import rigid_transforms
from app.exports.recording import ExportError, check
from app.outputs.poses import ROWS
from pipeline.core.npz import read_npz
from pipeline.core.people import Bodies
from pipeline.core.user_file import reading


@dataclass(frozen=True, eq=False)
class RecordedBodies:
    """The bodies of a recording, N rows, one for each body in each frame.

    Attributes:
        name: The file name.
        columns: The arrays of the file; those of `app.outputs.poses.ROWS` are there and are sound,
            and so is ``world_joints_m`` (N, 24, 3), the joints in a world with z up, where the file
            has it.
        size: The (height, width) of the pictures.
        intrinsics: K (3, 3) of the first frame, pixels.
        faces: The mesh's triangles (F, 3); no rows where the file has no vertices.
    """

    name: str
    columns: Mapping[str, np.ndarray]
    size: tuple[int, int]
    intrinsics: np.ndarray
    faces: np.ndarray

    def bodies(self, frame: int) -> tuple[Bodies, np.ndarray]:
        """Return the bodies of one frame, and their landmarks in the image (P, 33, 2), pixels."""
        rows = self._rows(frame)
        vertices = self.columns.get("vertices_m")
        own: dict[str, Any] = {
            name: self.columns[name][rows]
            for name in ROWS
            if name not in ("frame", "pts_s", "joints_px", "landmarks_px")
        }
        own["vertices_m"] = np.zeros((len(rows), 0, 3)) if vertices is None else vertices[rows]
        return Bodies(**own), self.columns["landmarks_px"][rows]

    def _rows(self, frame: int) -> np.ndarray:
        """Return a frame's rows, by track."""
        rows = np.flatnonzero(self.columns["frame"] == frame)
        return rows[np.argsort(self.columns["track"][rows], kind="stable")]

    def frames(self, truth: Truth) -> Iterator[Played]:
        """Yield every frame of the truth's clip with the recorded bodies, in order.

        A frame without a body has no row in the file, so a frame that was not run counts as one in
        which no body was found. Nothing perceived is in the file: the people are empty.

        Args:
            truth: The truth of the clip.

        Raises:
            TruthError: The truth belongs to another clip.
        """
        truth.check_clip(self.name, size=self.size)
        last = int(self.columns["frame"].max(initial=-1))
        if truth.frames is not None and last >= truth.frames:
            raise TruthError(
                f"{truth.name}: of {truth.frames} frames; {self.name} has frame {last}"
            )
        count = truth.frames or max(last, int(truth.frame.max(initial=-1))) + 1
        for frame in range(count):
            bodies, landmarks_px = self.bodies(frame)
            to_world = self._to_world(frame, bodies)
            yield Played(frame, self.size, self.intrinsics, {}, bodies, landmarks_px, to_world)

    def _to_world(self, frame: int, bodies: Bodies) -> tuple[np.ndarray, np.ndarray] | None:
        """Return `Played.to_world`: what takes the bodies' joints to the file's world."""
        if "world_joints_m" not in self.columns or not len(bodies):
            return None
        return rigid_transforms(bodies.joints_m, self.columns["world_joints_m"][self._rows(frame)])


def load_bodies(path: str | Path) -> RecordedBodies:
    """Read a recording.

    Args:
        path: The npz that `run --poses` wrote; with `--vertices`, surfaces are measured too.

    Raises:
        ExportError: It is truncated, or `--poses` did not write it.
        OSError: It cannot be opened.
    """
    path = Path(path)
    with reading(path, " is no recording of --poses", ExportError):
        arrays = read_npz(path)
        check(arrays)
        rows = len(arrays["frame"])
        for name, (dtype, shape) in ROWS.items():
            _check_column(arrays, name, (rows, *shape), np.dtype(dtype).kind)
        if "world_joints_m" in arrays:
            _check_column(arrays, "world_joints_m", (rows, 24, 3), "f")
            if str(arrays.get("world_up", "z")) != "z":
                raise ValueError("world_up is not z")
        if "vertices_m" in arrays:
            vertices = arrays["vertices_m"].shape[1:2]
            _check_column(arrays, "vertices_m", (rows, *vertices, 3), "f")
            _check_column(arrays, "faces", (*arrays.get("faces", np.zeros(0)).shape[:1], 3), "i")
            faces = arrays["faces"]
            if faces.size and not (faces.min() >= 0 and faces.max() < vertices[0]):
                raise ValueError("faces names vertices that it does not have")
    height, width = (int(side) for side in arrays["image_size"])
    faces = arrays["faces"] if "vertices_m" in arrays else np.zeros((0, 3), np.int32)
    return RecordedBodies(
        path.name, arrays, (height, width), np.asarray(arrays["intrinsics"], np.float64), faces
    )


def _check_column(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], kind: str
) -> None:
    if not isinstance(arrays.get(name), np.ndarray):
        raise ValueError(f"it has no {name}")
    array = arrays[name]
    if array.shape != shape or array.dtype.kind != kind:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {shape}")
    if kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has numbers that are not finite")
