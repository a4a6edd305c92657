"""System libraries that Python wheels expect to find, and the packages that bring them."""

from __future__ import annotations

import ctypes
import re

OPENCV_PACKAGES = "libgl1 libglib2.0-0 libsm6 libxext6"
"""The packages of Debian or Ubuntu that opencv-python's wheel needs."""

_PACKAGES = {
    "libGL.so": OPENCV_PACKAGES,
    "libxcb": OPENCV_PACKAGES,
    "libX11": OPENCV_PACKAGES,
    "libSM": OPENCV_PACKAGES,
    "libICE": OPENCV_PACKAGES,
    "libXext": OPENCV_PACKAGES,
    "libglib-2.0": OPENCV_PACKAGES,
    "libgthread-2.0": OPENCV_PACKAGES,
    "libEGL": "libegl1 libgl1-mesa-dri",
    "libOSMesa": "libosmesa6",
    "libgomp": "libgomp1",
    "libstdc++": "libstdc++6",
}


def library_remedy(error: BaseException) -> str | None:
    """Return which system library an import lacks and what to install, in two lines.

    None for an error of another kind.
    """
    # The dynamic linker's own words, which Python passes on.
    found = re.search(r"(lib[\w.+-]+): cannot open shared object file", str(error))
    if found is None:
        return None
    library = found[1]
    packages = next((p for start, p in _PACKAGES.items() if library.startswith(start)), None)
    how = f"apt install {packages}" if packages else f"the package that brings {library}"
    return f"this system lacks {library}\nOn Debian and Ubuntu: {how}"


_ARENAS = -8
"""mallopt's M_ARENA_MAX (glibc, malloc.h)."""


def keep_memory_together() -> None:
    """Limit glibc's allocator to two arenas instead of eight a core.

    The threads of connections come and go and would touch one arena after another, so a process
    would grow for days by the free memory in each. Does nothing with another C library.
    """
    # Only glibc has `mallopt`.
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None:
        limit(_ARENAS, 2)
