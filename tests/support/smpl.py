"""Files in the official SMPL format, with made-up contents."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from pipeline.core.skeleton import PARENTS


def official(vertices: int = 6890, seed: int = 0) -> dict[str, Any]:
    """Arrays of an official file's names, kinds and shapes, with random contents."""
    random = np.random.default_rng(seed)
    regressor = np.zeros((24, vertices))
    for row in regressor:
        row[random.choice(vertices, 12, replace=False)] = 1 / 12
    weights = random.random((vertices, 24)) ** 8
    parents = np.array([PARENTS, range(24)]).astype(np.uint32)
    return {
        "v_template": random.normal(size=(vertices, 3)),
        "shapedirs": random.normal(size=(vertices, 3, 10)) * 0.01,
        "posedirs": random.normal(size=(vertices, 3, 207)).astype(np.float32) * 0.001,
        "J_regressor": sparse.csc_matrix(regressor),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": random.integers(0, vertices, (13776, 3)).astype(np.uint32),
        "kintree_table": parents,
        "bs_type": "lrotmin",
    }


def write_smpl_folder(folder: Path, *genders: str, regressor: bool = True) -> Path:
    """Write SMPL files of these genders, each with a body of its own, and the joint regressor of
    Human3.6M; return the folder."""
    folder.mkdir(exist_ok=True)
    for seed, gender in enumerate(genders):
        arrays = official(seed=seed) | {"posedirs": np.zeros((6890, 3, 207), np.float32)}
        arrays["v_template"] = arrays["v_template"] * 0.3
        (folder / f"SMPL_{gender.upper()}.pkl").write_bytes(pickle.dumps(arrays, 2))
    if regressor:
        np.save(folder / "J_regressor_h36m.npy", h36m_regressor())
    return folder


def h36m_regressor() -> np.ndarray:
    """Return a regressor (17, 6890) with rows that sum to one."""
    rows = np.zeros((17, 6890))
    for number, row in enumerate(rows):
        row[[40 * number, 40 * number + 7]] = 0.5
    return rows
