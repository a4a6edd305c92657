"""System libraries that Python wheels expect to find, and the packages that bring them."""

from __future__ import annotations

import ctypes
import re

OPENCV_PACKAGES = "libgl1 libglib2.0-0 libsm6 libxext6"
"""What opencv-python's wheel needs of Debian or Ubuntu (with what these depend on)."""

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
    """For an import that failed for want of a system library: which, and what to install, in two
    lines; None for any other error."""
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
    """Have glibc's allocator use two arenas instead of eight a core: threads that come and go with
    every connection else touch one after another, and a process grows for days by what is free in
    each. Nothing where the C library is another."""
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None:
        limit(_ARENAS, 2)
