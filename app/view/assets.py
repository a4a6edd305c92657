"""The files of the 3D view's page."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

PAGE = Path(__file__).with_name("page")


@cache
def assets() -> dict[str, bytes]:
    """Return the files of the page by their paths below it, such as ``vendor/OrbitControls.js``."""
    paths = (path for path in sorted(PAGE.rglob("*")) if path.is_file())
    return {path.relative_to(PAGE).as_posix(): path.read_bytes() for path in paths}


def packed(data: bytes) -> bytes:
    """Return data compressed by gzip, the same bytes each time."""
    return gzip.compress(data, mtime=0)
