"""What to do instead of giving a source that people try and that is not read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.capture.addresses import STANDARD_INPUT, TEST_PREFIX, is_address, is_camera
from pipeline.capture.playlist import dash_hint

_PAGES = (
    "youtube.com", "youtube-nocookie.com", "youtu.be", "vimeo.com", "twitch.tv", "dailymotion.com",
    "facebook.com", "instagram.com", "tiktok.com", "bilibili.com", "x.com", "twitter.com",
)  # fmt: skip
_SHARES = (
    "drive.google.com", "dropbox.com", "onedrive.live.com", "1drv.ms", "icloud.com",
    "wetransfer.com",
)  # fmt: skip
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
_LISTS = (".m3u", ".pls", ".asx", ".xspf", ".strm")
# A host and a port, an IP address or www., without a scheme.
_BARE_ADDRESS = re.compile(
    r"(?:[^\s/]*:\S*@\S+|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|www\.\S+|[\w.-]+:[0-9]+)(/.*)?"
)


def hint(spec: str) -> str:
    """Return what to do instead of giving ``spec``; "" where nothing is known against it."""
    if not spec.strip():
        return "no source: give a clip, rtsp://..., a camera (0) or lavfi:testsrc2"
    if is_address(spec):
        return _address_hint(spec) or dash_hint(spec)
    if spec.startswith(TEST_PREFIX) or spec in STANDARD_INPUT or is_camera(spec):
        return ""
    suffix = Path(spec).suffix.lower()
    if suffix in _ARCHIVES:
        return "an archive is not read; unpack it and give the clip or the folder of pictures"
    if suffix in _LISTS:
        return "a list of addresses is not read; give one of the addresses in it"
    if suffix == ".sdp":
        return "a session description is not read; send MPEG-TS to udp://, or use an RTSP server"
    if _BARE_ADDRESS.fullmatch(spec) and not os.path.exists(spec):
        page = _address_hint(f"http://{spec}")
        return page or "an address begins with its scheme, such as rtsp:// or http://"
    return dash_hint(spec)


def _address_hint(address: str) -> str:
    if not address.lower().startswith(("http://", "https://")):
        return ""
    host = urlsplit(address.replace("[", "").replace("]", "")).netloc.rpartition("@")[2].lower()
    if any(f".{host}".endswith(f".{page}") for page in _PAGES):
        return (
            "this is a page, not a video; download the video first (yt-dlp does) and give the file"
        )
    if any(f".{host}".endswith(f".{share}") for share in _SHARES):
        return "this is a page, not a video; download the file and give its path"
    return ""
