"""Zip archives and npy files that say anything, and what reading a file costs."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.paths import ROOT


def npy(shape: str, data: bytes = b"", descr: str = "'<f8'", fortran: str = "False") -> bytes:
    """Return an npy file whose header says this, whatever the data are."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def zipped(members: Mapping[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def zeros(members: int, mebibytes: int, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of arrays of zeros, a thousandth of their size."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for number in range(members):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                member.write(npy(f"({mebibytes << 17},)"))
                for _ in range(mebibytes):
                    member.write(bytes(1 << 20))
    return out.getvalue()


_METER = """
import resource, sys
{imports}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
try:
    {call}
    print("read")
except (ValueError, OSError) as error:
    print(error)
print(peak() - before)
"""


def cost(imports: str, call: str) -> tuple[str, int]:
    """Return what reading a file says, and the memory that it takes, in MiB.

    Args:
        imports: Is run first, and not counted.
        call: Reads the file.
    """
    done = subprocess.run(
        [sys.executable, "-c", _METER.format(imports=imports, call=call)],
        cwd=Path(ROOT), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    line, peak = done.stdout.splitlines()
    return line, int(peak)
