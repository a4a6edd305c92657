"""Read 3DPW (von Marcard et al., ECCV 2018) as it is published.

The folder holds ``sequenceFiles/SPLIT/NAME.pkl`` and ``imageFiles/NAME/image_00000.jpg``. A file is
a dictionary, pickled by Python 2; its lists have an item for each of the one or two actors.
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
)
from app.evaluate.truth import TruthError
from pipeline.core.user_file import reading
from pipeline.weights.array_file import as_numbers, numbers, read_dictionary
from pipeline.weights.safe_unpickle import Record, as_array

SPLITS = ("test", "validation", "train")
_GENDERS = {"m": "male", "f": "female"}
_MOST_ACTORS = 16


def find(folder: Path, split: str) -> list[Path]:
    """Return the files of a split's sequences, sorted by name.

    Raises:
        FileNotFoundError: There are none.
    """
    found = (folder / "sequenceFiles" / split).glob("*.pkl")
    # A pipe would be waited for.
    files = sorted(path for path in found if path.is_file())
    if not files or not (folder / "imageFiles").is_dir():
        reason = f"no 3DPW: it needs sequenceFiles/{split}/*.pkl and imageFiles in there"
        raise FileNotFoundError(2, reason, str(folder))
    return files


def read(path: Path) -> DatasetSequence:
    """Read a sequence's file; the pictures are not looked for.

    Raises:
        OSError: It cannot be read.
        TruthError: It is no such file, or hostile.
    """
    with reading(path, error=TruthError):
        values = read_dictionary(path)
        to_camera = numbers(values, "cam_poses", (None, 4, 4), finite=False)
        intrinsics = numbers(values, "cam_intrinsics", (3, 3))
        check_camera(intrinsics)
        genders = _list(values, "genders")
        actors = tuple(_actor(values, number, to_camera) for number in range(len(genders)))
    pictures = path.parents[2] / "imageFiles" / path.stem / "image_%05d.jpg"
    return DatasetSequence(path.stem, path, pictures, len(to_camera), intrinsics, actors)


def _actor(values: Mapping[str, Any], number: int, to_camera: np.ndarray) -> Actor:
    frames = len(to_camera)

    def own(key: str, *shape: int | None, finite: bool = False) -> np.ndarray:
        items = _list(values, key)
        if number >= len(items):
            raise TruthError(f"{key} has {len(items)} actors; genders has more")
        return as_numbers(items[number], f"{key}[{number}]", shape, finite)

    gender = _list(values, "genders")[number]
    if gender not in tuple(_GENDERS):
        raise TruthError(f"genders[{number}] is {gender!r:.20}, not 'm' or 'f'")
    seen = (own("poses2d", frames, 3, None)[:, 2] > 0).any(1)
    # Without a detection there is no box for a network either: the field leaves these out.
    valid = (own("campose_valid", frames) > 0) & seen
    joints = in_camera(own("jointPositions", frames, 72).reshape(frames, 24, 3), to_camera)
    pose, transl = own("poses", frames, 72), own("trans", frames, 3)
    betas = own("betas", None, finite=True)[:10]
    if len(betas) < 10:
        raise TruthError(f"betas[{number}] has {len(betas)} numbers; 10 are needed")
    check_valid(valid, pose, transl, joints)
    return Actor(_GENDERS[gender], valid, pose, betas, transl, to_camera, joints)


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    items = values.get(key)
    if isinstance(items, Record):
        # Actors of the same number of frames may be stacked to one array.
        items = list(as_array(items))
    if not isinstance(items, list | tuple) or not 0 < len(items) <= _MOST_ACTORS:
        raise TruthError(f"{key} is no list with an item for each actor")
    return list(items)
