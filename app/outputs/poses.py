"""Bodies as arrays: `--poses` (all rows of a run in one npz) and `--amass` (one npz a track)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.outputs.atomic_file import written_whole
from app.outputs.base import OutputError, RunInfo
from app.outputs.rows import RowsOutput, Shapes
from app.outputs.spool import ColumnSpool
from app.outputs.world_columns import GIVEN, TURN, ground_of_spool, save_with_world
from pipeline.core.camera import project
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.world import World

ROWS: Shapes = {
    "frame": (np.int64, ()),
    "pts_s": (np.float64, ()),
    "track": (np.int64, ()),
    "score": (np.float32, ()),
    "global_orient": (np.float32, (3,)),
    "body_pose": (np.float32, (69,)),
    "betas": (np.float32, (10,)),
    "transl_m": (np.float32, (3,)),
    "joints_m": (np.float32, (24, 3)),
    "joints_px": (np.float32, (24, 2)),
    "landmarks_m": (np.float32, (33, 3)),
    "landmarks_px": (np.float32, (33, 2)),
    "joint_visibility": (np.float32, (24,)),
}
"""The columns of `--poses`."""
_AMASS_ROWS = (
    "frame", "pts_s", "track", "global_orient", "body_pose", "betas", "transl_m",
    "joint_visibility",
)  # fmt: skip
TRACKS = "tracks"
"""The name of `AmassOutput`'s rows in its folder until the track files are written."""
_AMASS_JOINTS = 52
"""SMPL-H's joints, which AMASS writes: SMPL's first 22, then 15 of each hand."""


def body_rows(info: RunInfo, frame: Frame, bodies: Bodies) -> dict[str, np.ndarray]:
    """Return the columns of `--poses`, one row a body; pixels are by the frame's camera."""
    count = len(bodies)
    camera = info.camera(frame)
    return {
        "frame": np.full(count, frame.id, np.int64),
        "pts_s": np.full(count, frame.pts_s, np.float64),
        "track": bodies.track,
        "score": bodies.score,
        "global_orient": bodies.global_orient,
        "body_pose": bodies.body_pose,
        "betas": bodies.betas,
        "transl_m": bodies.transl_m,
        "joints_m": bodies.joints_m,
        "joints_px": project(bodies.joints_m, camera).astype(np.float32),
        "landmarks_m": bodies.landmarks_m,
        "landmarks_px": project(bodies.landmarks_m, camera).astype(np.float32),
        "joint_visibility": bodies.joint_visibility,
    }


def turn_column(info: RunInfo) -> Shapes:
    """Return the column of the camera's turn, where the run has one."""
    return {} if info.turn_of is None else {TURN: (np.float32, (3,))}


def kept_rows(info: RunInfo, frame: Frame, bodies: Bodies) -> dict[str, np.ndarray]:
    """Return `body_rows` with the column of `turn_column`."""
    rows = body_rows(info, frame, bodies)
    if info.turn_of is not None:
        rows[TURN] = np.tile(info.turn_of(frame), (len(bodies), 1))
    return rows


class PosesOutput(RowsOutput):
    """One npz with a row for each body in each frame, ordered by frame, then track.

    The columns are those of ``ROWS`` (metres in the camera frame, axis-angle radians, pixels)
    and, with ``vertices``, ``vertices_m`` (N, V, 3). The file also has ``intrinsics`` (3, 3),
    ``image_size`` (height, width), ``fps`` (NaN where the source has none), ``model`` and, with
    ``vertices``, ``faces`` (F, 3). The columns and arrays of the world are added when the file is
    made (`app.outputs.world_columns`). A run without any frame leaves no file.
    """

    def __init__(self, path: Path, vertices: bool = False) -> None:
        super().__init__(path)
        self.vertices = vertices

    def layout(self, info: RunInfo, bodies: Bodies) -> tuple[Shapes, dict[str, np.ndarray]]:
        shapes = dict(ROWS) | turn_column(info)
        arrays = {"model": np.array(info.model), GIVEN: info.camera_pose.as_array()}
        if self.vertices:
            shapes["vertices_m"] = (np.float32, bodies.vertices_m.shape[1:])
            arrays["faces"] = np.asarray(info.faces, np.int32)
        return shapes, arrays

    def rows(self, info: RunInfo, frame: Frame, bodies: Bodies) -> dict[str, np.ndarray]:
        return {**kept_rows(info, frame, bodies), "vertices_m": bodies.vertices_m}

    def save(self, columns: ColumnSpool) -> None:
        save_with_world(columns, self.path)


