"""Ways in for live sources: how an address or a camera is opened with FFmpeg."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from pipeline.capture.errors import (
    SourceError,
    SourceLogin,
    SourceNotFound,
    SourceNotThere,
    SourceRefused,
    SourceUnreachable,
    reason,
)
from pipeline.core.redact import without_credentials

_PYAV = int(av.__version__.partition(".")[0])
ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < 19 else {}
"""For PyAV 18, which else refuses files whose tags are no UTF-8; 19 took the option away."""

_RAW_PIXELS = 640 * 480
READ_TIMEOUT_S = 5.0
"""A feed that sends nothing for so long is lost."""

# An HTTP address that ends like a file is a clip; others (a camera's MJPEG, HLS) are live.
_DOWNLOAD = re.compile(r"(?i)https?://[^?#]+\.(mp4|m4v|mov|mkv|webm|avi|ts|mts|mpe?g)([?#]|$)")

_PROTOCOLS = "rtsp,rtsps,rtmp,rtmps,http,https,tcp,tls,udp,rtp,srtp,crypto,httpproxy,data"
"""What an address, and whatever a playlist behind it names, may be fetched by: a server we watch
must not have us read files of this machine."""
_FORMATS = (
    "rtsp,hls,dash,mpegts,mpeg,mpegvideo,h261,h263,h264,hevc,vvc,av1,obu,ivf,m4v,mjpeg,mpjpeg,"
    "jpeg_pipe,flv,live_flv,mov,matroska,avi,asf,ogg,nut,mxf,yuv4mpegpipe,aac,mp3,ac3,eac3,webvtt"
)
"""What is taken for video. FFmpeg also draws text files as pictures, which would show whoever adds
an address the pages of an inner network."""

Opener = Callable[..., InputContainer]


@dataclass(frozen=True)
class StreamInput:
    """Where a live source comes from.

    ``open()`` opens it once and raises FFmpeg's error or a SourceError; ``explain(error)`` makes
    a SourceError of FFmpeg's. ``download``: it is a clip, whose end is no loss and which waits.
    """

    name: str
    open: Callable[[], InputContainer]
    explain: Callable[[av.error.FFmpegError], SourceError]
    download: bool = False


def acceleration(decode: str) -> HWAccel | None:
    """What PyAV needs to decode as `SourceOptions.decode` says; pictures come to host memory."""
    return HWAccel("cuda", allow_software_fallback=False) if decode == "nvdec" else None


def network(
    address: str, rtsp_transport: str, opener: Opener = av.open, decode: str = "software"
) -> StreamInput:
    """A feed at ``address``; RTSP's media comes by ``rtsp_transport``."""
    scheme = address.partition(":")[0].lower()
    # FFmpeg's own timeouts, in microseconds: PyAV's takes the GIL at every poll. Guessing the
    # rate from two frames instead of twenty opens a feed 0.7 s sooner.
    timeout = "timeout" if scheme in ("rtsp", "rtsps", "udp") else "rw_timeout"
    options = {timeout: str(round(READ_TIMEOUT_S * 1e6)), "fpsprobesize": "2"}
    options |= {"protocol_whitelist": _PROTOCOLS, "format_whitelist": _FORMATS}
    if scheme.startswith("rtsp"):
        options |= {"rtsp_transport": rtsp_transport, "allowed_media_types": "video"}
    name = without_credentials(address)
    hardware = {} if decode == "software" else {"hwaccel": acceleration(decode)}
    return StreamInput(
        name=name,
        open=lambda: opener(address, options=options, **hardware, **ANY_TAGS),
        explain=lambda error: _network_error(error, name, decode),
        download=_DOWNLOAD.match(address) is not None,
    )


