"""Read EMDB (Kaufmann et al., ICCV 2023) as it is published.

The folder holds ``P0`` to ``P9``, with ``PX/NAME/PX_NAME_data.pkl`` and
``PX/NAME/images/00000.jpg``. The truth is SMPL's parameters alone, so the user's SMPL files are
needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.evaluate.datasets.sequence import (
    Actor,
    DatasetSequence,
    check_camera,
    check_valid,
    in_camera,
    smpl_joints,
)
from app.evaluate.datasets.smpl_files import SmplFiles
from app.evaluate.truth import TruthError
from pipeline.core.user_file import reading
from pipeline.weights.array_file import as_numbers, numbers, read_dictionary

SPLITS = ("emdb1", "emdb2", "all")
_GENDERS = ("female", "male", "neutral")


def find(folder: Path, split: str) -> list[Path]:
    """Return the files of a split's sequences, sorted by name; each says itself where it belongs.

    Raises:
        FileNotFoundError: There are none.
        OSError: One cannot be read.
        TruthError: One is no such file, or hostile.
    """
    # A pipe would be waited for.
    files = sorted(path for path in folder.glob("P*/*/P*_data.pkl") if path.is_file())
    chosen = [path for path in files if split == "all" or _is_part(path, split)]
    if not chosen:
        wanted = "P*/*/P*_data.pkl" + (f" of {split}" if files else "")
        raise FileNotFoundError(2, f"no EMDB: it needs {wanted} in there", str(folder))
    return chosen


def _is_part(path: Path, split: str) -> bool:
    with reading(path, error=TruthError):
        value = read_dictionary(path).get(split)
        return bool(value if isinstance(value, bool) else as_numbers(value, split, ()))


def read(path: Path, smpl: SmplFiles) -> DatasetSequence:
    """Read a sequence's file; the pictures are not looked for.

    Raises:
        OSError: It cannot be read.
        TruthError: It is no such file, or hostile, or the body of its gender is missing.
    """
    with reading(path, error=TruthError):
        values = read_dictionary(path)
        camera = _part(values, "camera")
        to_camera = numbers(camera, "extrinsics", (None, 4, 4), finite=False)
        intrinsics = numbers(camera, "intrinsics", (3, 3))
        check_camera(intrinsics)
        size = int(_number(camera, "height")), int(_number(camera, "width"))
        actor = _actor(values, to_camera, smpl)
    pictures = path.parent / "images" / "%05d.jpg"
    name = path.name.removesuffix("_data.pkl")
    return DatasetSequence(name, path, pictures, len(to_camera), intrinsics, (actor,), size)


def _actor(values: Mapping[str, Any], to_camera: np.ndarray, smpl: SmplFiles) -> Actor:
    frames, parameters = len(to_camera), _part(values, "smpl")
    gender = values.get("gender")
    if gender not in _GENDERS:
        raise TruthError(f"gender is {gender!r:.20}, not one of {', '.join(_GENDERS)}")
    valid = numbers(values, "good_frames_mask", (frames,)) > 0
    root = numbers(parameters, "poses_root", (frames, 3), finite=False)
    others = numbers(parameters, "poses_body", (frames, 69), finite=False)
    pose = np.concatenate((root, others), axis=1)
    transl = numbers(parameters, "trans", (frames, 3), finite=False)
    betas = numbers(parameters, "betas", (10,))
    check_valid(valid, pose, transl, to_camera)
    joints = in_camera(smpl_joints(smpl.body(gender), pose, betas, transl), to_camera)
    return Actor(gender, valid, pose, betas, transl, to_camera, joints)


def _part(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = values.get(key)
    if not isinstance(part, dict):
        raise TruthError(f"{key} is no dictionary")
    return part


def _number(values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    return value if isinstance(value, int | float) else float(as_numbers(value, key, ()))
