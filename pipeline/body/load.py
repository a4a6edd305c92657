"""Load body models: the free body of this package, and official SMPL files of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.body.model import BodyModel
from pipeline.body.smpl_landmarks import SMPL_VERTICES, smpl_landmark_regressor
from pipeline.core.npz import read_npz
from pipeline.core.skeleton import LANDMARK_NAMES, PARENTS
from pipeline.core.user_file import reading
from pipeline.weights.array_file import numbers, read_dictionary, unpickled

FREE_BODY = Path(__file__).with_name("free_body.npz")
MANNEQUIN = Path(__file__).with_name("free_mannequin.npz")
MANNEQUIN_UNIT_M = 2e-5
"""The unit of the offsets in `MANNEQUIN`, metres."""


def load_body(path: str | Path | None = None) -> BodyModel:
    """Load a body model in SMPL's format.

    Args:
        path: An ``.npz`` or the old official pickle, of which only the arrays are read (see
            `pipeline.weights.safe_unpickle`). None: the free body that comes with this package,
            which is drawn as a mannequin.

    Returns:
        The model, with float32 tensors on the CPU.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is broken, hostile, or no 24-joint SMPL model. The message is one line that
            names the file.
    """
    if path is None:
        # A body file of the user's is drawn as it is.
        return replace(load_body(FREE_BODY), mannequin=_mannequin())
    path = Path(path)
    with reading(path, " is no SMPL body model"):
        return _body(_read_npz(path) if _is_zip(path) else read_dictionary(path), path)


def _mannequin() -> torch.Tensor:
    """The free body's `BodyModel.mannequin`."""
    units = _read_npz(MANNEQUIN)["offsets"]
    return torch.from_numpy(units.astype(np.float32) * np.float32(MANNEQUIN_UNIT_M))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _read_npz(path: Path) -> dict[str, Any]:
    """All members of an npz. Arrays of objects are pickles and go through the safe unpickler."""
    return read_npz(path, objects=unpickled)


def _matrix(values: Mapping[str, Any], key: str, shape: tuple[int, int]) -> np.ndarray:
    """A regressor, stored dense or as coordinates (``key_row``, ``key_column``, ``key_value``)."""
    if f"{key}_value" not in values:
        return numbers(values, key, shape)
    value = numbers(values, f"{key}_value", (None,))
    axes = [numbers(values, f"{key}_{axis}", value.shape) for axis in ("row", "column")]
    rows, columns = (indices.astype(np.int64) for indices in axes)
    _check_range(rows, shape[0], f"{key}_row")
    _check_range(columns, shape[1], f"{key}_column")
    matrix = np.zeros(shape)
    # Coordinates may repeat; their values add up.
    np.add.at(matrix, (rows, columns), value)
    return matrix


def _check_range(indices: np.ndarray, count: int, key: str) -> None:
    if indices.size and not (indices.min() >= 0 and indices.max() < count):
        raise ValueError(f"{key} points outside 0..{count - 1}")


def _check_rows_sum_to_one(matrix: np.ndarray, key: str) -> None:
    if np.abs(matrix.sum(axis=1) - 1).max() > 1e-2:
        raise ValueError(f"{key} has rows that do not sum to one")


def _check_tree(values: Mapping[str, Any]) -> None:
    """Check that the joints are SMPL's 24, with SMPL's parents."""
    table = numbers(values, "kintree_table", (2, None))
    if table.shape[1] != len(PARENTS):
        kind = {52: " (SMPL-H)", 55: " (SMPL-X)"}.get(table.shape[1], "")
        raise ValueError(f"it has {table.shape[1]} joints{kind}; SMPL has 24")
    # The pelvis has no parent, so its entry is left out.
    if tuple(table[0, 1:].astype(np.int64)) != PARENTS[1:]:
        raise ValueError("its joints do not hang together as SMPL's do")


def _landmarks(values: Mapping[str, Any], joint_regressor: np.ndarray) -> np.ndarray:
    """The landmark regressor (33, V): the file's own, or ours for SMPL's mesh."""
    count = joint_regressor.shape[1]
    if "landmark_regressor" in values or "landmark_regressor_value" in values:
        regressor = _matrix(values, "landmark_regressor", (len(LANDMARK_NAMES), count))
        _check_rows_sum_to_one(regressor, "landmark_regressor")
        return regressor
    if count == SMPL_VERTICES:
        return smpl_landmark_regressor(joint_regressor)
    raise ValueError(f"no landmark_regressor, and {count} vertices are not SMPL's {SMPL_VERTICES}")


def _text(values: Mapping[str, Any], key: str, otherwise: str) -> str:
    value = values.get(key, otherwise)
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind == "U":
        value = str(value)
    return value if isinstance(value, str) else otherwise


def gender_of(path: Path) -> str:
    """Return the gender in an official file's name (``basicModel_f_lbs…``, ``SMPL_FEMALE``)."""
    words = path.stem.lower().split("_")
    genders = {"f": "female", "female": "female", "m": "male", "male": "male"}
    return next((genders[word] for word in words if word in genders), "neutral")


def _body(values: Mapping[str, Any], path: Path) -> BodyModel:
    """The checked model. Raises ValueError for the first thing that is wrong."""
    _check_tree(values)
    template = numbers(values, "v_template", (None, 3))
    count = len(template)
    # Files may hold more shape components than the ten that are used.
    shapedirs = numbers(values, "shapedirs", (count, 3, None))[..., :10]
    if shapedirs.shape[-1] < 10:
        raise ValueError(f"it has {shapedirs.shape[-1]} shape components; 10 are needed")
    joint_regressor = _matrix(values, "J_regressor", (24, count))
    weights = numbers(values, "weights", (count, 24))
    faces = numbers(values, "f", (None, 3)).astype(np.int64)
    _check_range(faces, count, "f")
    _check_rows_sum_to_one(joint_regressor, "J_regressor")
    _check_rows_sum_to_one(weights, "weights")
    posedirs = numbers(values, "posedirs", (count, 3, 207)) if "posedirs" in values else None

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))

    return BodyModel(
        name=_text(values, "name", "SMPL"),
        gender=_text(values, "gender", gender_of(path)),
        v_template=tensor(template),
        shapedirs=tensor(shapedirs),
        posedirs=None if posedirs is None else tensor(posedirs),
        joint_regressor=tensor(joint_regressor),
        weights=tensor(weights),
        faces=faces.astype(np.int32),
        landmark_regressor=tensor(_landmarks(values, joint_regressor)),
        joint_template=tensor(joint_regressor @ template),
        joint_shapedirs=tensor(np.einsum("jv,vci->jci", joint_regressor, shapedirs)),
    )
