"""Read npz files without running anything in them, in memory that their size allows.

``numpy.load`` makes an array as large as a header says before it looks for the data, and a zip
archive of some kilobytes may unpack to gigabytes. Here the sizes are checked first.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 2**30
"""The most that a file may hold, unpacked."""
_MOST_PACKED = 200
_ALWAYS_ALLOWED = 64 << 20
"""A file may unpack to `_MOST_PACKED` times its size, or to this number of bytes: renders of an
empty scene pack well, and archives that are made to fill the memory pack a thousand times."""
_KINDS = "biufcSU"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: Path,
    skip: Collection[str] = (),
    objects: Callable[[bytes], Any] | None = None,
) -> dict[str, Any]:
    """Return the arrays of an npz by name; they are read-only.

    Args:
        path: The file.
        skip: Arrays that are left out.
        objects: Returns what the pickle of an array of objects holds. None: there may be none.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is none, or is too large; and other errors, for a damaged archive.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        named = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        # What is skipped is not unpacked, so it may be of any size.
        wanted = {name: member for name, member in named.items() if name not in skip}
        _check_sizes(wanted.values(), file.seek(0, io.SEEK_END))
        arrays = {}
        for name, member in wanted.items():
            try:
                arrays[name] = _read_npy(archive.read(member), objects)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return arrays


def read_npy(path: Path) -> np.ndarray:
    """Return the array of an npy file; it is read-only. Raises as `read_npz`."""
    with path.open("rb") as file:
        # One byte too many shows that a file is too large.
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError("larger than 1 GiB")
    array: np.ndarray = _read_npy(data, None)
    return array


def _check_sizes(members: Collection[zipfile.ZipInfo], size: int) -> None:
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    # The lowest bit: encrypted.
    if any(member.compress_type not in known or member.flag_bits & 1 for member in members):
        raise ValueError("packed in a way that numpy does not use")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MOST_BYTES:
        raise ValueError("unpacks to more than 1 GiB")
    if unpacked > max(_MOST_PACKED * size, _ALWAYS_ALLOWED):
        raise ValueError(f"unpacks to {unpacked >> 20} MiB, too much for a file of its size")


def _read_npy(data: bytes, objects: Callable[[bytes], Any] | None) -> Any:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of numpy's format is not read")
    shape, fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        if objects is None:
            raise ValueError("an array of objects, not of numbers")
        return objects(stream.read())
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of {dtype}, not of numbers")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"its data do not have the shape {shape}")
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if fortran else "C")
