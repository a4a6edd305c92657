"""Where the index of an MP4 file is: its box ``moov`` (ISO/IEC 14496-12, 4.2 and 8.2)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the format."""
_HEAD = 4096
_TIMEOUT_S = 5.0
_MOST_BOXES = 1000
"""A bound, because a damaged file may be one long chain of tiny boxes."""


def lacks_index(path: Path) -> bool:
    """Return whether a file begins as MP4 but has no index: its recording was cut off."""
    with path.open("rb") as file:
        kinds = _boxes(file, path.stat().st_size)
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds


def index_is_out_of_order(address: str) -> bool:
    """Return whether an MP4 file at an HTTP address has its index behind its pictures, and its
    server sends no parts of files.

    FFmpeg then finds the index at the end, and cannot go back to the pictures of a large file.
    Costs one request for the first bytes; one that fails proves nothing.
    """
    import httpx

    wanted = {"Range": f"bytes=0-{_HEAD - 1}", "Accept-Encoding": "identity"}
    try:
        with httpx.stream(
            "GET", address, headers=wanted, timeout=_TIMEOUT_S, follow_redirects=True
        ) as answer:
            # 206 is what a server answers that sends parts (RFC 9110, 15.3.7).
            head = next(answer.iter_bytes(_HEAD), b"") if answer.status_code == 200 else b""
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    kinds = _boxes(io.BytesIO(head), len(head))
    return b"mdat" in kinds and b"moov" not in kinds


def _boxes(file: BinaryIO, size: int) -> list[bytes]:
    """The kinds of the boxes that begin in the first ``size`` bytes of a file."""
    at = 0
    kinds: list[bytes] = []
    while at + 8 <= size and len(kinds) < _MOST_BOXES:
        file.seek(at)
        head = file.read(16)
        kinds.append(head[4:8])
        length = int.from_bytes(head[:4])
        # A length of 1 says that the true one follows in 64 bits.
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length < 8:
            break
        at += length
    return kinds
