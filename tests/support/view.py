"""What the tests of the 3D view share: recordings of the free body, made-up motion whose joints are
the body's own, and a reader of the page's files."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import torch

from pipeline.body.load import load_body
from pipeline.body.model import BodyOutput
from pipeline.core.camera import default_intrinsics
from tests.support.recordings import poses_arrays

FPS = 25.0
"""That of `poses_arrays`."""


def free_body(arrays: dict[str, Any]) -> BodyOutput:
    """The free body in the poses, shapes and places of a recording's rows."""
    names = ("betas", "global_orient", "body_pose", "transl_m")
    return load_body(None)(*(torch.from_numpy(np.asarray(arrays[name])) for name in names))


def posed_arrays(frames: dict[int, list[int]], seed: int = 0) -> dict[str, Any]:
    """The arrays of a `--poses` file of people side by side, each row of its own pose and shape.

    Args:
        frames: The frames of each track.
        seed: Of what is random.
    """
    arrays = poses_arrays(frames, seed=seed)
    rng = np.random.default_rng(seed)
    track = arrays["track"]
    # Upright and facing the camera: SMPL's y is up, the camera's down.
    turned = rng.normal(scale=0.2, size=(len(track), 3)) + [np.pi, 0, 0]
    side = track - np.mean(list(frames))
    place = np.stack([side, np.full(len(track), 0.2), np.full(len(track), 5.0)], axis=1)
    arrays |= {
        "betas": rng.normal(size=(len(track), 10)).astype(np.float32),
        "global_orient": turned.astype(np.float32),
        "transl_m": place.astype(np.float32),
        "image_size": np.array([720, 1280]),
        "intrinsics": default_intrinsics(720, 1280),
    }
    return {**arrays, "joints_m": free_body(arrays).joints_m.numpy()}


def unpacked(data: bytes) -> dict:
    """The header of a file, with its arrays, as the page reads it."""
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    arrays = {
        name: np.frombuffer(data, about["type"], about["count"], about["at"])
        for name, about in header.pop("arrays").items()
    }
    return {**header, **arrays}