def camera(
    spec: str,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    opener: Opener = av.open,
    platform: str = sys.platform,
) -> StreamInput:
    """The camera ``0``, ``/dev/video0`` or ``camera:NAME`` of this machine, asked for pictures of
    ``size`` (width, height) at ``fps``; its own choice of what is None."""
    name = f"camera {spec}" if spec.isdigit() else spec

    def open_camera() -> InputContainer:
        kind, device, options = camera_input(spec, platform)
        if kind == "v4l2" and not Path(device).exists():
            found = sorted(str(path) for path in Path("/dev").glob("video*"))
            raise SourceNotFound(
                f"{name}: there is no {device}; cameras here: {', '.join(found) or 'none'}"
            )
        asked = {"video_size": f"{size[0]}x{size[1]}"} if size else {}
        if fps:
            asked["framerate"] = f"{fps:g}"
        if kind == "v4l2" and size and size[0] * size[1] > _RAW_PIXELS:
            # Large pictures fit through USB as JPEG only; a camera without it gives what it has.
            asked["input_format"] = "mjpeg"
        return _first_of(opener, device, kind, options | asked, options)

    return StreamInput(
        name=name, open=open_camera, explain=lambda error: _camera_error(error, name)
    )


def _first_of(
    opener: Opener, device: str, kind: str, wanted: dict[str, str], plain: dict[str, str]
) -> InputContainer:
    """The device opened as wanted, or without JPEG where it has none."""
    try:
        return opener(device, format=kind, options=wanted)
    except av.error.FFmpegError:
        if "input_format" not in wanted:
            raise
    without = {name: value for name, value in wanted.items() if name != "input_format"}
    return opener(device, format=kind, options=plain | without)


def camera_input(spec: str, platform: str) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's input format, device and options for a camera.

    Raises SourceNotFound when DirectShow has no camera of that number.
    """
    label = spec.removeprefix("camera:")
    if platform == "darwin":
        # AVFoundation asks for a rate that the camera has; its default is none of the usual ones.
        return "avfoundation", f"{label}:none", {"framerate": "30"}
    if platform == "win32":
        if label.isdigit():
            names = [d.description for d in av.enumerate_input_devices("dshow")
                     if "video" in d.media_types]  # fmt: skip
            if int(label) >= len(names):
                raise SourceNotFound(f"camera {label}: cameras here: {', '.join(names) or 'none'}")
            label = names[int(label)]
        return "dshow", f"video={label}", {}
    return "v4l2", re.sub(r"^(\d+)$", r"/dev/video\1", label), {}


def _network_error(error: av.error.FFmpegError, name: str, decode: str) -> SourceError:
    """SourceUnreachable may pass with time and is worth another try; the others will not."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        if "***@" in name:
            return SourceLogin(f"{name}: the login is refused: check user and password")
        return SourceLogin(f"{name}: wants a login: put user:password@ before the host")
    if decode == "nvdec" and isinstance(error, PermissionError):  # no CUDA device to be had
        return SourceRefused(f"{name}: NVDEC cannot be used here; leave --decode out")
    if isinstance(error, av.error.HTTPForbiddenError):
        return SourceRefused(f"{name}: forbidden: this login may not watch it")
    if isinstance(error, av.error.LookupError):
        return SourceNotFound(f"{name}: {reason(error)}: FFmpeg here cannot read this kind")
    if isinstance(error, av.error.HTTPNotFoundError):
        return SourceNotThere(f"{name}: no such stream there: check the path")
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
        return SourceUnreachable(f"{name}: no video stream comes from there")
    return SourceUnreachable(f"{name}: {reason(error)}: check the address and that it is on")


def _camera_error(error: av.error.FFmpegError, name: str) -> SourceError:
    if isinstance(error, PermissionError):
        return SourceRefused(f"{name}: no permission: on Linux, add this user to the group video")
    if getattr(error, "errno", None) == 16:  # EBUSY
        return SourceUnreachable(f"{name}: is in use by another program")
    return SourceUnreachable(f"{name}: cannot be read as a camera: {reason(error)}")
