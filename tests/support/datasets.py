"""3DPW and EMDB as they are published, small and made up; an estimator that returns a script."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pipeline.core.people import Bodies
from pipeline.runtime.estimator import DetectedWindow

SIZE = (96, 128)
"""The (height, width) of the pictures."""
LENS = np.array([[150.0, 0, 66.0], [0, 148.0, 45.0], [0, 0, 1]])
"""A camera as datasets have them: no square pixels, and its centre beside the image's middle."""

_Pickler: Any = vars(pickle)["_Pickler"]


class _Python2Pickler(_Pickler):
    """Writes what Python 2 wrote at protocol 2: text and the bytes of arrays are its ``str``."""

    dispatch = dict(_Pickler.dispatch)

    def _save_str(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(data)) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _save_str


def python2_pickle(value: Any) -> bytes:
    """Return a pickle as Python 2 and its numpy wrote it."""
    out = io.BytesIO()
    _Python2Pickler(out, 2).dump(value)
    return out.getvalue().replace(b"numpy._core", b"numpy.core")


def a_pose(seed: int = 0) -> np.ndarray:
    """Return joints (24, 3) of a person-sized cloud, the neck above the hips, y up."""
    points = np.random.default_rng(seed).normal(0, 0.15, (24, 3))
    points[[1, 2]] += [0, -0.25, 0]
    points[12] += [0, 0.3, 0]
    return points


def cameras(frames: int) -> np.ndarray:
    """Return the extrinsics (N, 4, 4) of a moving camera whose y is down, people 4 m away."""
    out = np.tile(np.eye(4), (frames, 1, 1))
    for number in range(frames):
        turn = Rotation.from_euler("yx", [3 * number, 180], degrees=True)
        out[number, :3, :3] = turn.as_matrix()
        out[number, :3, 3] = [0.02 * number, 0, 4]
    return out


def in_camera(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Return points (K, 3) of the world in a camera's axes."""
    return points @ camera[:3, :3].T + camera[:3, 3]


def write_pictures(folder: Path, name: str, frames: int, size: tuple[int, int] = SIZE) -> None:
    """Write pictures by a pattern such as ``image_%05d.jpg``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(frames):
        picture = np.full((*size, 3), 10 * number % 250, np.uint8)
        assert cv2.imwrite(str(folder / (name % number)), picture)


def threedpw(joints: list[np.ndarray], **changes: Any) -> dict[str, Any]:
    """Return a sequence's dictionary for actors with these joints (N, 24, 3) in the world."""
    frames, actors = len(joints[0]), len(joints)
    values = {
        "sequence": "downtown_test_00",
        "genders": ["m", "f"][:actors],
        "poses": [np.zeros((frames, 72)) for _ in joints],
        "trans": [np.zeros((frames, 3)) for _ in joints],
        "betas": [np.zeros(10) for _ in joints],
        "jointPositions": [each.reshape(frames, 72) for each in joints],
        "poses2d": [np.ones((frames, 3, 18)) for _ in joints],
        "campose_valid": [np.ones(frames, np.int64) for _ in joints],
        "cam_poses": cameras(frames),
        "cam_intrinsics": LENS,
        "img_frame_ids": np.arange(frames),
        "texture_maps": [],
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def write_threedpw(
    root: Path, values: Mapping[str, Any], name: str = "downtown_test_00", split: str = "test"
) -> Path:
    """Write a sequence with its pictures; return the dataset's folder."""
    (root / "sequenceFiles" / split).mkdir(parents=True, exist_ok=True)
    (root / "sequenceFiles" / split / f"{name}.pkl").write_bytes(python2_pickle(dict(values)))
    frames = len(values["cam_poses"])
    write_pictures(root / "imageFiles" / name, "image_%05d.jpg", frames)
    return root


def emdb(frames: int, **changes: Any) -> dict[str, Any]:
    """Return a sequence's dictionary: one person in SMPL's rest pose who moves along x."""
    values = {
        "gender": "female",
        "name": "P3_27_test",
        "emdb1": True,
        "emdb2": np.bool_(False),
        "n_frames": frames,
        "good_frames_mask": np.ones(frames, bool),
        "camera": {
            "intrinsics": LENS,
            "extrinsics": cameras(frames),
            "width": SIZE[1],
            "height": np.int64(SIZE[0]),
        },
        "smpl": {
            "poses_root": np.zeros((frames, 3)),
            "poses_body": np.zeros((frames, 69)),
            "trans": np.outer(np.arange(frames), [0.05, 0, 0]),
            "betas": np.zeros(10),
        },
        "kp2d": np.zeros((frames, 24, 2)),
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def write_emdb(root: Path, values: Mapping[str, Any], name: str = "27_test") -> Path:
    """Write a sequence of P3 with its pictures; return the dataset's folder."""
    folder = root / "P3" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"P3_{name}_data.pkl").write_bytes(pickle.dumps(dict(values)))
    write_pictures(folder / "images", "%05d.jpg", values["n_frames"])
    return root


class ScriptedEstimator:
    """Returns the bodies of a script: for each frame, pairs of joints (24, 3) and vertices
    (V, 3)."""

    reports = ()

    def __init__(self, script: Mapping[int, list[tuple[np.ndarray, np.ndarray]]], vertices: int):
        self.script, self.device = script, torch.device("cpu")
        self.body = SimpleNamespace(name="scripted", v_template=torch.zeros(vertices, 3))
        self.lens = LENS

    def begin(self):
        return None

    def intrinsics(self, frame):
        return self.lens

    def close(self):
        pass

    def perceive(self, windows, states):
        return [DetectedWindow(window, tuple({} for _ in window.frames)) for window in windows]

    def fit(self, detected, states):
        return [[(frame, self._bodies(frame.id)) for frame in d.window.frames] for d in detected]

    def _bodies(self, frame: int) -> Bodies:
        found = self.script.get(frame, [])
        count, vertices = len(found), len(self.body.v_template)
        shapes = ((3,), (69,), (10,), (3,))
        return Bodies(
            np.arange(count),
            np.ones(count, np.float32),
            *(np.zeros((count, *shape), np.float32) for shape in shapes),
            np.array([joints for joints, _ in found]).reshape(count, 24, 3),
            np.zeros((count, 33, 3), np.float32),
            np.array([mesh for _, mesh in found]).reshape(count, vertices, 3),
            np.ones((count, 24), np.float32),
        )
