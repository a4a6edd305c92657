"""Where the files of a release are: in a folder of the user's, or where model files are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.weights.store import WeightsError, cache_folder, find_optional, known

CHECKPOINT, CONFIG, RIG = "model.ckpt", "model_config.yaml", "assets/mhr_model.pt"
"""The files of a release, in its folder."""
RELEASES = ("sam3d-dinov3", "sam3d-vith")
"""The names of the releases in the catalog of model files, in the order of search."""
_RIG_ALONE = "mhr-rig"
"""The rig's name in the catalog, from MHR's own release."""


@dataclass(frozen=True)
class ReleaseFiles:
    """The files of one release.

    Attributes:
        checkpoint: The weights.
        config: The settings; None where there is no such file.
        rig: MHR as a TorchScript program.
    """

    checkpoint: Path
    config: Path | None
    rig: Path


def find_release(
    release: str | Path | None = None, model_folder: Path | None = None
) -> ReleaseFiles:
    """Return the files of a release.

    Args:
        release: A folder as a release is downloaded, or a name of `RELEASES`; None: the first of
            `RELEASES` that is here.
        model_folder: A folder of model files to look into before the cache.

    Raises:
        WeightsError: None is here, or a file of it is missing. The message is one line.
    """
    if release is not None and (Path(release).is_dir() or str(release) not in RELEASES):
        return find_files(Path(release), model_folder)
    names = RELEASES if release is None else (str(release),)
    for name in names:
        for root in (model_folder, cache_folder()):
            if root is not None and (root / name / CHECKPOINT).is_file():
                return find_files(root / name, model_folder)
    raise WeightsError(
        f"SAM 3D Body is not here ({' or '.join(names)}); get it with: {known(names[0]).how}"
    )


def find_files(folder: Path, model_folder: Path | None = None) -> ReleaseFiles:
    """Return the files of a release in a folder, as it is downloaded.

    Where the folder has no rig, that of MHR's own release serves (`weights fetch mhr-rig`).

    Args:
        folder: The folder.
        model_folder: A folder of model files to look for the rig in before the cache.

    Raises:
        WeightsError: A file is missing. The message is one line.
    """
    if not folder.is_dir():
        names = " or ".join(RELEASES)
        raise WeightsError(f"{folder} is no folder; give that of a release, or {names}")
    checkpoint = folder / CHECKPOINT
    if not checkpoint.is_file():
        raise WeightsError(
            f"{checkpoint} is missing; give the folder of a whole release of SAM 3D Body"
        )
    configs = (folder / CONFIG, folder.resolve().parent / CONFIG)
    config = next((path for path in configs if path.is_file()), None)
    return ReleaseFiles(checkpoint, config, find_rig(folder, model_folder))


def find_rig(folder: Path | None = None, model_folder: Path | None = None) -> Path:
    """Return the file of the MHR rig: a release's, or that of MHR's own release.

    Args:
        folder: The folder of a release; None: any release that is here.
        model_folder: A folder of model files to look into before the cache.

    Raises:
        WeightsError: There is none. The message is one line.
    """
    roots = [root for root in (model_folder, cache_folder()) if root is not None]
    folders = [root / name for name in RELEASES for root in roots] if folder is None else [folder]
    for path in (each / RIG for each in folders):
        if path.is_file():
            return path
    alone = find_optional(_RIG_ALONE, model_folder)
    if alone is None:
        where = "the MHR rig is not here" if folder is None else f"{folder / RIG} is missing"
        raise WeightsError(f"{where}; get the rig with: {known(_RIG_ALONE).how}")
    return alone[RIG]
