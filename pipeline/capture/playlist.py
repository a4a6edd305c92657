"""Playlists: HLS (RFC 8216) and DASH (ISO/IEC 23009-1), finished recordings and live ones."""

from __future__ import annotations

import re

from av.container import InputContainer
from av.format import ContainerFormat

FROM_A_FILE = {"live_start_index": "0", "m3u8_hold_counters": "4"}
"""FFmpeg's options for a playlist on the disk. It is read from its first segment. Without an end
mark (``EXT-X-ENDLIST``) it may still grow, or its recorder was killed: it ends when it has not
grown within about two segments."""


def is_recording(container: InputContainer) -> bool:
    """Return whether an open container is a playlist of a finished recording.

    FFmpeg knows the length of those that nothing is appended to (``EXT-X-ENDLIST``; a static
    manifest), and of no live one.
    """
    return container.format.name in ("hls", "dash") and container.duration is not None


def dash_hint(spec: str) -> str:
    """Return what to do instead of giving a DASH manifest where FFmpeg cannot read one; else ""."""
    if not re.search(r"(?i)\.mpd([?#]|$)", spec):
        return ""
    try:
        ContainerFormat("dash", "r")
    except ValueError:
        return "is a DASH manifest, which FFmpeg here cannot read; give the stream's HLS (.m3u8)"
    return ""
