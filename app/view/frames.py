"""Bodies for the 3D view: a message a frame of a live source, a file for a recording.

A body is a row of `ROW` float32 numbers: the axis-angles of SMPL's 24 joints (72), the betas (10)
and the joints in the camera's axes in metres (72). Joints are sent beside the rotations, so that
the skeleton of any body model can be shown without that model.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from app.exports.recording import Recording
from app.view.body import MODEL
from app.view.container import pack
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.world import World
from render.palette import COLORS

ROW = 72 + 10 + 72
_HEAD = struct.Struct("<dII")
"""The frame's time in seconds, its number and its people."""


def frame_message(frame: Frame, bodies: Bodies) -> bytes:
    """Return a frame's message: 16 bytes, then int32 tracks (P,) and float32 rows (P, `ROW`),
    little-endian."""
    rows = _rows(bodies.global_orient, bodies.body_pose, bodies.betas, bodies.joints_m)
    head = _HEAD.pack(frame.pts_s, frame.id, len(bodies))
    return head + bodies.track.astype("<i4").tobytes() + rows.tobytes()


def scene(
    model: str, intrinsics: np.ndarray, size: tuple[int, int], world: World | None = None
) -> dict[str, Any]:
    """Return what the page needs before the first frame, for JSON.

    Args:
        model: The name of the body model.
        intrinsics: The camera K (3, 3), pixels.
        size: The picture's (height, width), pixels.
        world: Where up is; by default the camera is level.
    """
    world = world or World()
    return {
        "model": model,
        # The mesh of any other model is licensed to the person who fetched it.
        "mesh": model == MODEL,
        "height": size[0],
        "width": size[1],
        "intrinsics": np.asarray(intrinsics, np.float64).tolist(),
        "camera_to_world": world.axes("y").tolist(),
        "camera_m": world.points(np.zeros(3), "y").tolist(),
        "colors": COLORS,
    }


def recording_file(recording: Recording) -> bytes:
    """Return a recording as the page's file (`container.pack`).

    Its header is that of `scene` with ``fps``. The arrays hold a row for each body, ordered by
    frame: ``rows`` float32 (N, `ROW`) and ``track`` int32 (N,). ``frame`` int32 and ``pts_s``
    float64 (F,) are those of the frames with people, and ``row`` int32 (F + 1,) gives each frame's
    first row.
    """
    tracks = recording.tracks
    frame = np.concatenate([track.frame for track in tracks])
    order = np.argsort(frame, kind="stable")
    frames, first = np.unique(frame[order], return_index=True)
    rows = np.concatenate(
        [
            _rows(track.global_orient, track.body_pose, track.frame_betas, track.joints_m)
            for track in tracks
        ]
    )
    pts_s = np.concatenate([track.pts_s for track in tracks])[order][first]
    track = np.repeat([track.id for track in tracks], [len(track.frame) for track in tracks])
    arrays: dict[str, np.ndarray] = {
        "pts_s": pts_s.astype(np.float64),
        "frame": frames.astype(np.int32),
        "row": np.append(first, len(frame)).astype(np.int32),
        "track": track[order].astype(np.int32),
        "rows": rows[order],
    }
    header = {
        **scene(recording.model, recording.intrinsics, recording.size, recording.world),
        "fps": recording.fps,
    }
    return pack(header, arrays)


def _rows(
    global_orient: np.ndarray, body_pose: np.ndarray, betas: np.ndarray, joints_m: np.ndarray
) -> np.ndarray:
    """The rows (N, `ROW`) of N bodies, little-endian float32."""
    parts = (global_orient, body_pose, betas, joints_m.reshape(len(joints_m), 72))
    return np.concatenate(parts, axis=1).astype("<f4")