class AmassOutput:
    """A folder with ``track_0001.npz`` and so on, laid out as AMASS does (Mahmood et al., ICCV
    2019), for tools that read it.

    ``poses`` (N, 156) is the axis-angle of SMPL-H's 52 joints: SMPL's first 22, and hands at rest
    (SMPL's own two hand joints have no place in it). ``betas`` (10,) are the track's last, which
    come from the most frames; ``trans`` (N, 3) is in metres; ``mocap_framerate``, ``gender`` and
    ``model`` name the rate and the body model. The axes are AMASS's, z up, those of the run's world
    (`app.outputs.world_columns`): ``camera_to_world`` (3, 3), ``world_origin_m`` (3,) and
    ``ground`` say which. ``frame`` and ``pts_s`` (N,) show the gaps of a track,
    ``joint_visibility`` (N, 24) which of SMPL's joints could be seen.
    """

    needs_picture = False
    warnings: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: tuple[Path, ...] = ()
        self._info: RunInfo | None = None
        self._columns: ColumnSpool | None = None

    def open(self, info: RunInfo) -> None:
        self._info = info
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made: {error.strerror}") from None

    def _begin(self, info: RunInfo) -> ColumnSpool:
        shapes = {name: ROWS[name] for name in (*_AMASS_ROWS, "joints_m")} | turn_column(info)
        extra: dict[str, np.ndarray | np.generic] = {
            "fps": np.float64(np.nan if info.fps is None else info.fps),
            "gender": np.str_(info.gender),
            "model": np.str_(info.model),
            GIVEN: info.camera_pose.as_array(),
        }
        # One spool for all tracks, whose number is known at the end only.
        return ColumnSpool(self.folder / TRACKS, shapes, extra)

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert self._info is not None, "write() before open()"
        if len(bodies):
            # Here and not in `open`, so that a run that is killed before leaves nothing.
            if self._columns is None:
                self._columns = self._begin(self._info)
            self._columns.append(kept_rows(self._info, frame, bodies))

    def close(self) -> None:
        columns, self._columns = self._columns, None
        if columns is None:
            return
        with columns.kept_after_errors(self.folder):
            for path in save_tracks(columns, self.folder):
                self.files = (*self.files, path)


def save_tracks(columns: ColumnSpool, folder: Path) -> Iterator[Path]:
    """Write `AmassOutput`'s rows as its files; yield each when written. Raises OutputError."""
    ground = ground_of_spool(columns)
    tracks = np.asarray(columns.read("track"))
    for track in np.unique(tracks):
        path = folder / f"track_{track:04d}.npz"
        rows = np.flatnonzero(tracks == track)
        # One track at a time, so that memory holds no more than the longest one.
        values = {name: columns.read(name)[rows] for name in _AMASS_ROWS}
        pelvis_m = columns.read("joints_m")[rows, 0]
        # The pelvis at rest under the track's last shape: where its rotation's centre lies.
        rest_m = pelvis_m[-1] - values["transl_m"][-1]
        world = ground.world
        if TURN in columns.names:
            world = world.turned(columns.read(TURN)[rows])
        poses, trans = to_amass(
            values["global_orient"], values["body_pose"], pelvis_m, rest_m, world
        )
        fps = columns.extra["fps"]
        try:
            with written_whole(path) as part, part.open("wb") as file:
                np.savez(
                    file,
                    poses=poses,
                    betas=values["betas"][-1],
                    trans=trans,
                    mocap_framerate=np.float64(_rate(values["pts_s"]) if np.isnan(fps) else fps),
                    gender=columns.extra["gender"],
                    model=columns.extra["model"],
                    camera_to_world=ground.world.rotation,
                    world_origin_m=ground.world.origin_m,
                    ground=ground.source,
                    frame=values["frame"],
                    pts_s=values["pts_s"],
                    joint_visibility=values["joint_visibility"],
                )
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
        yield path


def to_amass(
    global_orient: np.ndarray,
    body_pose: np.ndarray,
    pelvis_m: np.ndarray,
    rest_m: np.ndarray,
    world: World,
) -> tuple[np.ndarray, np.ndarray]:
    """Return AMASS's ``poses`` (N, 156) and ``trans`` (N, 3) of SMPL's pose in the camera frame.

    SMPL turns the body about its resting pelvis before it adds ``trans``, so turning the axes moves
    the pelvis instead of ``trans``.

    Args:
        global_orient: Axis-angle (N, 3), radians.
        body_pose: Axis-angle (N, 69), radians.
        pelvis_m: The pelvis (N, 3) in the camera frame, metres.
        rest_m: The pelvis joint (3,) of the shape at rest, metres.
        world: The axes, z up.
    """
    poses = np.zeros((len(global_orient), 3 * _AMASS_JOINTS))
    poses[:, :3], trans = world.body(global_orient, pelvis_m - rest_m, pelvis_m)
    # Without SMPL's two hand joints, which SMPL-H does not have.
    poses[:, 3:66] = body_pose[:, :63]
    return poses, trans


def _rate(pts_s: np.ndarray) -> float:
    """Return the frames a second of times; 30 for a single frame."""
    steps = np.diff(pts_s)
    # The median, because a track has gaps.
    return float(1 / np.median(steps)) if len(steps) and np.median(steps) > 0 else 30.0
