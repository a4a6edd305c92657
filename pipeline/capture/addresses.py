"""The spellings of a source that mean an address, a camera or FFmpeg's test pictures."""

from __future__ import annotations

import re
import stat
from pathlib import Path

TEST_PREFIX = "lavfi:"
NETWORK = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""Schemes of addresses that are read as live feeds."""

_CAMERA = re.compile(r"\d+|/dev/video\d+|/dev/v4l/by-(id|path)/.+|camera:.+")


def is_camera(spec: str) -> bool:
    """Return whether a source is a camera of this machine.

    Udev's links under /dev/v4l name a camera for good, whatever number it has this time; any other
    link to a device counts too.
    """
    if _CAMERA.fullmatch(spec):
        return True
    try:
        return stat.S_ISCHR(Path(spec).stat().st_mode)
    except (OSError, ValueError):
        return False
