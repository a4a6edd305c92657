"""The user's official SMPL files, which the datasets' truths are parameters of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.evaluate.datasets.joint_sets import H36M_JOINTS, LSP_OF_H36M
from app.evaluate.truth import TruthError
from pipeline.body.load import gender_of, load_body
from pipeline.body.model import BodyModel
from pipeline.body.smpl_landmarks import SMPL_VERTICES
from pipeline.core.npz import read_npy
from pipeline.core.user_file import reading

REGRESSOR = "J_regressor_h36m.npy"
"""The regressor of Human3.6M's joints that SPIN and its successors evaluate with."""
WANTED = f"SMPL_FEMALE.pkl, SMPL_MALE.pkl, SMPL_NEUTRAL.pkl and {REGRESSOR}"
_FIRST_WORDS = ("smpl", "basicmodel")
_GENDERS = ("female", "male", "neutral")


@dataclass(frozen=True, eq=False)
class SmplFiles:
    """SMPL bodies by gender.

    Attributes:
        paths: The file of each gender that is there.
        bodies: The bodies of the truth: those of ``paths``, loaded.
        lsp_regressor: The 14 LSP joints from SMPL's vertices (14, 6890), if its file is there.
    """

    paths: Mapping[str, Path]
    bodies: Mapping[str, BodyModel]
    lsp_regressor: np.ndarray | None

    def body(self, gender: str) -> BodyModel:
        """Return the body of a gender.

        Raises:
            TruthError: There is no file of that gender.
        """
        if gender not in self.bodies:
            raise TruthError(f"--smpl has no {gender} SMPL file: add SMPL_{gender.upper()}.pkl")
        return self.bodies[gender]


def load_smpl_files(folder: Path) -> SmplFiles:
    """Load the SMPL files of a folder; each may be named as the download or as ``SMPL_MALE.pkl``.

    Raises:
        FileNotFoundError: The folder is not there or has no such file.
        ValueError: A file is no SMPL model.
        TruthError: Two files are of one gender, or the regressor does not fit SMPL.
    """
    paths = smpl_paths(folder)
    bodies = {gender: load_body(path) for gender, path in paths.items()}
    for gender, body in bodies.items():
        if len(body.v_template) != SMPL_VERTICES:
            count = len(body.v_template)
            raise TruthError(f"{paths[gender]}: {count} vertices; SMPL has {SMPL_VERTICES}")
    regressor = folder / REGRESSOR
    lsp = read_lsp_regressor(regressor) if regressor.is_file() else None
    return SmplFiles(paths, bodies, lsp)


def smpl_paths(folder: Path) -> dict[str, Path]:
    """Return a folder's SMPL files by gender. Errors as of `load_smpl_files`."""
    found: dict[str, Path] = {}
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    for path in files:
        words = path.stem.lower().split("_")
        # SMPL-H's and SMPL-X's files often lie in the same folder.
        if path.suffix not in (".pkl", ".npz") or words[0] not in _FIRST_WORDS:
            continue
        gender = gender_of(path)
        if gender in found:
            raise TruthError(f"{folder}: two {gender} SMPL files, {found[gender].name} and "
                             f"{path.name}: leave one")  # fmt: skip
        found[gender] = path
    if not found:
        raise FileNotFoundError(2, f"no SMPL files in there; it needs {WANTED}", str(folder))
    return {gender: found[gender] for gender in _GENDERS if gender in found}


def read_lsp_regressor(path: Path) -> np.ndarray:
    """Return the regressor (14, 6890) of the 14 LSP joints from Human3.6M's in an npy file.

    Raises:
        OSError: It cannot be read.
        TruthError: It is no such regressor.
    """
    with reading(path, error=TruthError):
        array = read_npy(path)
        if array.shape != (H36M_JOINTS, SMPL_VERTICES) or array.dtype.kind != "f":
            raise TruthError(f"no regressor: {array.dtype} {array.shape}, not "
                             f"({H36M_JOINTS}, {SMPL_VERTICES})")  # fmt: skip
        if not np.isfinite(array).all():
            raise TruthError("it holds values that are not finite numbers")
        return array[list(LSP_OF_H36M)].astype(np.float64)
